"""The swap experiment: a trained model's attention is exchanged, with and without a little more training."""

import dataclasses
from typing import Any

from supertf.experiments.recall import EXPERIMENT as RECALL
from supertf.experiments.recall import POSITIONS, SIZED_FOR_2048, constants, described, scores
from supertf.experiments.sweep.description import Experiment
from supertf.model import with_changes
from supertf.training import task_config, train_on_task

EXPERIMENT = Experiment(
    name="swap",
    question="Is a trained softmax model rescued by a swap, by a swap and a little training, or by neither?",
    measure="swap:swaps",
    settings={
        **RECALL.settings,
        "tuning": {"steps": 50, "lr": 5e-4, "warmup": 5},
        "swaps": {**constants(SIZED_FOR_2048), "ssmax": {"attention": "ssmax"}},
    },
    variants={
        f"softmax {label}": {"model": {"attention": "softmax", **POSITIONS[label]}}
        for label in ("none", "rope", "p-rope")
    },
    lengths=RECALL.lengths,
    quick=RECALL.quick,
)


def swaps(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """What becomes of one trained softmax model: left alone, swapped, or swapped and trained a little more.

    settings: as in `answers`, and `tuning` (the settings of the further training that differ). Each change of
    `swaps` is scored as it is and after tuning; so is the model without any.
    """
    task, training = described(settings, seed)
    config = task_config(task, settings["length"], **settings["model"])
    trained = train_on_task(config, task, training).model
    tuning = dataclasses.replace(training, seed=seed + 1000, **settings["tuning"])
    found = {}
    for label, changes in {"softmax": {}, **settings["swaps"]}.items():
        model = with_changes(trained, **changes)
        found[label] = scores(model, task, lengths, settings["questions"])
        train_on_task(model.config, task, tuning, model=model)
        found[f"{label}, tuned"] = scores(model, task, lengths, settings["questions"])
    return found
