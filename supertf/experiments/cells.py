"""One cell of an experiment: measured, written at once, and read back only if it is what was asked for."""

import copy
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from supertf import __version__
from supertf.device import pick_device_dtype, processor
from supertf.errors import UserError
from supertf.experiments.code_identity import code_of, differing, named
from supertf.experiments.description import cell_hash, cell_label
from supertf.files import is_sealed, read_json, seal, write_json

FORMAT = "supertf experiment cell 1"
SAME = ("supertf", "torch", "numpy", "device", "dtype")  # what a kept cell must have been made with, and code
TEXTS = "supertf.data.python_docs"  # the built-in text is the documentation of this very Python


def measure_of(reference: str) -> Callable[..., dict[str, Any]]:
    """The function that "module:function" names; `UserError` when there is none."""
    full_name, name = module_of(reference), reference.partition(":")[2]
    try:
        module = importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        raise UserError(f"no measure {reference}: {error}") from error
    if not hasattr(module, name):
        raise UserError(f"no measure {reference}: {full_name} has no {name}")
    return getattr(module, name)


def module_of(reference: str) -> str:
    """The full name of the module that "module:function" names."""
    name = reference.partition(":")[0]
    return name if "." in name else f"supertf.experiments.{name}"


def made_with(measure: str) -> dict[str, Any]:
    """What a cell measured now, in this process, is made with: versions, machine and code."""
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


def compute(cell: dict[str, Any], path: Path) -> dict[str, Any]:
    """Measure a cell and write its record to `path`.

    Raises:
        UserError: raised by the measure, or its result is not an object of JSON values; with the cell's name.
    """
    try:
        measure = measure_of(cell["measure"])
        made = made_with(cell["measure"])  # first: the sources may be edited while it runs
        started = time.perf_counter()
        result = measure(copy.deepcopy(cell["settings"]), cell["seed"], tuple(cell["lengths"]))
        seconds = time.perf_counter() - started
        record = {
            "format": FORMAT,
            "cell": cell,
            "result": _plain(result),
            "seconds": seconds,
            "made_with": made,
        }
        write_json(path, seal(record))
    except UserError as error:
        raise UserError(f"{cell_label(cell)}: {error}") from error
    return record


def kept(cells: list[dict[str, Any]], paths: list[Path]) -> list[dict[str, Any] | None]:
    """The records in the cache, None where a cell has to be measured.

    Files that are there but cannot be used are told on stderr, one line for each reason.
    """
    measure_of(cells[0]["measure"])  # loaded, so that it is this process's code that is looked at
    now = made_with(cells[0]["measure"])
    records: list[dict[str, Any] | None] = []
    reasons: Counter[str] = Counter()
    for cell, path in zip(cells, paths, strict=True):
        record, reason = _read(path, cell, now)
        records.append(record)
        if reason:
            reasons[reason] += 1
    for reason, count in reasons.items():
        name = cells[0]["experiment"]
        print(
            f"{name}: measuring {count} of {len(cells)} cells again: the kept result {reason}",
            file=sys.stderr,
        )
    return records


def _read(path: Path, cell: dict[str, Any], now: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The record at `path`, or None and why it is not used; no reason when there is no file."""
    if not path.exists():
        return None, ""
    try:
        record = read_json(path)
    except UserError:
        return None, "is damaged"
    if record.get("format") != FORMAT or not is_sealed(record):
        return None, "is damaged"
    if cell_hash(record["cell"]) != cell_hash(cell):
        return None, "is of another configuration"
    made = record["made_with"]
    if "code" not in made:
        return None, "was made by code that was not noted"
    if different := differing(made["code"], now["code"]):
        return None, f"was made before the code of {named(different)} changed"
    for name in (*SAME, "python") if TEXTS in now["code"] else SAME:
        if made[name] != now[name]:
            return None, f"was made with {name} {made[name]}, now {now[name]}"
    return record, ""


def _plain(result: Any) -> dict[str, Any]:
    """A copy in JSON's own types, as reading the file would give."""
    try:
        plain = json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the measure's result is not made of JSON values ({error}); use None for what is not a number"
        ) from error
    if not isinstance(plain, dict):
        raise UserError(f"the measure gave a {type(result).__name__}, expected a dict")
    return plain
