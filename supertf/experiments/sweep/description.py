"""An experiment as data: which variants are compared, on which seeds and lengths, by which measure.

A description holds everything that determines the results, as JSON values, so that it can be stored beside
them and compared with what is asked for. `run` turns one into numbers.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from supertf.errors import UserError

WAITING = "waiting"  # in a result: why there is none on this machine, such as a hub that is not reached
# What measures are called in recorded results and in cells' hashes, where that is not where they are today: a
# file of the package that gets another name leaves results valid.
RECORDED_AS = {
    "free_scale:scale": "measure_free_scale:scale",
    "growth:growth": "measure_growth:growth",
    "language:language": "measure_language:language",
    "recall:answers": "measure_tasks:answers",
    "smollm2_longer:longer": "measure_smollm2:longer",
    "swap:swaps": "measure_tasks:swaps",
}


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One comparison: every variant on every seed.

    Args:
        name: lower-case letters, digits and underscores; also the name of its files.
        question: what it answers, one sentence.
        measure: "module:function" of `measure(settings, seed, lengths) -> dict of JSON values`, imported
            when a cell is run. A module without a dot is one of `supertf.experiments`. Its result may depend
            on its arguments only, since these and its code are what a kept result is found by.
        settings: JSON values that all variants share.
        variants: label to what differs from `settings`.
        lengths: sequence lengths in tokens to evaluate, where there are any.
        seeds: the same for every variant, so that differences are paired.
        quick: changes to shared settings for a run that only shows that it works.

    Raises:
        UserError: no seed or no variant, the same seed or length twice, or two variants with the same
            settings.
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
        for part in ("settings", "variants", "quick"):
            object.__setattr__(self, part, as_json(getattr(self, part)))
        for part in ("lengths", "seeds"):
            numbers = tuple(getattr(self, part))
            if len(set(numbers)) < len(numbers):
                raise UserError(f"{self.name}: {part} {numbers}: expected different numbers")
            object.__setattr__(self, part, numbers)
        if not self.seeds or not self.variants:
            raise UserError(f"{self.name}: expected at least one seed and one variant")
        seen: dict[str, str] = {}
        for label in self.variants:
            same = seen.setdefault(_canonical(self.settings_of(label)), label)
            if same != label:
                raise UserError(f"{self.name}: the variants {same!r} and {label!r} have the same settings")

    def settings_of(self, variant: str) -> dict[str, Any]:
        """The shared settings with the variant's own; `UserError` for an unknown variant."""
        if variant not in self.variants:
            raise UserError(
                f"{self.name} has no variant {variant!r}; choose from {', '.join(map(repr, self.variants))}"
            )
        return {**self.settings, **self.variants[variant]}

    def cells(self) -> list[dict[str, Any]]:
        """Every variant on the first seed, then on the next.

        Returns:
            One description for each: `experiment`, `variant`, `measure`, `settings` (merged), `seed` and
            `lengths`.
        """
        return [
            {
                "experiment": self.name,
                "variant": variant,
                "measure": self.measure,
                "settings": self.settings_of(variant),
                "seed": seed,
                "lengths": list(self.lengths),
            }
            for seed in self.seeds
            for variant in self.variants
        ]

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
        if lengths is not None and not self.lengths:
            raise UserError(f"{self.name} has no lengths to choose from")
        changes = changes or {}
        for name, value in changes.items():
            self._check_change(name, value)
        own = {}
        for label in self.variants if variants is None else variants:
            self.settings_of(label)  # knows the variant, or says which there are
            own[label] = {name: value for name, value in self.variants[label].items() if name not in changes}
        return dataclasses.replace(
            self,
            settings={**self.settings, **changes},
            variants=own,
            lengths=self.lengths if lengths is None else tuple(lengths),
            seeds=self.seeds if seeds is None else tuple(seeds),
        )

    def differences(self, other: "Experiment") -> list[str]:
        """What determines results here and is otherwise in `other`, each as "steps 400, now 500"."""
        before, now = (
            {"measure": one.measure, "lengths": one.lengths, "seeds": one.seeds, **one.settings}
            | {f"variant {label}": changes for label, changes in one.variants.items()}
            for one in (self, other)
        )
        absent = "absent"
        return [
            f"{name} {before.get(name, absent)}, now {now.get(name, absent)}"
            for name in before | now
            if before.get(name, absent) != now.get(name, absent)
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return as_json({**dataclasses.asdict(self), "measure": RECORDED_AS.get(self.measure, self.measure)})

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> "Experiment":
        """The inverse of `to_dict`."""
        today = {recorded: measure for measure, recorded in RECORDED_AS.items()}
        measure = description["measure"]
        return cls(**{**description, "measure": today.get(measure, measure)})

    def _check_change(self, name: str, value: Any) -> None:
        """A misspelt setting would change nothing, and a text for a number end in the middle of a measure."""
        everywhere = [self.settings, *self.variants.values()]
        before = [settings[name] for settings in everywhere if name in settings]
        if not before:
            known = sorted({name for settings in everywhere for name in settings})
            raise UserError(f"{self.name} has no setting {name!r}; choose from {', '.join(known)}")
        kinds = {_kind(one) for one in before}
        if not {_kind(value), "null"} & kinds and value is not None:
            raise UserError(f"{self.name}: {name} is {before[0]!r}, got {value!r}; expected a {kinds.pop()}")


def cell_hash(cell: Mapping[str, Any]) -> str:
    """Hex SHA-256 over what determines a cell's result: measure, settings, seed and lengths, not the labels.

    The same in every process, and whatever the order of the settings.
    """
    determining = {name: cell[name] for name in ("measure", "settings", "seed", "lengths")}
    determining["measure"] = RECORDED_AS.get(cell["measure"], cell["measure"])
    return hashlib.sha256(_canonical(determining).encode()).hexdigest()


def cell_label(cell: Mapping[str, Any]) -> str:
    """How messages call a cell."""
    return f"{cell['experiment']}, {cell['variant']}, seed {cell['seed']}"


def as_json(value: Any) -> Any:
    """A copy in JSON's own types, as reading it from a file would give.

    Raises:
        TypeError: there is something in it that JSON has not.
        ValueError: there is a NaN or an infinity in it.
    """
    return json.loads(json.dumps(value, allow_nan=False))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _kind(value: Any) -> str:
    """The JSON type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "number", float: "number", dict: "object"}
    return names.get(type(value), "list")
