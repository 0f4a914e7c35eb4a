"""Runs experiments cell by cell; every finished cell is kept, so that a sweep can stop and go on."""

import contextlib
import json
import multiprocessing
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from supertf.errors import UserError
from supertf.experiments.catalogue import EXPERIMENTS
from supertf.experiments.catalogue import experiment as registered
from supertf.experiments.cells import compute, kept
from supertf.experiments.code_identity import differing, named
from supertf.experiments.description import Experiment, cell_hash
from supertf.experiments.results import Results
from supertf.files import cache_dir
from supertf.training import StopRequest

Finished = Callable[[int, dict[str, Any]], None]  # takes a cell's index and its record
Todo = list[tuple[int, dict[str, Any], Path]]  # index, cell, file of its record


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep; the cells that are finished are kept."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__(f"interrupted after {done} of {total} cells; run the same command again to go on")


def run(
    experiment: Experiment | str,
    seeds: Iterable[int] | None = None,
    variants: Iterable[str] | None = None,
    lengths: Iterable[int] | None = None,
    changes: Mapping[str, Any] | None = None,
    jobs: int = 1,
    folder: str | Path | None = None,
    progress: bool = True,
    fresh: bool = False,
) -> Results:
    """Measure every variant on every seed, except where the cache has the result.

    A cell is a call `measure(settings, seed, lengths)`. Once finished, its result is written to
    `folder/NAME/HASH.json`, where the hash is over everything that the call is given. It is taken from there
    the next time if the file is whole and all code of supertf that the measure runs, torch, numpy, the kind
    of device and the dtype are the same; otherwise a line on stderr says why, and the cell is measured again.

    Args:
        experiment: a description, or the name of a registered one.
        seeds, variants, lengths, changes: as in `Experiment.narrowed`; None runs what is described.
        jobs: cells at a time. One runs in this process; more run in new processes that share the cores.
        folder: of the cache; None is `experiments` in supertf's cache folder.
        progress: show a bar on stderr.
        fresh: measure also what the cache has.

    Raises:
        UserError: an unknown variant, setting or measure, or what a measure raised, with the cell's name.
        SweepInterrupted: on Ctrl-C, when the running cells are finished; at once on the second.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}; expected at least 1")
    described = registered(experiment) if isinstance(experiment, str) else experiment
    narrowed = described.narrowed(seeds, variants, lengths, changes)
    cells = narrowed.cells()
    base = cache_dir() / "experiments" if folder is None else Path(folder)
    paths = [base / narrowed.name / f"{cell_hash(cell)}.json" for cell in cells]
    records = [None] * len(cells) if fresh else kept(cells, paths)
    todo = [(index, cells[index], paths[index]) for index, record in enumerate(records) if record is None]

    def finished(index: int, record: dict[str, Any]) -> None:
        records[index] = record
        bar.update()

    notice = "finishing what is running; Ctrl-C again stops at once"
    with (
        tqdm(
            total=len(cells),
            initial=len(cells) - len(todo),
            desc=narrowed.name,
            unit="cell",
            disable=not progress,
        ) as bar,
        StopRequest(notice) as stop,
        contextlib.suppress(KeyboardInterrupt),  # the second; what is missing then is told below
    ):
        if jobs == 1:
            _run_here(todo, stop, finished, bar)
        elif todo:
            _run_in_processes(todo, min(jobs, len(todo)), stop, finished)
    if missing := records.count(None):
        raise SweepInterrupted(len(cells) - missing, len(cells))
    code = records[0]["made_with"]["code"]
    if different := {name for one in records for name in differing(code, one["made_with"]["code"])}:
        raise UserError(
            f"the code of {named(sorted(different))} was edited during the sweep: run the same command "
            "again, which measures anew what was made before"
        )
    meta = _meta(records, _command(described, narrowed, changes or {}, jobs))
    measured = zip(cells, records, strict=True)
    return Results(narrowed, [_result_cell(cell, record) for cell, record in measured], meta)


def _run_here(todo: Todo, stop: StopRequest, finished: Finished, bar: tqdm) -> None:
    """Measure cells one after the other in this process."""
    for index, cell, path in todo:
        if stop.requested:
            return
        bar.set_postfix_str(f"{cell['variant']}, seed {cell['seed']}")
        finished(index, compute(cell, path))


def _run_in_processes(todo: Todo, jobs: int, stop: StopRequest, finished: Finished) -> None:
    """Measure `jobs` cells at a time, each in a process that shares nothing with this one.

    Cells are handed out one by one, so that after a stop or a mistake only those that run are waited for.
    """
    context = multiprocessing.get_context("spawn")
    end_of_leash, leash = context.Pipe(duplex=False)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting = iter(todo)
    running: dict[Future[dict[str, Any]], int] = {}
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (end_of_leash, threads))
    with leash, end_of_leash, pool:
        try:
            while True:
                while len(running) < jobs and not stop.requested and (item := next(waiting, None)):
                    index, cell, path = item
                    with _interrupts_held_back():  # a new process would die of one with a traceback
                        running[pool.submit(compute, cell, path)] = index
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    finished(running.pop(future), future.result())
        except KeyboardInterrupt:
            leash.close()
            raise
        except BrokenProcessPool:
            if stop.requested:  # the signal reached them as well
                return
            raise UserError(
                "a process of the sweep died: for lack of memory (try fewer jobs), or because the script "
                "that called run does not do so under `if __name__ == '__main__':`"
            ) from None


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches this process afterwards and those started meanwhile never, where signals can wait."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(end_of_leash: Connection, threads: int) -> None:
    """Prepare a new process: Ctrl-C is the parent's business, and the process never outlives the leash."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_when_let_go, args=(end_of_leash,), daemon=True).start()
    torch.set_num_threads(threads)


def _leave_when_let_go(end_of_leash: Connection) -> None:
    try:
        end_of_leash.recv()  # nothing is ever sent: it ends when the parent closes its side, or dies
    except (EOFError, OSError):
        os._exit(1)


def _result_cell(cell: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    described = {name: cell[name] for name in ("variant", "seed", "settings", "lengths")}
    return {**described, "result": record["result"], "seconds": record["seconds"]}


def _meta(records: list[dict[str, Any]], command: str | None) -> dict[str, Any]:
    """What the cells were made with; a list where they differ."""

    def of_all(name: str) -> Any:
        values = sorted({record["made_with"][name] for record in records})
        return values[0] if len(values) == 1 else values

    return {
        "versions": {name: of_all(name) for name in ("supertf", "torch", "numpy", "python")},
        **{name: of_all(name) for name in ("device", "processor", "cores", "threads", "date")},
        "code": records[0]["made_with"]["code"],
        "seconds": sum(record["seconds"] for record in records),
        "command": command,
    }


def _command(
    described: Experiment, narrowed: Experiment, changes: Mapping[str, Any], jobs: int
) -> str | None:
    """The command that gives the same results; None for an experiment that is not registered."""
    if EXPERIMENTS.get(described.name) != described:
        return None
    words = ["supertf", "experiment", "run", described.name]
    for part in ("seeds", "variants", "lengths"):
        chosen = tuple(getattr(narrowed, part))
        if chosen != tuple(getattr(described, part)):
            words += [f"--{part}", *map(str, chosen)]
    if changes:
        words += ["--set", *(f"{name}={json.dumps(value)}" for name, value in changes.items())]
    if jobs > 1:
        words += ["--jobs", str(jobs)]
    return shlex.join(words)
