"""The recall experiment: a two-layer decoder, every position code and every trained scale.

Its measure trains a model on a synthetic task and asks it at many lengths; the experiments on tasks share it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from supertf.data import Task
from supertf.experiments.sweep.description import Experiment
from supertf.model import GPT, with_changes
from supertf.training import Score, TaskSettings, score, task_config, train_on_task

ITEMS_ASKED = 2**24  # of all questions at one length, so that the longest take minutes and not hours
CURVE = 20  # steps from one point of a recorded curve to the next

POSITIONS: dict[str, dict[str, Any]] = {
    "none": {"position": "none"},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "p-rope": {"position": "rope", "rope_fraction": 0.5},
    "alibi": {"position": "alibi"},
}
SIZED_FOR_2048 = 1.78  # log 2056 / log 72: what log n comes to at 2048 items and 8 queries


def constants(*values: float) -> dict[str, dict[str, Any]]:
    """Swaps to log n and to constant factors."""
    swaps = {f"constant {c}": {"attention": "constant", "attention_constant": c} for c in values}
    return {"logn": {"attention": "logn"}, **swaps}


EXPERIMENT = Experiment(
    name="recall",
    question="Trained on 64 items, at which lengths does a two-layer decoder still find the one it needs?",
    measure="recall:answers",
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
        for label, position in POSITIONS.items()
        for attention in ("softmax", "ssmax", "ssmax_fixed", "ssmax_bias")
    },
    lengths=(64, 128, 256, 512, 1024, 2048),
    quick={"steps": 20, "questions": 16},
)


def answers(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Train on a task, then answer at each length, also with the attention swapped after training.

    settings: `family`, `queries`, `steps`, `questions`, `model` (changes to `task_config`) and `swaps` (label
    to changes of the trained model). Result: the training's loss and s, `scores` and, per swap, its scores.
    """
    task, training = described(settings, seed)
    config = task_config(task, settings["length"], **settings["model"])
    result = train_on_task(config, task, training)
    swaps = {
        label: scores(with_changes(result.model, **changes), task, lengths, settings["questions"])
        for label, changes in settings["swaps"].items()
    }
    trained = scores(result.model, task, lengths, settings["questions"])
    return {**curves(result.losses, result.s), **trained, "training_seconds": result.seconds, "swaps": swaps}


def described(settings: Mapping[str, Any], seed: int) -> tuple[Task, TaskSettings]:
    """The task and the training that settings describe."""
    task = Task(settings["family"], queries=settings["queries"])
    return task, TaskSettings(steps=settings["steps"], length=settings["length"], seed=seed)


def scores(model: GPT, task: Task, lengths: tuple[int, ...], questions: int) -> dict[str, Any]:
    """Accuracy and attention by length; None at lengths that the model cannot read."""
    found: dict[str, dict[str, Any]] = {part.name: {} for part in dataclasses.fields(Score)}
    for length in lengths:
        limit = model.config.length_limit
        asked = None
        if limit is None or length + task.queries <= limit:
            most = max(ITEMS_ASKED // length * task.queries, 2 * task.queries)
            asked = dataclasses.asdict(score(model, task, length, min(questions, most)))
        for part, values in found.items():
            values[str(length)] = None if asked is None else asked[part]
    return found


def curves(losses: list[float], s: list[list[float]]) -> dict[str, Any]:
    """Every 20th step's loss and s, and the last."""
    steps = sorted({*range(CURVE, len(losses), CURVE), len(losses)})
    found = {"steps": steps, "loss": [losses[step - 1] for step in steps]}
    return found | ({"s": [s[step - 1] for step in steps]} if s else {})
