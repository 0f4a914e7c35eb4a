"""The refitting experiment: parts are left out, and projections fitted anew make up for it."""

import time
from typing import Any

import torch

from supertf.analysis import perplexity
from supertf.compression import DynamicPruning, Pruning, dynamically_pruned, plan_pruning, refit, smaller
from supertf.data import Text
from supertf.experiments.removals import loaded
from supertf.experiments.smollm2_longer import APART, text
from supertf.experiments.sweep.description import Experiment
from supertf.model import LanguageModel, output_projections, parse
from supertf.superweights import scaled_weights

EXPERIMENT = Experiment(
    name="refitting",
    question="How much of what is left out can the rest make up for in closed form, and from how much text?",
    measure="refitting:refitted",
    settings={
        "model": "smollm2-135m",
        "method": "inputs",
        "sparsity": 0.5,
        "kinds": ["mlp.c_proj"],
        "tokens": [8192, 32_768, 131_072],
        "away": 5,
        "calibration": 4096,
        "windows": 8,
        "length": 512,
        "weight": "11[507, 1229]",
    },
    variants={
        "inputs": {},
        "inputs, text from farther away": {"tokens": [32_768], "away": 64},
        "largest inputs of each token": {"method": "top", "tokens": [32_768]},
        "channels": {"method": "channels", "kinds": None, "sparsity": 0.2, "tokens": [8192, 32_768]},
        "nothing": {"sparsity": 0.0, "tokens": [8192]},
    },
    seeds=(0, 1),
    quick={"tokens": [512], "calibration": 128, "windows": 1, "length": 128},
)


def refitted(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Perplexity before and after refitting; `seed` is which text. No `lengths`.

    settings: `model`, a name that `load` takes; `method`, of `plan_pruning`, a dynamic one or channels;
    `sparsity`; `kinds` of matrices that are pruned; `tokens` to fit on, several numbers, and `away`, how many
    texts lie between the one that is evaluated and those; `calibration`, how many of them to plan from;
    `windows` of `length` tokens to evaluate; `weight`, as "11[507, 1229]".

    Result: `dense` and `before`, perplexities; `removed`, the share of inputs or channels that goes; `after`,
    for each number of tokens: `perplexity`, `removed` and `seconds`. But for channels also `whole`, the
    perplexity of the new weights with nothing left out, and of the weight its `value`, and `ratio`, how many
    times the perplexity is when it goes.
    """
    model, tokenizer = loaded(settings["model"])
    length, weight = settings["length"], parse(settings["weight"])
    evaluation = text(seed, APART, tokenizer)[: settings["windows"] * length + 1]
    most, first = max(settings["tokens"]), seed + settings["away"]
    pieces = [text(first + i, APART, tokenizer)[:APART] for i in range(-(-most // APART))]
    training = torch.tensor(pieces).flatten()
    method, kinds = settings["method"], settings["kinds"]
    calibration = Text(training[: settings["calibration"]], length)
    plan = plan_pruning(
        model,
        method,
        sparsity=settings["sparsity"],
        matrices=kinds,
        calibration=calibration,
        progress=False,
    )
    dropping = plan if isinstance(plan, DynamicPruning) else None
    start = smaller(model, plan) if isinstance(plan, Pruning) else model

    def quality(of: LanguageModel) -> float:
        return perplexity(of, evaluation, length, batch_size=4).perplexity

    def under_plan(of: LanguageModel) -> tuple[float, float]:
        """Perplexity, and the share that went."""
        if dropping is None:
            return quality(of), settings["sparsity"]
        with dynamically_pruned(of, dropping) as skipped:
            found = quality(of)
        return found, sum(skipped.dropped.values()) / sum(skipped.seen.values())

    def fitted(tokens: int) -> dict[str, Any]:
        began = time.perf_counter()
        ids = training[:tokens]
        new = refit(start, ids, dropping, teacher=model, length=length, progress=False)
        seconds = time.perf_counter() - began
        perplexity_after, removed = under_plan(new)
        found = {"perplexity": perplexity_after, "removed": removed, "seconds": seconds}
        if dropping is None:
            return found
        layer, out, into = weight
        with scaled_weights(new, [weight]):
            ratio = under_plan(new)[0] / perplexity_after
        value = output_projections(new)[layer].weight[out, into].item()
        return {**found, "whole": quality(new), "value": value, "ratio": ratio}

    before, removed = under_plan(start)
    after = [fitted(tokens) for tokens in settings["tokens"]]
    return {"dense": quality(model), "before": before, "removed": removed, "after": after}
