"""The repairing experiment: parts of the real model are left out, and what is left makes up for it.

Projections are fitted anew in closed form, or the model is trained a little; on the same text, which shares
no passage with what is scored, and beside a dense model that is given the same.
"""

import contextlib
from typing import Any

from torch import Tensor

from supertf.compression import (
    DynamicPruning,
    Pruning,
    in_smaller,
    plan_pruning,
    pruned,
    recover,
    refit,
    smaller,
)
from supertf.data import TEXTS
from supertf.errors import UserError
from supertf.experiments.removals import WEIGHT, loaded
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.domains import SCORED, of_role, scored
from supertf.model import Coordinate, LanguageModel, output_projections, parse, show
from supertf.superweights import scaled_weights

CHANNELS: dict[str, Any] = {"method": "channels", "sparsity": 0.2}
INPUTS: dict[str, Any] = {"method": "inputs", "sparsity": 0.5, "matrices": ["mlp.c_proj"]}
OTHER = ["library-docs"]  # a single domain, to see what is worth elsewhere
BATCH, WINDOW = 4, 128  # of the training

EXPERIMENT = Experiment(
    name="repairing",
    question="How much of what was left out can the rest make up for, fitted or trained on as much text?",
    measure="repairing:repaired",
    settings={
        "model": "smollm2-135m",
        **SCORED,
        "calibrated_on": list(TEXTS),
        "calibration": 4096,
        "method": None,
        "sparsity": None,
        "matrices": None,
        "way": None,
        "fitted_on": list(TEXTS),
        "tokens": 5440,
        "times": 1,
        "weight": WEIGHT,
        "removed": False,
    },
    variants={
        "nothing": {},
        "nothing, trained": {"way": "trained"},
        "nothing, trained on library-docs": {"way": "trained", "fitted_on": OTHER, "times": 3},
        "channels": CHANNELS,
        "channels, trained": {**CHANNELS, "way": "trained"},
        "channels, trained on library-docs": {
            **CHANNELS,
            "way": "trained",
            "fitted_on": OTHER,
            "times": 3,
        },
        "channels, taught": {**CHANNELS, "way": "taught"},
        "channels, refitted": {**CHANNELS, "way": "refitted"},
        "channels, refitted on library-docs": {
            **CHANNELS,
            "way": "refitted",
            "fitted_on": OTHER,
            "times": 3,
        },
        "channels, refitted on a third": {**CHANNELS, "way": "refitted", "times": 1 / 3},
        "channels, refitted on six times": {**CHANNELS, "way": "refitted", "times": 6},
        "inputs": INPUTS,
        "inputs, refitted": {**INPUTS, "way": "refitted"},
        "inputs, refitted on six times": {**INPUTS, "way": "refitted", "times": 6},
        "nothing, without the weight": {"removed": True},
        "nothing, trained, without the weight": {"way": "trained", "removed": True},
        "channels, without the weight": {**CHANNELS, "removed": True},
        "channels, trained, without the weight": {**CHANNELS, "way": "trained", "removed": True},
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 128, "calibration": 128, "tokens": 512},
)


def repaired(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Losses of a pruned model, as it is or repaired; `seed` is that of the training's batches. No `lengths`.

    settings: `model`, a name that `load` takes; `texts`, `windows`, `length` and `passages`, see `SCORED`;
    `method`, "inputs", "channels" or None, `sparsity` and `matrices`, see `plan_pruning`; `calibration`,
    tokens of each of the domains `calibrated_on` that the plan is made from; `way`, None, "refitted" (see
    `refit`), "trained" or "taught" by the dense model (see `recover`), on so many `times` `tokens` of each of
    the domains `fitted_on`, every one read once; `removed`, whether the `weight` goes after that.

    Result: see `scored`; `value`, the weight's after the repair.
    """
    model, tokenizer = loaded(settings["model"])
    plan = planned(settings)
    dropping = plan if isinstance(plan, DynamicPruning) else None
    cut = smaller(model, plan) if isinstance(plan, Pruning) else model
    weight = place(plan, parse(settings["weight"]))
    tokens = round(settings["tokens"] * settings["times"])
    ids = of_role("fit", settings["fitted_on"], tokenizer, tokens, settings["length"]).ids
    new = repair(settings["way"], cut, model, dropping, ids, settings["length"], seed)
    with contextlib.ExitStack() as stack:
        if dropping is not None:
            stack.enter_context(pruned(new, dropping))
        if settings["removed"]:
            stack.enter_context(scaled_weights(new, [weight]))
        found = scored(new, tokenizer, settings)
    layer, out, into = weight
    return {**found, "value": output_projections(new)[layer].weight[out, into].item()}


def place(plan: Pruning | DynamicPruning | None, weight: Coordinate) -> Coordinate:
    """Where the weight is in the model that is cut."""
    if not isinstance(plan, Pruning):
        return weight
    found = in_smaller(plan, weight)
    if found is None:
        raise UserError(f"{show(weight)} goes with its channel: watch another weight, or leave out fewer")
    return found


def planned(settings: dict[str, Any]) -> Pruning | DynamicPruning | None:
    """What is left out, if anything is."""
    if settings["method"] is None:
        return None
    model, tokenizer = loaded(settings["model"])
    domains, tokens = settings["calibrated_on"], settings["calibration"]
    return plan_pruning(
        model,
        settings["method"],
        sparsity=settings["sparsity"],
        matrices=settings["matrices"],
        calibration=of_role("calibrate", domains, tokenizer, tokens, settings["length"]),
        progress=False,
    )


def repair(
    way: str | None,
    cut: LanguageModel,
    model: LanguageModel,
    dropping: DynamicPruning | None,
    ids: Tensor,
    length: int,
    seed: int,
) -> LanguageModel:
    """What a model becomes, `cut` already, or while inputs are dropped; `model` is the one it was."""
    if way is None:
        return cut
    if way == "refitted":
        return refit(cut, ids, dropping, teacher=model, length=length, progress=False)
    if way in ("trained", "taught") and dropping is None:
        steps = (len(ids) - 1) // WINDOW // BATCH  # every token once
        teacher = model if way == "taught" else None
        return recover(
            cut, ids, steps, teacher=teacher, length=WINDOW, batch_size=BATCH, seed=seed, progress=False
        ).model
    raise UserError(f"way is {way!r}; expected refitted, or, where no inputs are dropped, trained or taught")
