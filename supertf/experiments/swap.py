"""The swap experiment: a trained model's attention is exchanged, with and without a little more training."""

from supertf.experiments.description import Experiment
from supertf.experiments.recall import EXPERIMENT as RECALL
from supertf.experiments.recall import POSITIONS, SIZED_FOR_2048, constants

EXPERIMENT = Experiment(
    name="swap",
    question="Is a trained softmax model rescued by a swap, by a swap and a little training, or by neither?",
    measure="measure_tasks:swaps",
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
