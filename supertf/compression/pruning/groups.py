"""Which weights go: the lowest scores of every group of weights that are compared with one another.

A group is a run of weights in a matrix's rows, read one after the other: `m` inputs of an N:M pattern, a row,
the matrix, or all matrices in turn. The counts are exact, whatever the ties.
"""

import dataclasses
import re

import torch
from torch import Tensor

from supertf.compression.fate import Fate
from supertf.errors import UserError


def parse_pattern(text: str) -> tuple[int, int]:
    """(n, m) of "n:m", which keeps n of every m consecutive inputs of a row; `UserError` on anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*:\s*(\d+)\s*", text)
    kept, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 0 < kept < of:
        raise UserError(
            f"pattern {text!r}; expected n:m with 0 < n < m, such as 2:4, which keeps 2 of every 4"
        )
    return kept, of


def check_sparsity(sparsity: float) -> None:
    """Refuse a share that is none.

    Raises:
        UserError: it is not from 0 to 1.
    """
    if not 0 <= sparsity <= 1:
        raise UserError(f"sparsity is {sparsity}, expected 0 (remove nothing) to 1 (remove all): 0.5 is half")


def how_many(sparsity: float, size: int) -> int:
    """Weights to remove of a group of `size`: the nearest whole number, halves upwards."""
    return int(sparsity * size + 0.5)


def lowest(scores: Tensor, count: int, protected: Tensor | None = None) -> Tensor:
    """The `count` lowest scores of each group, True in a mask like scores (groups, size).

    Of equal scores the first go. Protected weights (True in a mask like scores) stay and others go in their
    place: fewer than `count` are removed only where a group has no others left.
    """
    if protected is not None:
        scores = scores.masked_fill(protected, torch.inf)
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    limit = scores.kthvalue(count, dim=1, keepdim=True).values  # (groups, 1)
    removed = scores <= limit
    tied = (removed.sum(1) > count).nonzero()[:, 0]  # groups in which too many scores equal the limit
    if len(tied):
        below = scores[tied] < limit[tied]
        equal = scores[tied] == limit[tied]
        room = count - below.sum(1, keepdim=True)
        removed[tied] = below | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
    return removed if protected is None else removed & ~protected


def lowest_of(scores: Tensor, size: int | None, sparsity: float, protected: Tensor | None = None) -> Tensor:
    """The weights to remove of a matrix, from its scores: a mask like them (out, in).

    size: of a group, None the whole matrix. sparsity: the share that goes of each. protected: see `lowest`.
    """
    size = size or scores.numel()
    held = None if protected is None else protected.reshape(-1, size)
    return lowest(scores.reshape(-1, size), how_many(sparsity, size), held).view(scores.shape)


def rank(scores: Tensor, index: int) -> int:
    """How many of a group's scores (size,) are removed before the one at `index`."""
    score = scores[index]
    return int((scores < score).sum() + (scores[:index] == score).sum())


def turn_of(fate: Fate, scores: Tensor, index: int, going: int, gone: bool, kept: float) -> Fate:
    """The fate of a weight that is compared with a group: scores (size,), its own at `index`, of which
    `going` are to go; gone: whether it does; kept: its value if not."""
    after, turn = 0.0 if gone else kept, rank(scores, index)
    return dataclasses.replace(fate, after=after, removed=gone, rank=turn, group=len(scores), going=going)
