"""The recall experiment: a two-layer decoder, every position code and every trained scale."""

from typing import Any

from supertf.experiments.description import Experiment

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
    measure="measure_tasks:answers",
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
