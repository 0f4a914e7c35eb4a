"""Notebooks beside each other: processes with a share of the cores each, none left running behind."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import psutil

LANES = min(2, os.cpu_count() or 1)  # two notebooks on a core each are done sooner than one after the other
Returned = TypeVar("Returned")


def side_by_side(call: Callable[..., Returned], jobs: Sequence[tuple]) -> Iterator[Returned]:
    """The results of `call(*job)` as they come, at most `LANES` at a time, begun in order.

    In processes, as papermill changes the working directory; they and their kernels get as many threads as
    leave each lane its share of the cores. When the caller closes this early, after Ctrl-C say, all end.
    """
    lanes = max(1, min(LANES, len(jobs)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(lanes, context, _start, (max(1, (os.cpu_count() or 1) // lanes),)) as pool:
        try:
            for future in as_completed([pool.submit(call, *job) for job in jobs]):
                yield future.result()
        except BaseException:
            for lane in multiprocessing.active_children():
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
                    for process in (*psutil.Process(lane.pid).children(recursive=True), lane):
                        process.kill()
            raise


def _start(threads: int) -> None:
    """Prepare a lane's process, whose environment its kernels inherit; Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
