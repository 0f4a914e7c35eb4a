"""The removals experiment: single weights of the real model beside controls, on thirty texts."""

import functools
from typing import Any

from supertf.errors import UserError
from supertf.experiments.proofs import ROW_507
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.domains import SCORED, scored, scored_texts
from supertf.model import Coordinate, LanguageModel, Tokenizer, load, parse, show
from supertf.superweights import largest_elsewhere, random_weights, scaled_weights, whole_row

WEIGHT = "11[507, 1229]"
EXPERIMENT = Experiment(
    name="removals",
    question="What does SmolLM2-135M lose without single weights, on thirty texts of three domains?",
    measure="removals:changed",
    settings={"model": "smollm2-135m", **SCORED, "weights": [], "control": None, "count": 20, "factor": 0.0},
    variants={
        "nothing": {},
        **{weight: {"weights": [weight]} for weight in ROW_507},
        **{
            f"20 random of layer 11, draw {draw}": {"weights": [WEIGHT], "control": f"random {draw}"}
            for draw in range(3)
        },
        "20 largest outside row 507": {"weights": [WEIGHT], "control": "largest"},
        "row 11[507, :]": {"weights": [WEIGHT], "control": "row"},
        **{
            f"{WEIGHT} and {other}": {"weights": [WEIGHT, other]}
            for other in ("2[507, 430]", "11[507, 1487]", "28[507, 678]")
        },
        **{f"{WEIGHT} times {factor}": {"weights": [WEIGHT], "factor": factor} for factor in (0.5, 2.0)},
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 16},
)


def changed(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Losses with weights removed, or scaled. No `lengths`; the same on every `seed`.

    settings: `model`, a name that `load` takes; `texts`, `windows` and `length`, see `scored_texts`;
    `weights`, such as "11[507, 1229]"; `control`, None or what is removed in place of the one weight: "random
    N", `count` weights of its matrix of draw N, "largest", `count` of other rows, or its whole "row";
    `factor`, by which they are scaled.

    Result: see `scored`, and `weights`, those that were changed, or how many where it is a row.
    """
    model, tokenizer = loaded(settings["model"])
    weights = chosen(
        model, [parse(one) for one in settings["weights"]], settings["control"], settings["count"]
    )
    with scaled_weights(model, weights, settings["factor"]):
        found = scored(model, scored_texts(tokenizer, settings))
    return {**found, "weights": len(weights) if settings["control"] == "row" else list(map(show, weights))}


def chosen(
    model: LanguageModel, weights: list[Coordinate], control: str | None, count: int
) -> list[Coordinate]:
    """What is changed: the weights, or a control of the one weight."""
    if control is None:
        return weights
    [weight] = weights
    kind, _, draw = control.partition(" ")
    if kind == "random" and draw.isdecimal():
        return random_weights(model, weight, count, int(draw))
    if kind == "largest":
        return largest_elsewhere(model, weight[1], count)
    if kind == "row":
        return whole_row(model, weight)
    raise UserError(f"control is {control!r}; expected random N, largest or row")


@functools.lru_cache(maxsize=1)  # removals change the model for a while and leave it as it was
def loaded(name: str) -> tuple[LanguageModel, Tokenizer]:
    """The model and its tokenizer, read once for all cells of a process."""
    return load(name)
