"""The pruning experiment: one method on the real model, at many sparsities, with weights protected.

At each sparsity three plans are compared: nothing protected, the weights that the lab found to matter, and as
many random weights of the same matrices, the control. And since most methods keep those weights anyway: what
the plan would cost if they went, too.
"""

from typing import Any

import torch

from supertf.analysis import perplexity
from supertf.compression import (
    UNITS,
    DynamicPruning,
    Pruning,
    Row,
    Variant,
    calibration_for,
    measure_variant,
    plan_pruning,
    pruned,
)
from supertf.data import Text
from supertf.experiments.removals import ROW_507, loaded
from supertf.experiments.smollm2_longer import APART, text
from supertf.experiments.sweep.description import Experiment
from supertf.model import Coordinate, LanguageModel, output_projections, parse
from supertf.superweights import scaled_weights

PROMPT = "The capital of France is"
AWAY = 5  # texts between the one that is evaluated and the one that plans are made from

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
WHOLE = [0.05, 0.1, 0.2, 0.3]  # of channels and heads, where less does more
EXPERIMENT = Experiment(
    name="pruning",
    question="What does each way of pruning cost SmolLM2-135M, and does it help to protect super weights?",
    measure="pruning:pruned_quality",
    settings={
        "model": "smollm2-135m",
        "windows": 4,
        "length": 512,
        "calibration": 2048,
        "new_tokens": 12,
        "method": "magnitude",
        "scope": None,
        "pattern": None,
        "score": None,
        "kinds": None,
        "sparsities": SPARSITIES,
        "protect": ROW_507[:4],
    },
    variants={
        "random": {"method": "random", "sparsities": SPARSITIES[:5]},
        "magnitude": {},
        "magnitude by row": {"scope": "row"},
        "magnitude global": {"scope": "global"},
        "wanda": {"method": "wanda"},
        "sparsegpt": {"method": "sparsegpt", "sparsities": [0.3, 0.5, 0.7]},
        "wanda 2:4": {"method": "wanda", "pattern": "2:4", "sparsities": [0.5]},
        "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4", "sparsities": [0.5]},
        "channels": {"method": "channels", "score": "activation", "sparsities": WHOLE},
        "channels by magnitude": {"method": "channels", "score": "magnitude", "sparsities": WHOLE},
        "channels at random": {"method": "channels", "score": "random", "sparsities": WHOLE},
        "inputs": {"method": "inputs"},
        "inputs of mlp.c_proj": {"method": "inputs", "kinds": ["mlp.c_proj"]},
        "top of mlp.c_proj": {"method": "top", "kinds": ["mlp.c_proj"]},
        "gate": {"method": "gate"},
    },
    seeds=(0, 1),
    quick={"windows": 1, "length": 64, "calibration": 64, "new_tokens": 2},
)


def pruned_quality(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Perplexity and fates under one method; `seed` is which text, and draws what is random. No `lengths`.

    settings: `model`, a name that `load` takes; `method`, `scope`, `pattern`, `score`, `kinds`, see
    `plan_pruning`; `sparsities`; `protect`, the weights as "11[507, 1229]"; `windows` of `length` tokens to
    evaluate; `calibration`, tokens to plan from; `new_tokens`, to continue a prompt with.

    Result: `dense`, its perplexity and continuation; `points`, for each sparsity and whom it protects
    ("none", "super", "random"): perplexity, removed (share of weights, or of work), `gone` (whether each
    protected weight goes; for dynamic methods the share of its tokens), the continuation. Where protection
    changes nothing of the plan, the result is that without it, and `same` is true. `lost`, of static methods:
    the perplexity under the plan that protects them when they are zero all the same.
    """
    model, tokenizer = loaded(settings["model"])
    length = settings["length"]
    evaluation = text(seed, APART, tokenizer)[: settings["windows"] * length + 1]
    calibration = text(seed + AWAY, APART, tokenizer)[: settings["calibration"]]
    weights = [parse(weight) for weight in settings["protect"]]
    shields = {"none": [], "super": weights, "random": random_beside(model, weights, seed)}
    options = {name: settings[name] for name in ("scope", "pattern", "score")}
    read = Text(torch.tensor(calibration), length)
    prepared = calibration_for(
        model, settings["method"], read, matrices=settings["kinds"], score=settings["score"]
    )
    held_out = Text(torch.tensor(evaluation), length)
    spoken = {"tokenizer": tokenizer, "prompt": PROMPT, "max_new_tokens": settings["new_tokens"]}

    def measured(variant: Variant) -> Row:
        return measure_variant(model, variant, held_out, watch=weights, **spoken)

    dense, points = measured(model), []
    for sparsity in settings["sparsities"]:
        bare: Pruning | DynamicPruning | None = None
        found: dict[str, Any] = {}
        for shield, protect in shields.items():
            plan = plan_pruning(
                model,
                settings["method"],
                sparsity=None if settings["pattern"] else sparsity,
                matrices=settings["kinds"],
                calibration=prepared,
                protect=protect,
                watch=weights,
                seed=seed,
                progress=False,
                **options,
            )
            if bare is not None and alike(plan, bare):
                found[shield] = {**found["none"], "same": True}
            else:
                found[shield] = {**point(plan, measured(plan)), "same": False}
            bare = bare or plan
            if shield == "super" and isinstance(plan, Pruning) and settings["method"] not in UNITS:
                with pruned(model, plan), scaled_weights(model, weights, 0.0):
                    found["lost"] = perplexity(model, evaluation, length, batch_size=4).perplexity
        points.append({"sparsity": sparsity, **found})
    return {"dense": {"perplexity": dense.perplexity, "continuation": dense.text}, "points": points}


def point(plan: Pruning | DynamicPruning, row: Row) -> dict[str, Any]:
    """What a plan does: perplexity, the share that goes of all weights or of the work, and of each watched
    weight."""
    gone: list[float | None]
    if row.skipped is not None:
        removed, gone = row.skipped.work, [fate.dropped for fate in row.fates]
    else:
        assert isinstance(plan, Pruning)  # of others the row says what was skipped
        removed, gone = plan.sparsity, [float(fate.removed) for fate in plan.fates]
    return {
        "perplexity": row.perplexity,
        "removed": removed,
        "gone": gone,
        "continuation": row.text,
    }


def alike(plan: Pruning | DynamicPruning, other: Pruning | DynamicPruning) -> bool:
    """Whether two plans of one method do the same to every matrix."""
    if isinstance(plan, DynamicPruning):
        return not any(cut.held is not None and cut.held.any() for cut in plan.cuts.values())
    assert isinstance(other, Pruning)  # of the same method
    parts = ((plan.removed, other.removed), (plan.changed, other.changed))
    return all(torch.equal(ours[name], theirs[name]) for ours, theirs in parts for name in ours)


def random_beside(model: LanguageModel, weights: list[Coordinate], seed: int) -> list[Coordinate]:
    """As many random weights, of the same matrices."""
    generator = torch.Generator().manual_seed(seed)
    projections = output_projections(model)
    chosen = []
    for layer, _, _ in weights:
        rows, columns = projections[layer].weight.shape
        out, into = (int(torch.randint(size, (), generator=generator)) for size in (rows, columns))
        chosen.append((layer, out, into))
    return chosen
