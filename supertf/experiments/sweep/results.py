"""Results of an experiment: values by variant and seed, their files, and those the lab has recorded."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supertf.analysis import Interval, mean_interval
from supertf.errors import UserError
from supertf.experiments.sweep.catalogue import experiment
from supertf.experiments.sweep.cells import module_of
from supertf.experiments.sweep.code_identity import code_of, differing
from supertf.experiments.sweep.description import WAITING, Experiment, cell_hash
from supertf.files import atomic_path, is_sealed, read_json, seal
from supertf.superweights import ratio

FORMAT = "supertf experiment results 1"
RECORDED = Path(__file__).parents[1] / "recorded"


@dataclasses.dataclass(frozen=True)
class Results:
    """What an experiment's cells gave.

    Attributes:
        experiment: as it was run, with the seeds, variants, lengths and settings of that run.
        cells: variant, seed, settings, lengths, result and seconds of each, seed by seed.
        meta: versions, device, cores, threads, command, date, code, and seconds over all cells.
    """

    experiment: Experiment
    cells: list[dict[str, Any]]
    meta: dict[str, Any]

    @property
    def variants(self) -> tuple[str, ...]:
        """Labels, in the experiment's order."""
        return tuple(self.experiment.variants)

    def seeds(self, variant: str) -> tuple[int, ...]:
        """Seeds of a variant's cells, in the order of `values`."""
        return tuple(cell["seed"] for cell in self._cells_of(variant))

    def values(self, variant: str, *path: str | int) -> list[Any]:
        """One entry of the variant's results on each seed, in the order of `seeds`.

        Args:
            variant: its label.
            path: where the entry is: through objects by name (a number stands for its text) and through lists
                by index, as in `values("ssmax none", "accuracy", 2048)`.

        Raises:
            UserError: an unknown variant, or a path that leads nowhere.
        """
        return [_entry(cell["result"], path, cell) for cell in self._cells_of(variant)]

    def contrast(self, factors: Mapping[str, float], *path: str | int) -> dict[str, list[float]]:
        """A sum of variants' values, taken on the same texts, or on the same seeds.

        Args:
            factors: by variant, {"a": 1, "b": -1} for a difference.
            path: where the values are, see `values`: lists by domain, as the `losses` of `domains.scored`
                are, or a number on each seed.

        Returns:
            Values by domain, and under "all" over all of them, or over the seeds.

        Raises:
            UserError: as `values` does.
        """
        sums: dict[str, list[float]] = {}
        for variant, factor in factors.items():
            values = self.values(variant, *path)
            if all(isinstance(one, dict) for one in values):
                by_domain = {name: [x for one in values for x in one[name]] for name in values[0]}
                by_domain["all"] = list(itertools.chain.from_iterable(by_domain.values()))
            else:
                by_domain = {"all": values}
            for name, ones in by_domain.items():
                before = sums.get(name, [0.0] * len(ones))
                sums[name] = [old + factor * new for old, new in zip(before, ones, strict=True)]
        return sums

    def times_by_text(self, variant: str, base: str = "nothing") -> dict[str, list[float]]:
        """How many times the perplexity of another variant, text by text, by domain."""
        sums = self.contrast({variant: 1, base: -1}, "losses")
        return {name: [ratio(one, 0.0) for one in ones] for name, ones in sums.items() if name != "all"}

    def times(self, variant: str, base: str = "nothing") -> dict[str, Interval]:
        """How many times the perplexity of another variant, by domain and over "all" texts: the geometric
        mean with its 95 % interval, a t-interval of logarithms."""
        sums = self.contrast({variant: 1, base: -1}, "losses")
        found = {}
        for name, ones in sums.items():
            logs = mean_interval(ones)
            mean, low, high = (ratio(one, 0.0) for one in (logs.mean, logs.low, logs.high))
            found[name] = Interval(mean, low, high, logs.n)
        return found

    def changed_code(self) -> list[str] | None:
        """The modules whose code is not what the results were made by; None where that was not noted."""
        if "code" not in self.meta:
            return None
        return differing(self.meta["code"], code_of(module_of(self.experiment.measure)))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values, floats to six significant digits."""
        return {
            "format": FORMAT,
            "experiment": self.experiment.to_dict(),
            "meta": _rounded(self.meta),
            "cells": _rounded(self.cells),
        }

    def save(self, path: str | Path) -> None:
        """Write `to_dict` with a checksum as JSON, a line per cell; the file is whole or absent."""
        sealed = seal(self.to_dict())
        cells = ",\n".join(json.dumps(cell, ensure_ascii=False) for cell in sealed.pop("cells"))
        head = json.dumps(sealed, ensure_ascii=False)[:-1]
        with atomic_path(path) as temporary:
            temporary.write_text(f'{head}, "cells": [\n{cells}\n]}}\n', encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Results":
        """Read what `save` wrote; `UserError` when it is missing, damaged or something else."""
        content = read_json(path)
        if content.get("format") != FORMAT or not is_sealed(content):
            raise UserError(
                f"{path} does not hold results of supertf, or was changed since they were written"
            )
        return cls(Experiment.from_dict(content["experiment"]), content["cells"], content["meta"])

    def with_waiting_from(self, others: "Results") -> "Results":
        """These results, in which a cell that waits is taken from `others` if it is the same cell there."""
        known = {cell_hash({**cell, "measure": others.experiment.measure}): cell for cell in others.cells}
        cells = [
            known.get(cell_hash({**cell, "measure": self.experiment.measure}), cell)
            if WAITING in cell["result"]
            else cell
            for cell in self.cells
        ]
        return dataclasses.replace(self, cells=cells)

    def _cells_of(self, variant: str) -> list[dict[str, Any]]:
        self.experiment.settings_of(variant)  # knows the variant, or says which there are
        return [cell for cell in self.cells if cell["variant"] == variant]


def recorded_path(name: str) -> Path:
    """Where the recorded results of an experiment belong."""
    return RECORDED / f"{name}.json"


def recorded(name: str) -> Results:
    """The results of the full run of a registered experiment, as committed with the code.

    Raises:
        UserError: there are none, or they were made with other settings than the experiment has now.
    """
    described = experiment(name)
    again = f"supertf experiment run {name} --record"
    if not recorded_path(name).exists():
        raise UserError(f"there are no recorded results of {name}: make them with {again}")
    results = Results.load(recorded_path(name))
    if different := results.experiment.differences(described):
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"recorded results of {name} were made with other settings ({'; '.join(different[:3])}{more}): "
            f"rebuild them with {again}"
        )
    return results


def _entry(result: Any, path: tuple[str | int, ...], cell: dict[str, Any]) -> Any:
    for step in path:
        if isinstance(result, list) and isinstance(step, int) and -len(result) <= step < len(result):
            result = result[step]
        elif isinstance(result, dict) and str(step) in result:
            result = result[str(step)]
        else:
            there = ", ".join(result) if isinstance(result, dict) else type(result).__name__
            raise UserError(
                f"no {' / '.join(map(str, path))} in the results of {cell['variant']!r} on seed "
                f"{cell['seed']}: at {step!r} there is {there}"
            )
    return result


def _rounded(value: Any) -> Any:
    """A copy with floats to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value
