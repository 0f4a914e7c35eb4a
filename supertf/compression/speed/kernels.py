"""One row times a matrix of which only some rows or columns are read: kernels that Numba compiles.

PyTorch has no such product: put together from its operations, choosing the columns costs more than reading
them all. Here it is one pass, and as the time is that of reading weights, half the columns take half of it.
The first call of each in a process loads what an earlier process compiled, or compiles for a few seconds.
"""

import contextlib
from collections.abc import Iterator

import numba
import numpy as np
import torch

SUMS = {"reassoc", "contract", "nsz"}  # may be done in another order; infinities and NaN stay what they are


@numba.njit(cache=True)
def counting(x: np.ndarray, threshold: np.float32, held: np.ndarray) -> np.ndarray:
    """Where x (in,) is not below the threshold in magnitude, or `held` (in,) bool: indices, (k,) int64."""
    kept = np.empty(len(x), np.int64)
    count = 0
    for j in range(len(x)):
        kept[count] = j  # overwritten by the next where it does not count: no branch
        count += held[j] or not abs(x[j]) < threshold
    return kept[:count]


@numba.njit(parallel=True, fastmath=SUMS, cache=True)
def columns_product(x: np.ndarray, kept: np.ndarray, columns: np.ndarray, parts: int) -> np.ndarray:
    """The sum over j in kept of x[j] columns[j]: x (in,), columns (in, out), a matrix's columns as rows, both
    float32, to (out,). The inputs are shared out in `parts`, one for each thread, with a sum of its own."""
    out = columns.shape[1]
    sums = np.zeros((parts, out), np.float32)
    for part in numba.prange(parts):
        total = sums[part]
        at, stop = len(kept) * part // parts, len(kept) * (part + 1) // parts
        while at + 4 <= stop:  # four at once: the sum is read and written a quarter as often
            a, b, c, d = kept[at], kept[at + 1], kept[at + 2], kept[at + 3]
            for i in range(out):
                total[i] += (
                    x[a] * columns[a, i] + x[b] * columns[b, i] + x[c] * columns[c, i] + x[d] * columns[d, i]
                )
            at += 4
        while at < stop:
            a = kept[at]
            for i in range(out):
                total[i] += x[a] * columns[a, i]
            at += 1
    for part in range(1, parts):
        for i in range(out):
            sums[0, i] += sums[part, i]
    return sums[0]


@numba.njit(cache=True)
def large_columns_product(
    x: np.ndarray, threshold: np.float32, held: np.ndarray, columns: np.ndarray, parts: int
) -> np.ndarray:
    """`columns_product` of those that are `counting`: one call from Python, which costs as much as reading a
    small matrix, in place of two."""
    return columns_product(x, counting(x, threshold, held), columns, parts)


@numba.njit(parallel=True, fastmath=SUMS, cache=True)
def rows_product(x: np.ndarray, kept: np.ndarray, rows: np.ndarray, y: np.ndarray) -> None:
    """y[i] = rows[i] times x for i in kept, in place: x (in,), rows (out, in), y (out,), all float32."""
    for at in numba.prange(len(kept)):
        i = kept[at]
        total = np.float32(0)
        for j in range(len(x)):
            total += rows[i, j] * x[j]
        y[i] = total


def threads() -> int:
    """How many a product is shared out to: PyTorch's number, as far as Numba has them."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


@contextlib.contextmanager
def limited_threads() -> Iterator[None]:
    """Let Numba use no more threads than PyTorch while the context lasts, and PyTorch as many as before."""
    wanted = torch.get_num_threads()
    before = numba.get_num_threads()  # the first call starts its threads, and sets OpenMP's number: PyTorch's
    torch.set_num_threads(wanted)
    numba.set_num_threads(threads())
    try:
        yield
    finally:
        numba.set_num_threads(before)
