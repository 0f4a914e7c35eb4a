"""The longer_training experiment: language models until the one without positions falls no more."""

from supertf.experiments.language import EXPERIMENT as LANGUAGE
from supertf.experiments.sweep.description import Experiment

EXPERIMENT = Experiment(
    name="longer_training",
    question="Trained eight times as long, how far behind RoPE is a language model without positions?",
    measure="language:language",
    settings={**LANGUAGE.settings, "steps": 8000},
    variants={name: LANGUAGE.variants[name] for name in ("softmax none", "ssmax none", "softmax rope")},
    lengths=(64, 128, 512),
    seeds=(0, 1, 2),
    quick={"steps": 20},
)
