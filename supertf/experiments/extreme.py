"""The extreme experiment: one layer, asked about far more than it was trained on."""

from supertf.experiments.recall import EXPERIMENT as RECALL
from supertf.experiments.recall import SIZED_FOR_2048, constants
from supertf.experiments.sweep.description import Experiment

EXPERIMENT = Experiment(
    name="extreme",
    question="One layer, trained on 64 items, asked about 2^18: can a constant replace log n?",
    measure="recall:answers",
    settings={**RECALL.settings, "questions": 64},
    variants={
        f"{family} {attention}": {
            "family": family,
            "queries": queries,
            "steps": steps,
            "model": {"attention": attention, "n_layer": 1, "n_head": 1},
            "swaps": constants(SIZED_FOR_2048, 2.5, 4.0, 8.0) if attention == "softmax" else {},
        }
        for family, queries, steps in (("recall", 8, 400), ("majority", 4, 1000))
        for attention in ("softmax", "ssmax")
    },
    lengths=tuple(2**power for power in (6, 9, 12, 15, 18)),
    quick={"steps": 20, "questions": 16},
)
