"""Runs experiments cell by cell; every finished cell is kept, so that a sweep can stop and go on."""

import contextlib
import functools
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from supertf.errors import UserError
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.catalogue import experiment as registered
from supertf.experiments.sweep.cells import Record, compute, kept, made_with
from supertf.experiments.sweep.description import Experiment, cell_hash
from supertf.experiments.sweep.engine import connected, unordered
from supertf.experiments.sweep.results import Results
from supertf.files import cache_dir, seal, write_json


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
    backend: str = "loky",
    scheduler: str | None = None,
) -> Results:
    """Measure every variant on every seed, except where the cache has the result.

    A cell is a call `measure(settings, seed, lengths)`. Once finished, its result is written to
    `folder/NAME/HASH.json`, where the hash is over everything that the call is given. It is taken from there
    the next time if the file is whole and all code of supertf that the measure runs, torch, numpy, the kind
    of device and the dtype are the same; otherwise a line on stderr says why, and the cell is measured again.
    To merge what several machines have measured, copy their files into one folder and run the same again.

    Args:
        experiment: a description, or the name of a registered one.
        seeds, variants, lengths, changes: as in `Experiment.narrowed`; None runs what is described.
        jobs: cells at a time. One runs in this process; more run in new processes that share the cores.
        folder: of the cache; None is `experiments` in supertf's cache folder.
        progress: show a bar on stderr.
        fresh: measure also what the cache has.
        backend: of joblib. "loky" is this machine; "dask" is a cluster, whatever `jobs` is: each worker
            measures one cell at a time, and the results are written here.
        scheduler: the address of dask's scheduler, such as "tcp://127.0.0.1:8786".

    Returns:
        The results of all cells, from the cache or not.

    Raises:
        UserError: an unknown variant, setting or measure; what a measure raised, with the cell's name; a
            process that died, or a cluster that cannot be reached; code or versions that change meanwhile.
        SweepInterrupted: on Ctrl-C. What was being measured is lost.
    """
    described = registered(experiment) if isinstance(experiment, str) else experiment
    narrowed = described.narrowed(seeds, variants, lengths, changes)
    cells = {cell_hash(cell): cell for cell in narrowed.cells()}
    folder = (cache_dir() / "experiments" if folder is None else Path(folder)) / narrowed.name
    with connected(backend, scheduler) as engine:
        now = made_with(narrowed.measure)
        if backend != "loky":  # versions and device are the workers', but the code has to be this one
            now = {**next(unordered(made_with, [narrowed.measure], 1, engine)), "code": now["code"]}
        records = {} if fresh else kept(cells, folder, now)
        todo = [cell for key, cell in cells.items() if key not in records]
        bar = tqdm(
            total=len(cells), initial=len(records), desc=narrowed.name, unit="cell", disable=not progress
        )

        def due() -> Iterator[dict[str, Any]]:
            for cell in todo:
                if backend == "loky" and jobs == 1:
                    bar.set_postfix_str(f"{cell['variant']}, seed {cell['seed']}")
                yield cell

        measured = unordered(functools.partial(compute, now=now), due(), min(jobs, len(todo)) or 1, engine)
        try:
            with bar, contextlib.closing(measured):
                for record in measured:
                    if isinstance(record, UserError):
                        raise record
                    key = cell_hash(record["cell"])
                    write_json(folder / f"{key}.json", seal(record))
                    records[key] = record
                    bar.update()
        except KeyboardInterrupt:
            raise SweepInterrupted(len(records), len(cells)) from None
    measured_cells = [_result_cell(cell, records[key]) for key, cell in cells.items()]
    command = _command(described, narrowed, changes or {}, jobs)
    return Results(narrowed, measured_cells, _meta([records[key] for key in cells], command))


def _result_cell(cell: dict[str, Any], record: Record) -> dict[str, Any]:
    described = {name: cell[name] for name in ("variant", "seed", "settings", "lengths")}
    return {**described, "result": record["result"], "seconds": record["seconds"]}


def _meta(records: list[Record], command: str | None) -> dict[str, Any]:
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
