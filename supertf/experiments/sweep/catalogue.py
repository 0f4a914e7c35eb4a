"""Every experiment of the lab: each file in `supertf/experiments/` that has an `EXPERIMENT` is one."""

import importlib
import re
from pathlib import Path

from supertf.errors import UserError
from supertf.experiments.sweep.description import Experiment

# In the order of the notebooks; others come after these, by name.
ORDER = (
    *("recall", "extreme", "swap", "free_scale", "language", "longer_training", "smollm2_longer"),
    *("growth", "removals", "models", "pruning", "repairing", "quantizing"),
)


def find(package: str, folder: Path) -> dict[str, Experiment]:
    """The experiments among a package's modules, by name; `UserError` where two have the same."""
    found: dict[str, Experiment] = {}
    for path in folder.glob("*.py"):
        if re.search(r"^EXPERIMENT\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            described = importlib.import_module(f"{package}.{path.stem}").EXPERIMENT
            if described.name in found:
                raise UserError(f"{path.name}: another file describes {described.name} as well; rename one")
            found[described.name] = described
    return {name: found[name] for name in sorted(found, key=lambda name: (_place(name), name))}


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)


EXPERIMENTS = find("supertf.experiments", Path(__file__).parents[1])


def experiment(name: str) -> Experiment:
    """The registered experiment of that name; `UserError` listing the known names otherwise."""
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}; choose from {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
