"""One cell of an experiment: measured, and read back only if it is what would be measured now."""

import copy
import datetime
import importlib
import importlib.metadata
import os
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from supertf import __version__
from supertf.device import pick_device_dtype, processor
from supertf.errors import UserError
from supertf.experiments.sweep.code_identity import code_of, differing, named
from supertf.experiments.sweep.description import WAITING, as_json, cell_hash, cell_label
from supertf.files import is_sealed, read_json

FORMAT = "supertf experiment cell 1"
SAME = ("supertf", "torch", "numpy", "device", "dtype")  # what all of a sweep's cells must be measured with
TEXTS = "supertf.data.python_docs"  # the built-in text is the documentation of this very Python
ONE_AT_A_TIME = threading.Lock()  # cells of a process share models and PyTorch's random numbers

Record = dict[str, Any]  # of a measured cell: format, cell, result, seconds, made_with


def module_of(measure: str) -> str:
    """The full name of the module that "module:function" names."""
    name = measure.partition(":")[0]
    return name if "." in name else f"supertf.experiments.{name}"


def measure_of(measure: str) -> Callable[..., dict[str, Any]]:
    """The function that "module:function" names; `UserError` when there is none."""
    try:
        return getattr(importlib.import_module(module_of(measure)), measure.partition(":")[2])
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"no measure {measure}: {error}") from error


def made_with(measure: str) -> dict[str, Any]:
    """What a cell measured now, in this process, is made with: versions, machine and code."""
    measure_of(measure)  # loaded, so that it is this process's code that is looked at
    device, dtype, _ = pick_device_dtype()
    return {
        "supertf": __version__,
        "torch": importlib.metadata.version("torch"),
        "numpy": importlib.metadata.version("numpy"),
        "python": platform.python_version(),
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "code": code_of(module_of(measure)),
    }


def compute(cell: dict[str, Any], now: dict[str, Any]) -> Record | UserError:
    """Measure a cell, in whatever process and thread this is.

    Args:
        cell: as from `Experiment.cells`.
        now: what all cells of the sweep are made with, as from `made_with`.

    Returns:
        The cell's record; or, with the cell's name, what the measure refused, that its result is not made of
        JSON values, or that it would be made with something else. If that were raised, joblib would drop
        what other processes have finished but not yet handed over.
    """
    try:
        with ONE_AT_A_TIME:
            made = made_with(cell["measure"])  # first: the sources may be edited while it runs
            if different := unlike(made, now):
                raise UserError(
                    f"it would be measured with {different}, since code was edited meanwhile, or a worker is "
                    "not like the others: start workers anew and run the same command again"
                )
            started = time.perf_counter()
            result = measure_of(cell["measure"])(
                copy.deepcopy(cell["settings"]), cell["seed"], tuple(cell["lengths"])
            )
            seconds = time.perf_counter() - started
        return {
            "format": FORMAT,
            "cell": cell,
            "result": _plain(result),
            "seconds": seconds,
            "made_with": made,
        }
    except UserError as error:
        return UserError(f"{cell_label(cell)}: {error}")


def kept(cells: dict[str, dict[str, Any]], folder: Path, now: dict[str, Any]) -> dict[str, Record]:
    """The records in a folder that can be used, by the cells' hashes.

    Files that are there but cannot be used are counted on stderr, one line for each reason.

    Args:
        cells: by hash.
        folder: of `HASH.json`.
        now: what cells would be made with, as from `made_with`.
    """
    records: dict[str, Record] = {}
    reasons: Counter[str] = Counter()
    for key, cell in cells.items():
        path = folder / f"{key}.json"
        if not path.exists():
            continue
        try:
            record = read_json(path)
        except UserError:
            record = {}
        if reason := _unusable(record, cell, now):
            reasons[reason] += 1
        else:
            records[key] = record
    for reason, count in reasons.items():
        print(
            f"{folder.name}: measuring {count} of {len(cells)} cells again: the kept result {reason}",
            file=sys.stderr,
        )
    return records


def unlike(made: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What a cell was made with and is otherwise now, the first such thing in words; None when nothing is."""
    if "code" not in made:
        return "code that was not noted"
    if different := differing(made["code"], now["code"]):
        return f"other code of {named(different)}"
    for name in (*SAME, "python") if TEXTS in now["code"] else SAME:
        if made[name] != now[name]:
            return f"{name} {made[name]} and not {now[name]}"
    return None


def _unusable(record: Record, cell: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Why what a file holds is not this cell's record as it would be made now; None when it is."""
    if record.get("format") != FORMAT or not is_sealed(record):
        return "is damaged"
    if cell_hash(record["cell"]) != cell_hash(cell):
        return "is of another configuration"
    if WAITING in record["result"]:
        return "waits"
    different = unlike(record["made_with"], now)
    return f"was made with {different}" if different else None


def _plain(result: Any) -> Any:
    """A copy in JSON's own types, as reading the file would give."""
    try:
        return as_json(result)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the measure's result is not made of JSON values ({error}); use None for what is not a number"
        ) from error
