"""The recovering experiment: MLP channels go, a short training makes up for it, beside its control."""

import copy
from typing import Any

from supertf.analysis import perplexity
from supertf.compression import calibrate, plan_structured, pruned, recover, smaller
from supertf.experiments.quantizing import AWAY
from supertf.experiments.removals import loaded
from supertf.experiments.smollm2_longer import APART, text
from supertf.experiments.sweep.description import Experiment
from supertf.model import LanguageModel, output_projections, parse
from supertf.superweights import scaled_weights

EXPERIMENT = Experiment(
    name="recovering",
    question="How much of what a fifth of the MLP channels was worth does a minute of training bring back?",
    measure="recovering:recovered",
    settings={
        "model": "smollm2-135m",
        "sparsity": 0.2,
        "steps": 40,
        "teacher": False,
        "training": 16_384,
        "windows": 8,
        "length": 512,
        "calibration": 4096,
        "weight": "11[507, 1229]",
    },
    variants={
        "dense, next tokens": {"sparsity": 0.0},
        "pruned, next tokens": {},
        "pruned, taught": {"teacher": True},
    },
    seeds=(0, 1),
    quick={"steps": 2, "windows": 1, "length": 128, "calibration": 128, "training": 512},
)


def recovered(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Perplexity before and after a short training; `seed` is which text, and the order of batches. No
    `lengths`.

    settings: `model`, a name that `load` takes; `sparsity`, the share of MLP channels that goes first (0:
    the control, a dense model that is trained alike); `steps` of training on `training` tokens of text, with
    the dense model for a `teacher` or without; `weight`, as "11[507, 1229]"; `windows` of `length` tokens to
    evaluate, `calibration` tokens to choose the channels by: three texts that share nothing.

    Result: `dense`, `before` and `after`, perplexities; `seconds` of training; `parameters` of the model
    without the channels; of the weight its value after (`value`), and how many times the perplexity is when
    it goes from the model before (`ratio_before`) and after (`ratio_after`) the training.
    """
    model, tokenizer = loaded(settings["model"])
    length, weight = settings["length"], parse(settings["weight"])
    evaluation = text(seed, APART, tokenizer)[: settings["windows"] * length + 1]
    calibration = calibrate(model, text(seed + AWAY, APART, tokenizer)[: settings["calibration"]], length)
    plan = plan_structured(model, "channels", settings["sparsity"], calibration, progress=False)

    def quality(of: LanguageModel) -> float:
        return perplexity(of, evaluation, length, batch_size=4).perplexity

    def ratio(of: LanguageModel, whole: float) -> float:
        with scaled_weights(of, [weight]):
            return quality(of) / whole

    with pruned(model, plan):
        zeros = copy.deepcopy(model)  # in the place of the channels, which stay zero in training
    training = text(seed + 2 * AWAY, APART, tokenizer)[: settings["training"] + 1]
    teacher = model if settings["teacher"] else None
    result = recover(zeros, training, settings["steps"], teacher=teacher, seed=seed, progress=False)
    before, after = quality(zeros), quality(result.model)
    layer, out, into = weight
    return {
        "dense": quality(model),
        "before": before,
        "after": after,
        "seconds": result.seconds,
        "parameters": smaller(model, plan).num_parameters(),
        "value": output_projections(result.model)[layer].weight[out, into].item(),
        "ratio_before": ratio(zeros, before),
        "ratio_after": ratio(result.model, after),
    }
