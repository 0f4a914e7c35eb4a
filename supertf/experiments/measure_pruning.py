"""Cells of the pruning experiment: one method on the real model, at many sparsities, with weights protected.

At each sparsity three plans are compared: nothing protected, the weights that the lab found to matter, and as
many random weights of the same matrices, the control. And since most methods keep those weights anyway: what
the plan would cost if they went, too.
"""

from typing import Any

import torch

from supertf.analysis import perplexity
from supertf.compression import (
    KINDS,
    DynamicPruning,
    Pruning,
    Skipped,
    calibration_for,
    plan_pruning,
    pruned,
)
from supertf.data import Text
from supertf.experiments.measure_proofs import APART, loaded
from supertf.experiments.measure_smollm2 import text
from supertf.model import GPT, Coordinate, HFModel, generate, output_projections, parse
from supertf.superweights import scaled_weights

PROMPT = "The capital of France is"
AWAY = 5  # texts between the one that is evaluated and the one that plans are made from


def pruned_quality(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Perplexity and fates under one method; `seed` is which text, and draws what is random. No `lengths`.

    settings: `model`, a name that `load_any` takes; `method`, `scope`, `pattern`, `score`, `kinds`, see
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
    prepared = calibration_for(model, settings["method"], read, settings["kinds"], settings["score"])

    def quality() -> float:
        return perplexity(model, evaluation, length, batch_size=4).perplexity

    def continuation() -> str:
        prompt = tokenizer.encode_ordinary(PROMPT)
        return tokenizer.decode(generate(model, prompt, settings["new_tokens"]))

    def measured(plan: Pruning | DynamicPruning) -> dict[str, Any]:
        with pruned(model, plan, watch=weights) as skipped:
            found = {"perplexity": quality(), **removal(plan, skipped)}  # counted before the continuation
            return {**found, "continuation": continuation()}

    points = []
    for sparsity in settings["sparsities"]:
        bare, found = None, {}
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
                found[shield] = {**measured(plan), "same": False}
            bare = bare or plan
            if shield == "super" and isinstance(plan, Pruning) and settings["method"] not in KINDS:
                with pruned(model, plan), scaled_weights(model, weights, 0.0):
                    found["lost"] = quality()
        points.append({"sparsity": sparsity, **found})
    return {"dense": {"perplexity": quality(), "continuation": continuation()}, "points": points}


def removal(plan: Pruning | DynamicPruning, skipped: Skipped | None) -> dict[str, Any]:
    """What went: the share of all weights or of the work, and of each watched weight."""
    if skipped is None:
        return {"removed": plan.sparsity, "gone": [float(fate.removed) for fate in plan.fates]}
    return {
        "removed": skipped.work,
        "gone": [dropped / tokens for dropped, tokens in skipped.watched.values()],
    }


def alike(plan: Pruning | DynamicPruning, other: Pruning | DynamicPruning) -> bool:
    """Whether two plans of one method do the same to every matrix."""
    if isinstance(plan, DynamicPruning):
        return not any(cut.held is not None and cut.held.any() for cut in plan.cuts.values())
    parts = ((plan.removed, other.removed), (plan.changed, other.changed))
    return all(torch.equal(ours[name], theirs[name]) for ours, theirs in parts for name in ours)


def random_beside(model: GPT | HFModel, weights: list[Coordinate], seed: int) -> list[Coordinate]:
    """As many random weights, of the same matrices."""
    generator = torch.Generator().manual_seed(seed)
    projections = output_projections(model)
    chosen = []
    for layer, _, _ in weights:
        rows, columns = projections[layer].weight.shape
        out, into = (int(torch.randint(size, (), generator=generator)) for size in (rows, columns))
        chosen.append((layer, out, into))
    return chosen
