"""The extreme experiment: one layer, asked about far more than it was trained on.

A factor that is 1 inside the trained length and a constant beyond it needs no variant of its own: at each
length all queries see more keys than in training, or none does, so it answers as softmax or as that constant.
"""

from typing import Any

from supertf.experiments.recall import EXPERIMENT as RECALL
from supertf.experiments.recall import SIZED_FOR_2048, constants
from supertf.experiments.sweep.description import Experiment

ONE_LAYER = {"n_layer": 1, "n_head": 1}
FINE = (1.4, SIZED_FOR_2048, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0, 6.5, 8.0)
COARSE = (SIZED_FOR_2048, 2.5, 4.0, 8.0)
TRAINED_IN = (SIZED_FOR_2048, 2.5, 4.0)
FAMILIES: dict[str, dict[str, Any]] = {
    "recall": {"family": "recall", "queries": 8, "steps": 400},
    "majority": {"family": "majority", "queries": 4, "steps": 1000},
}

EXPERIMENT = Experiment(
    name="extreme",
    question="One layer, trained on 64 items, asked about 2^18: can a constant replace log n?",
    measure="recall:answers",
    settings={**RECALL.settings, "questions": 256},
    variants={
        **{
            f"{name} softmax": {
                **family,
                "model": {"attention": "softmax", **ONE_LAYER},
                "swaps": constants(*(FINE if name == "majority" else COARSE)),
            }
            for name, family in FAMILIES.items()
        },
        **{
            f"{name} ssmax": {**family, "model": {"attention": "ssmax", **ONE_LAYER}}
            for name, family in FAMILIES.items()
        },
        **{
            f"majority constant {c}": {
                **FAMILIES["majority"],
                "model": {"attention": "constant", "attention_constant": c, **ONE_LAYER},
            }
            for c in TRAINED_IN
        },
    },
    lengths=(64, 96, 128, 192, 256, 384, 512, 2**12, 2**15, 2**18),
    quick={"steps": 20, "questions": 16},
)
