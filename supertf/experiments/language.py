"""The language experiment: one small decoder on Python's documentation, looked at closely."""

import math
from typing import Any

import torch
from torch import Tensor

from supertf.analysis import attention_stats, loss_by_position, probe_positions, residual_stats, sink_rate
from supertf.data import TokenFile, Windows, lab_tokens
from supertf.experiments.sweep.description import Experiment
from supertf.model import GPT, language_config
from supertf.training import TrainSettings, train

TOKENS_PER_LENGTH = 2**15  # of held-out text read at each length beyond the trained one

EXPERIMENT = Experiment(
    name="language",
    question="What do positions and log n cost or gain a language model, inside its context and beyond?",
    measure="language:language",
    settings={"vocab_size": 257, "context": 64, "steps": 1000, "batch_size": 32, "lr": 5e-3, "model": {}},
    variants={
        **{
            f"{attention} {label}": {"model": {"attention": attention, "position": label}}
            for attention, labels in (
                ("softmax", ("none", "learned", "sinusoidal", "rope", "alibi")),
                ("ssmax", ("none", "sinusoidal", "rope")),
            )
            for label in labels
        },
        **{
            f"zero key {label}": {"model": {"zero_key": True, "position": label}}
            for label in ("none", "rope")
        },
    },
    lengths=(64, 128, 256, 512, 1024),
    quick={"steps": 20},
)


def language(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Train on text; then loss by position beyond the trained context, attention, outliers, positions.

    settings: `vocab_size`, `context`, `steps`, `batch_size`, `lr`, `model` (changes to `language_config`).
    Losses are nats per token of a BPE vocabulary trained on the same text. Where a model cannot read a
    length, that entry is None.
    """
    train_file, validation_file = lab_tokens(settings["vocab_size"])
    context = settings["context"]
    config = language_config(train_file.vocab_size, context, **settings["model"])
    training = TrainSettings(
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        lr=settings["lr"],
        seed=seed,
        validate_every=max(settings["steps"] // 20, 1),
        validation_windows=128,
        precision="fp32",
        progress=False,
    )
    result = train(config, train_file, validation_file, training)
    if result.interrupted:
        raise KeyboardInterrupt  # a part of a training is no result
    model, bos_id = result.model, train_file.tokenizer.eot_token
    rows = held_out(validation_file, context, 96, bos_id)  # (96, context)
    stats = attention_stats(model, rows[:32])
    sink = sink_rate(stats)
    outliers = residual_stats(model, rows[:32])
    probes = probe_positions(model, rows[:64], rows[64:])
    return {
        **curves(result.metrics, training.validate_every),
        "train_loss": mean(m["loss"] for m in result.metrics[-training.validate_every :]),
        "validation_loss": result.metrics[-1]["validation_loss"],
        "beyond": {str(n): losses(model, validation_file, n, bos_id) for n in lengths},
        "entropy": {str(n): entropy(model, validation_file, n, bos_id) for n in lengths},
        "sink": {"mean": sink.mean, "share": sink.share, "by_head": sink.by_head.tolist()},
        "kurtosis": [layer.kurtosis for layer in outliers],
        "max_over_median": [layer.max_over_median for layer in outliers],
        "probe": [{"r2": probe.r2, "relative": probe.relative} for probe in probes],
        "training_seconds": result.seconds,
    }


def held_out(file: TokenFile, length: int, count: int, bos_id: int | None) -> Tensor:
    """`count` windows of `length` tokens spread evenly over a file, (count, length); bos_id begins each."""
    windows = Windows(file, length, stride=length, bos_id=bos_id)
    count = min(count, len(windows))
    return torch.stack([windows[i * len(windows) // count][:length] for i in range(count)])


def readable(model: GPT, length: int) -> bool:
    """Whether the model can read that many tokens."""
    return model.config.length_limit is None or length <= model.config.length_limit


def losses(model: GPT, file: TokenFile, length: int, bos_id: int) -> dict[str, float] | None:
    """Mean loss over windows of `length`, and over the last half of each, where the context is longest."""
    if not readable(model, length):
        return None
    ids = torch.from_numpy(file.tokens[: TOKENS_PER_LENGTH + 1].astype("int64"))
    by_position = loss_by_position(model, ids, length, bos_id=bos_id, batch_size=max(1, 8192 // length))
    return {"mean": float(by_position.mean()), "last_half": float(by_position[length // 2 :].mean())}


def entropy(model: GPT, file: TokenFile, length: int, bos_id: int) -> list[list[float]] | None:
    """Normalised entropy H / log n of the last 16 queries of 8 windows, mean by layer and head."""
    if not readable(model, length):
        return None
    idx = held_out(file, length, 8, bos_id)
    stats = attention_stats(model, idx, rows=range(length - 16, length))
    return [layer.normalized.mean(dim=(0, 2)).tolist() for layer in stats]


def curves(metrics: list[dict[str, Any]], every: int) -> dict[str, Any]:
    """Training loss (mean of `every` steps), validation loss and mean s, every so many steps."""
    steps = [m["step"] for m in metrics if "validation_loss" in m]
    found = {
        "steps": steps,
        "training": [mean(m["loss"] for m in metrics[max(0, step - every) : step]) for step in steps],
        "validation": [m["validation_loss"] for m in metrics if "validation_loss" in m],
    }
    if "mean_s" in metrics[-1]:
        found["mean_s"] = [m["mean_s"] for m in metrics if "validation_loss" in m]
    return found


def mean(values: Any) -> float:
    """Mean of some numbers."""
    values = list(values)
    return math.fsum(values) / len(values)
