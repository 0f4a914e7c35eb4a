"""Experiments as data: which variants are compared, on which seeds and lengths, by which measure.

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
            when a cell is run. A module without a dot is one of supertf's.
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


def experiment(name: str) -> Experiment:
    """The registered experiment of that name; `UserError` listing the known names otherwise."""
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}; choose from {', '.join(EXPERIMENTS) or 'none yet'}")
    return EXPERIMENTS[name]


POSITIONS_TRIED = {
    "none": {"position": "none"},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "p-rope": {"position": "rope", "rope_fraction": 0.5},
    "alibi": {"position": "alibi"},
}
TRAINED_SCALES = ("softmax", "ssmax", "ssmax_fixed", "ssmax_bias")
SIZED_FOR_2048 = 1.78  # log 2056 / log 72: what log n comes to at 2048 items and 8 queries


def constants(*values: float) -> dict[str, dict[str, Any]]:
    """Swaps to log n and to constant factors."""
    swaps = {f"constant {c}": {"attention": "constant", "attention_constant": c} for c in values}
    return {"logn": {"attention": "logn"}, **swaps}


RECALL = Experiment(
    name="recall",
    question="Trained on 64 items, at which lengths does a two-layer decoder still find the one it needs?",
    measure="measure_tasks:answers",
    settings={
        "family": "recall",
        "queries": 8,
        "length": 64,
        "steps": 400,
        "questions": 256,
        "model": {},
        "swaps": {},
    },
    variants={
        f"{attention} {label}": {
            "model": {"attention": attention, **position},
            "swaps": constants(SIZED_FOR_2048) if attention == "softmax" else {},
        }
        for label, position in POSITIONS_TRIED.items()
        for attention in TRAINED_SCALES
    },
    lengths=(64, 128, 256, 512, 1024, 2048),
    quick={"steps": 20, "questions": 16},
)

ONE_LAYER = {"n_layer": 1, "n_head": 1}
EXTREME = Experiment(
    name="extreme",
    question="One layer, trained on 64 items, asked about 2^18: can a constant replace log n?",
    measure="measure_tasks:answers",
    settings={**RECALL.settings, "questions": 64},
    variants={
        f"{family} {attention}": {
            "family": family,
            "queries": queries,
            "steps": steps,
            "model": {"attention": attention, **ONE_LAYER},
            "swaps": constants(SIZED_FOR_2048, 2.5, 4.0, 8.0) if attention == "softmax" else {},
        }
        for family, queries, steps in (("recall", 8, 400), ("majority", 4, 1000))
        for attention in ("softmax", "ssmax")
    },
    lengths=tuple(2**power for power in (6, 9, 12, 15, 18)),
    quick={"steps": 20, "questions": 16},
)

SWAP = Experiment(
    name="swap",
    question="Is a trained softmax model rescued by a swap, by a swap and a little training, or by neither?",
    measure="measure_tasks:swaps",
    settings={
        **RECALL.settings,
        "tuning": {"steps": 50, "lr": 5e-4, "warmup": 5},
        "swaps": {**constants(SIZED_FOR_2048), "ssmax": {"attention": "ssmax"}},
    },
    variants={
        f"softmax {label}": {"model": {"attention": "softmax", **POSITIONS_TRIED[label]}}
        for label in ("none", "rope", "p-rope")
    },
    lengths=RECALL.lengths,
    quick=RECALL.quick,
)

LANGUAGE = Experiment(
    name="language",
    question="What do positions and log n cost or gain a language model, inside its context and beyond?",
    measure="measure_language:language",
    settings={"vocab_size": 257, "context": 64, "steps": 1000, "batch_size": 32, "lr": 5e-3, "model": {}},
    variants={
        **{
            f"{attention} {label}": {"model": {"attention": attention, **POSITIONS_TRIED[label]}}
            for attention, labels in (
                ("softmax", ("none", "learned", "sinusoidal", "rope", "alibi")),
                ("ssmax", ("none", "sinusoidal", "rope")),
            )
            for label in labels
        },
        **{
            f"zero key {label}": {"model": {"zero_key": True, **POSITIONS_TRIED[label]}}
            for label in ("none", "rope")
        },
    },
    lengths=(64, 128, 256, 512, 1024),
    quick={"steps": 20},
)

FREE_SCALE = Experiment(
    name="free_scale",
    question="Free to learn one factor per number of visible keys: does a model ask for log n?",
    measure="measure_free_scale:scale",
    settings={"family": "majority", "queries": 4, "steps": 1000, "model": ONE_LAYER},
    variants={
        "majority": {},
        "majority two heads": {"model": {"n_layer": 1, "n_head": 2}},
        "recall": {"family": "recall"},
    },
    lengths=(16, 20, 25, 32, 40, 51, 64, 81, 102, 128, 161, 203, 256, 323, 406, 512, 645, 813, 1024),
    quick={"steps": 20},
)

SMOLLM2_LONGER = Experiment(
    name="smollm2_longer",
    question="Does anything without training let SmolLM2-135M read twice the 8,192 tokens it was trained on?",
    measure="measure_smollm2:longer",
    settings={"changes": {}},
    variants={
        "as trained": {},
        "logn": {"changes": {"attention": "logn"}},
        "constant 1.08": {"changes": {"attention": "constant", "attention_constant": 1.08}},
        "rope base x 4": {"changes": {"rope_base": 400_000.0}},
        "rope base x 4, logn": {"changes": {"rope_base": 400_000.0, "attention": "logn"}},
    },
    lengths=(16384,),
    seeds=(0, 1, 2),
)

FOUR_LAYERS = {"n_layer": 4, "init_std": 0.02}
GROWTH = Experiment(
    name="growth",
    question="Does a small decoder grow a super weight while it learns to write Python's documentation?",
    measure="measure_growth:growth",
    settings={
        "vocab_size": 512,
        "context": 128,
        "bos": True,
        "steps": 2000,
        "batch_size": 4,
        "lr": 1e-2,
        "weight_decay": 0.3,
        "moments": 12,
        "windows": 16,
        "model": {},
    },
    variants={
        **{
            f"{mlp} {start} {attention}": {
                "bos": start == "bos",
                "model": {"mlp": mlp, "n_inner": inner, "attention": attention, **FOUR_LAYERS},
            }
            for mlp, inner in (("gelu", 256), ("swiglu", 176))  # a third matrix, about as many weights
            for start in ("bos", "no bos")
            for attention in ("softmax", "ssmax")
        },
        "swiglu bos softmax, deeper and longer": {
            "steps": 5000,
            "model": {"mlp": "swiglu", "n_inner": 176, "attention": "softmax", **FOUR_LAYERS, "n_layer": 6},
        },
    },
    seeds=(0, 1, 2),
    quick={"steps": 8, "moments": 4, "windows": 4},
)

PROOFS = Experiment(
    name="proofs",
    question="Which of eight large or spiking weights does SmolLM2-135M need more than their controls?",
    measure="measure_proofs:proof",
    settings={
        "model": "smollm2-135m",
        "windows": 4,
        "length": 256,
        "controls": 20,
        "each": False,
        "factors": [],
    },
    variants={
        "11[507, 1229]": {
            "coordinate": "11[507, 1229]",
            "each": True,
            "factors": [0, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3],
        },
        **{
            weight: {"coordinate": weight}
            for weight in (
                "28[507, 678]",
                "11[507, 1487]",
                "2[507, 430]",
                "2[507, 90]",
                "1[507, 49]",
                "9[507, 200]",
                "10[507, 198]",
            )
        },
    },
    quick={"windows": 1, "length": 16, "controls": 2},
)

# Every experiment of the lab. To add one: a description here and a `measure_*.py` with its measure.
EXPERIMENTS: dict[str, Experiment] = {
    described.name: described
    for described in (RECALL, EXTREME, SWAP, FREE_SCALE, LANGUAGE, SMOLLM2_LONGER, GROWTH, PROOFS)
}
