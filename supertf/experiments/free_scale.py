"""The free_scale experiment: a factor p_n is learned for each number of visible keys n; which curve is it?

Where log n comes from: the argument of Nakanishi (2025, arXiv 2501.19399). All p_n start at 1 and nothing
ties them together, so any function of n could come out. Task lengths are spaced evenly in log n and drawn
equally often, so that each octave of n counts the same in the fit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from supertf.data import Task
from supertf.errors import UserError
from supertf.experiments.sweep.description import Experiment
from supertf.training import TaskResult, TaskSettings, task_config, train_on_task

EXPERIMENT = Experiment(
    name="free_scale",
    question="Free to learn one factor per number of visible keys: does a model ask for log n?",
    measure="free_scale:scale",
    settings={"family": "majority", "queries": 4, "steps": 1000, "model": {"n_layer": 1, "n_head": 1}},
    variants={
        "majority": {},
        "majority two heads": {"model": {"n_layer": 1, "n_head": 2}},
        "recall": {"family": "recall"},
    },
    lengths=(16, 20, 25, 32, 40, 51, 64, 81, 102, 128, 161, 203, 256, 323, 406, 512, 645, 813, 1024),
    quick={"steps": 20},
)


def scale(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Train one layer with a free scale on a task at all `lengths`; fit curves to its p_n.

    settings: `family`, `queries`, `steps`, `model` (changes to `task_config`). Result: `n` and `p` (of layer
    0) where a query was trained, `fits` (see `fits`) and the mean loss of the last tenth of the steps.
    """
    task = Task(settings["family"], queries=settings["queries"])
    result = train_free(task, lengths, settings["steps"], seed, **settings["model"])
    n, p = learned(result, task, lengths)
    last = result.losses[-max(1, len(result.losses) // 10) :]
    return {
        "n": n,
        "p": p,
        "fits": fits(n, p),
        "loss": sum(last) / len(last),
        "training_seconds": result.seconds,
    }


def train_free(task: Task, lengths: Sequence[int], steps: int, seed: int, **changes: Any) -> TaskResult:
    """Train a decoder with a free scale, each step at one of `lengths`; `changes` are to `task_config`."""
    config = task_config(task, max(lengths), attention="free", **changes)
    return train_on_task(config, task, TaskSettings(steps=steps, length=tuple(lengths), seed=seed))


def learned(result: TaskResult, task: Task, lengths: Sequence[int]) -> tuple[list[int], list[float]]:
    """Every n that a query had in training at these lengths, in order, and the p_n of layer 0."""
    n = sorted({length + query for length in lengths for query in range(1, task.queries + 1)})
    p = result.model.get_parameter("h.0.attn.scale.p").detach().cpu()
    return n, [float(p[visible - 1]) for visible in n]


def fits(n: Sequence[int], p: Sequence[float]) -> dict[str, dict[str, float]]:
    """Least-squares fits of p by curves with two numbers each: `a`, `b` and R^2 (`r2`).

    log n: a log n + b; square root and linear likewise. Power: exp(b) n^a, fitted to log p. R^2 is always of
    p itself, against its mean, unsmoothed. Raises `UserError` where p is not positive or does not vary.
    """
    x, y = np.asarray(n, dtype=float), np.asarray(p, dtype=float)
    if len(x) < 3 or y.min() <= 0 or y.min() == y.max():
        raise UserError(f"a fit needs three or more positive scales that differ, got {list(p)[:5]} ...")
    found = {}
    bases = {
        "log n": np.log(x),
        "power of n": np.log(x),
        "square root of n": np.sqrt(x),
        "linear in n": x,
    }
    for name, basis in bases.items():
        power = name == "power of n"
        a, b = np.polyfit(basis, np.log(y) if power else y, 1)
        line = a * basis + b
        missed = y - (np.exp(line) if power else line)
        r2 = 1 - (missed @ missed) / ((y - y.mean()) @ (y - y.mean()))
        found[name] = {"a": float(a), "b": float(b), "r2": float(r2)}
    return found
