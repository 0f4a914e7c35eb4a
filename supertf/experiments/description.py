"""An experiment as data: which variants are compared, on which seeds and lengths, by which measure.

A description holds everything that determines the results, as JSON values, so that it can be stored beside
them and compared with what is asked for. `experiment_runner.run` turns one into numbers.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from supertf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One comparison: every variant on every seed.

    Args:
        name: lower-case letters, digits and underscores; also the name of its files.
        question: what it answers, one sentence.
        measure: "module:function" of `measure(settings, seed, lengths) -> dict of JSON values`, imported
            when a cell is run. A module without a dot is one of this room.
        settings: JSON values that all variants share.
        variants: label to what differs from `settings`.
        lengths: sequence lengths to evaluate, where there are any.
        seeds: the same for every variant, so that differences are paired.
        quick: changes to shared settings for a run that only shows that it works.

    Raises:
        UserError: a part that is malformed, or two variants with the same settings.
    """

    name: str
    question: str
    measure: str
    settings: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    lengths: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    quick: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise UserError(f"experiment name {self.name!r}: expected lower-case letters, digits and _")
        if not re.fullmatch(r"[\w.]+:\w+", self.measure):
            raise UserError(f"{self.name}: measure {self.measure!r}; expected module:function")
        for part in ("settings", "variants", "quick"):
            object.__setattr__(self, part, _plain(getattr(self, part), f"{self.name}: {part}"))
        for part, least in (("lengths", 1), ("seeds", 0)):
            object.__setattr__(self, part, _whole_numbers(getattr(self, part), least, f"{self.name}: {part}"))
        if not self.seeds or not self.variants:
            raise UserError(f"{self.name}: expected at least one seed and one variant")
        for label, changes in self.variants.items():
            if not isinstance(changes, dict):
                raise UserError(
                    f"{self.name}: variant {label!r} is {changes!r}; expected an object of settings"
                )
        if unknown := sorted(set(self.quick) - set(self.settings)):
            raise UserError(f"{self.name}: quick changes {', '.join(unknown)}; expected shared settings")
        seen: dict[str, str] = {}
        for label in self.variants:
            same = seen.setdefault(_canonical(self.settings_of(label)), label)
            if same != label:
                raise UserError(f"{self.name}: the variants {same!r} and {label!r} have the same settings")

    def settings_of(self, variant: str) -> dict[str, Any]:
        """The shared settings with the variant's own; `UserError` for an unknown variant."""
        self._check_variant(variant)
        return {**self.settings, **self.variants[variant]}

    def cells(self) -> list[dict[str, Any]]:
        """All cells, as `cell` describes them: every variant of the first seed, then of the next."""
        return [cell(self, variant, seed) for seed in self.seeds for variant in self.variants]

    def narrowed(
        self,
        seeds: Iterable[int] | None = None,
        variants: Iterable[str] | None = None,
        lengths: Iterable[int] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> "Experiment":
        """A copy with other seeds or lengths, some of the variants, or changed settings; None keeps a part.

        `changes` hold for all variants, also for those that set the same thing themselves.

        Raises:
            UserError: an unknown variant or setting, a value of another type than before, lengths for an
                experiment that has none, or variants that the changes make equal.
        """
        if isinstance(variants, str):
            raise UserError(f"{self.name}: variants {variants!r}; expected a list of labels")
        chosen = list(self.variants) if variants is None else list(variants)
        for variant in chosen:
            self._check_variant(variant)
        if lengths is not None and not self.lengths:
            raise UserError(f"{self.name} has no lengths to choose from")
        changes = {} if changes is None else dict(changes)
        for name, value in changes.items():
            self._check_change(name, value)
        return dataclasses.replace(
            self,
            settings={**self.settings, **changes},
            variants={
                label: {name: value for name, value in self.variants[label].items() if name not in changes}
                for label in chosen
            },
            lengths=self.lengths if lengths is None else lengths,
            seeds=self.seeds if seeds is None else seeds,
        )

    def differences(self, other: "Experiment") -> list[str]:
        """What determines results here and is otherwise in `other`, each as "steps 400, now 500"."""
        parts = []
        for one in (self, other):
            shared = {"measure": one.measure, "lengths": one.lengths, "seeds": one.seeds, **one.settings}
            own = {f"variant {label}": changes for label, changes in one.variants.items()}
            parts.append(shared | own)
        before, now = parts
        return [
            f"{name} {_shown(before, name)}, now {_shown(now, name)}"
            for name in [*before, *(name for name in now if name not in before)]
            if name not in before or name not in now or before[name] != now[name]
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return _plain(dataclasses.asdict(self), self.name)

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "Experiment":
        """The inverse of `to_dict`; `UserError` for missing or unknown parts."""
        fields = dataclasses.fields(cls)
        unknown = sorted(set(description) - {field.name for field in fields})
        required = {field.name for field in fields[:5]}
        missing = sorted(required - set(description))
        if unknown or missing:
            raise UserError(
                f"an experiment's description with unknown parts {unknown} and without {missing}: "
                f"expected {', '.join(field.name for field in fields)}"
            )
        return cls(**description)

    def _check_variant(self, variant: str) -> None:
        if variant not in self.variants:
            raise UserError(
                f"{self.name} has no variant {variant!r}; choose from {', '.join(map(repr, self.variants))}"
            )

    def _check_change(self, name: str, value: Any) -> None:
        everywhere = [self.settings, *self.variants.values()]
        before = [settings[name] for settings in everywhere if name in settings]
        if not before:
            known = sorted({name for settings in everywhere for name in settings})
            raise UserError(f"{self.name} has no setting {name!r}; choose from {', '.join(known)}")
        kinds = {_kind(value) for value in before}
        if not {_kind(value), "null"} & kinds and value is not None:
            raise UserError(f"{self.name}: {name} is {before[0]!r}, got {value!r}; expected a {kinds.pop()}")


def cell(experiment: Experiment, variant: str, seed: int) -> dict[str, Any]:
    """One variant on one seed: experiment, variant, measure, settings (merged), seed, lengths."""
    return {
        "experiment": experiment.name,
        "variant": variant,
        "measure": experiment.measure,
        "settings": experiment.settings_of(variant),
        "seed": seed,
        "lengths": list(experiment.lengths),
    }


def cell_hash(description: Mapping[str, Any]) -> str:
    """Hex SHA-256 over what determines a cell's result: measure, settings, seed and lengths, not the labels.

    The same in every process, and whatever the order of the settings.
    """
    determining = {name: description[name] for name in ("measure", "settings", "seed", "lengths")}
    return hashlib.sha256(_canonical(determining).encode()).hexdigest()


def cell_label(description: Mapping[str, Any]) -> str:
    """How messages and the progress bar call a cell."""
    return f"{description['experiment']}, {description['variant']}, seed {description['seed']}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(value: Any, what: str) -> dict[str, Any]:
    """A copy of a JSON object in JSON's own types; `UserError` where it is something else."""
    try:
        copy = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: expected JSON values, got {value!r} ({error})") from error
    if not isinstance(copy, dict):
        raise UserError(f"{what}: expected an object, got {value!r}")
    return copy


def _whole_numbers(values: Iterable[int], least: int, what: str) -> tuple[int, ...]:
    try:
        values = tuple(values)
    except TypeError:
        raise UserError(f"{what} {values!r}: expected a list of whole numbers") from None
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value >= least for value in values)
    if not whole or len(set(values)) < len(values):
        raise UserError(f"{what} {values}: expected different whole numbers of at least {least}")
    return values


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    names = {
        bool: "boolean",
        int: "number",
        float: "number",
        str: "string",
        dict: "object",
        type(None): "null",
    }
    return names.get(type(value), "list")


def _shown(parts: Mapping[str, Any], name: str) -> str:
    return str(parts[name]) if name in parts else "absent"
