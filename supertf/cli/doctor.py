"""`supertf doctor`: what this machine has, what is missing, and the command that mends each missing thing."""

import importlib.metadata
import os
import platform
from typing import Annotated, Any

from typer import Option, Typer

from supertf import __version__
from supertf.cli.options import Json
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result
from supertf.data import WHEELS, hub_trouble, is_present, places
from supertf.device import pick_device_dtype
from supertf.errors import UserError

SHOWN = ("torch", "numpy", "accelerate", "datasets", "tiktoken", "transformers", "ipywidgets", "matplotlib")

app = Typer()


@app.command(cls=Command)
def doctor(
    timeout: Annotated[float, Option(help="seconds to wait for the hub")] = 3.0, json: Json = False
) -> int:
    """Say what this machine has, what it lacks and how to mend it."""
    result = report(timeout)
    code = 0 if result["ok"] else 1  # 1: the offline lab lacks something
    if json:
        print_result(result, as_json=True)
        return code
    missing, ok, versions = (result.pop(name) for name in ("missing", "ok", "versions"))
    first = {name: result.pop(name) for name in ("supertf", "python")}
    print_result(first | versions | result, as_json=False)
    for name, command in missing.items():
        print(f"missing: {name}; mend it with: {command}")
    print("everything the offline lab needs is here" if ok else "see the lines above")
    return code


def report(hub_timeout: float = 3.0) -> dict[str, Any]:
    """Examine this machine; JSON-ready.

    `versions` (installed, or None), `device`, `dtype`, `reason`, `cores`, `memory_gb` and
    `memory_free_gb` (GB of 10^9 bytes), one entry per thing to fetch and `hub` describe it; `missing`
    maps what the offline lab lacks to the command that mends it, and `ok` says that nothing is.
    """
    missing = _missing_packages()
    result: dict[str, Any] = {"supertf": __version__, "python": platform.python_version()}
    result["versions"] = {name: _version(name) for name in SHOWN}
    if "torch" not in missing:
        try:
            device, dtype, result["reason"] = pick_device_dtype()
            result |= {"device": str(device), "dtype": str(dtype).removeprefix("torch.")}
        except UserError as error:
            missing["device"] = f"unset SUPERTF_DEVICE SUPERTF_DTYPE  # {error}"
    result |= _machine()
    for name in WHEELS:
        result[name] = str(places(name)[0]) if is_present(name) else None
        if result[name] is None:
            missing[name] = f"supertf fetch {name}"
    result |= {"hub": _hub(hub_timeout), "missing": missing, "ok": not missing}
    return result


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _missing_packages() -> dict[str, str]:
    """Packages the lab needs that are absent or older than its floor, each with its pip command."""
    from packaging.requirements import Requirement

    try:
        requirements = importlib.metadata.requires("supertf") or []
    except importlib.metadata.PackageNotFoundError:
        return {
            "supertf": "python -m pip install --no-deps -e .  # in its folder: it is imported, not installed"
        }
    missing = {}
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue  # the development tools
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            missing[requirement.name] = f"python -m pip install '{requirement.name}{requirement.specifier}'"
    return missing


def _machine() -> dict[str, Any]:
    """Cores this process may use, and memory."""
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count(),
        "memory_gb": round(memory.total / 1e9, 1),
        "memory_free_gb": round(memory.available / 1e9, 1),
    }


def _hub(timeout: float) -> str:
    """Whether the Hugging Face hub answers; optional, for other models and data sets."""
    trouble = hub_trouble(timeout)
    if trouble is None:
        return "reachable"
    mend = "unset HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in trouble else "connect to a network"
    return f"not reachable ({trouble}); for other models and data {mend}, and set HF_TOKEN for gated ones"
