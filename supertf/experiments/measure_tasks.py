"""Cells of the experiments on synthetic tasks: train a model, ask it at many lengths, swap its attention."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from supertf.data import Task
from supertf.model import GPT, with_changes
from supertf.training import Score, TaskSettings, score, task_config, train_on_task

ITEMS_ASKED = 2**21  # of all questions at one length, so that the longest take minutes and not hours
CURVE = 20  # steps from one point of a recorded curve to the next


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
