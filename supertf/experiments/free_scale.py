"""The free_scale experiment: a factor p_n is learned for each number of visible keys n; which curve is it?

Where log n comes from: the argument of Nakanishi (2025, arXiv 2501.19399). All p_n start at 1 and nothing
ties them together, so any function of n could come out. Task lengths are spaced evenly in log n and drawn
equally often, so that each octave of n counts the same in the fit.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from supertf.data import Task
from supertf.errors import UserError
from supertf.experiments.sweep.description import Experiment
from supertf.model import GPT, with_changes
from supertf.training import TaskResult, TaskSettings, task_config, train_on_task

EXPERIMENT = Experiment(
    name="free_scale",
    question="Free to learn one factor per number of visible keys: does a model ask for log n?",
    measure="free_scale:scale",
    settings={
        "family": "majority",
        "exponent": 0.5,
        "queries": 4,
        "shortest": 16,
        "steps": 1000,
        "model": {"n_layer": 1, "n_head": 1},
    },
    variants={
        "majority": {},
        "majority two heads": {"model": {"n_layer": 1, "n_head": 2}},
        "recall": {"family": "recall"},
        **{f"n^{power} voters": {"exponent": power, "shortest": 64} for power in (0.35, 0.5, 0.65)},
    },
    lengths=(16, 20, 25, 32, 40, 51, 64, 81, 102, 128, 161, 203, 256, 323, 406, 512, 645, 813, 1024),
    quick={"steps": 20},
)


def scale(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Train one layer with a free scale on a task at all `lengths`; fit curves to its p_n.

    settings: `family`, `exponent` and `queries` of the task, `shortest`, of the lengths, `steps`, `model`
    (changes to `task_config`).

    Result: `n` and `p` (of layer 0) where a query was trained, `fits` (see `fits`), the mean loss of the last
    tenth of the steps, and `gap` (see `gap`) with its product with the slope of p in log n, `slope_gap`:
    1 - exponent, if p keeps the voters' share of the attention the same at every length.
    """
    task = Task(settings["family"], queries=settings["queries"], exponent=settings["exponent"])
    lengths = tuple(length for length in lengths if length >= settings["shortest"])
    result = train_free(task, lengths, settings["steps"], seed, **settings["model"])
    n, p = learned(result, task, lengths)
    last = result.losses[-max(1, len(result.losses) // 10) :]
    fitted, above = fits(n, p), gap(result.model, task, max(lengths))
    return {
        "n": n,
        "p": p,
        "fits": fitted,
        "gap": above,
        "slope_gap": fitted["log n"]["a"] * above,
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


@torch.inference_mode()
def gap(model: GPT, task: Task, length: int, seed: int = 0) -> float:
    """How far the items that a query asks for stand above all others: the mean difference of their logits in
    layer 0, before any factor that depends on n, over heads and queries of 16 sequences."""
    plain = with_changes(model, attention="softmax")
    batch = task.batch(16, length, torch.Generator().manual_seed(seed))
    tokens = batch.tokens.to(plain.device)
    where, attention = plain.layout(tokens, 0, None, None), plain.h[0].attn
    q, k, _ = attention.queries_keys_values(plain.h[0].ln_1(plain.embed(tokens, where)), where)
    products = q[:, :, length:] @ k[:, :, :length].transpose(-1, -2)  # (B, H, Q, N)
    logits = products / math.sqrt(attention.head_dim)
    same = tokens[:, None, length:, None, 0] == tokens[:, None, None, :length, 0]  # (B, 1, Q, N)
    asked = same.expand_as(logits)
    return float(logits[asked].mean() - logits[~asked].mean())


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
