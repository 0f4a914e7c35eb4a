"""One cell of an experiment: measured, written at once, and read back only if it is what was asked for."""

import ast
import copy
import datetime
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
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
from supertf.bench import processor
from supertf.device import pick_device_dtype
from supertf.errors import UserError
from supertf.experiment_description import cell_hash, cell_label
from supertf.files import is_sealed, read_json, seal, write_json

FORMAT = "supertf experiment cell 1"
SAME = ("supertf", "torch", "device", "measure_code")  # what a kept cell must have been made with


def measure_of(reference: str) -> Callable[..., dict[str, Any]]:
    """The function that "module:function" names; `UserError` when there is none."""
    module_name, _, name = reference.partition(":")
    full_name = module_name if "." in module_name else f"supertf.{module_name}"
    try:
        module = importlib.import_module(full_name)
    except ModuleNotFoundError as error:
        raise UserError(f"no measure {reference}: {error}") from error
    if not hasattr(module, name):
        raise UserError(f"no measure {reference}: {full_name} has no {name}")
    return getattr(module, name)


def made_with(measure: str) -> dict[str, Any]:
    """What a cell measured now, in this process, is made with: versions, machine, and the measure's code."""
    device, _, _ = pick_device_dtype()
    return {
        "supertf": __version__,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "device": device.type,
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "measure_code": _code_hash(measure_of(measure)),
    }


def compute(cell: dict[str, Any], path: Path) -> dict[str, Any]:
    """Measure a cell and write its record to `path`.

    Raises:
        UserError: raised by the measure, or its result is not an object of JSON values; with the cell's name.
    """
    try:
        measure = measure_of(cell["measure"])
        started = time.perf_counter()
        result = measure(copy.deepcopy(cell["settings"]), cell["seed"], tuple(cell["lengths"]))
        seconds = time.perf_counter() - started
        record = {
            "format": FORMAT,
            "cell": cell,
            "result": _plain(result),
            "seconds": seconds,
            "made_with": made_with(cell["measure"]),
        }
        write_json(path, seal(record))
    except UserError as error:
        raise UserError(f"{cell_label(cell)}: {error}") from error
    return record


def kept(cells: list[dict[str, Any]], paths: list[Path]) -> list[dict[str, Any] | None]:
    """The records in the cache, None where a cell has to be measured.

    Files that are there but cannot be used are told on stderr, one line for each reason.
    """
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
    for name in SAME:
        before = record["made_with"][name]
        if before != now[name]:
            return None, (
                "was made before the measure's code changed"
                if name == "measure_code"
                else f"was made with {name} {before}, now {now[name]}"
            )
    return record, ""


@functools.cache  # the code that was imported, even if its file has been edited since
def _code_hash(measure: Callable[..., Any]) -> str:
    """Hash of the code in the measure's module; comments and layout do not count."""
    try:
        source = inspect.getsource(sys.modules[measure.__module__])
    except (OSError, TypeError):
        raise UserError(f"the measure {measure.__name__} has no source file: put it into a module") from None
    return hashlib.sha256(ast.dump(ast.parse(source)).encode()).hexdigest()


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
