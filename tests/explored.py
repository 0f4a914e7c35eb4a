"""Explorers as large as the real model asks for, and what they are made from."""

import numpy as np
import torch

from supertf.lab.explorers import (
    attention_explorer,
    cost_explorer,
    entropy_explorer,
    level_explorer,
    needle_explorer,
    spike_explorer,
)

DRAW = np.random.default_rng(0)
LENGTHS = [64, 128, 256, 512, 1024, 2048]
STATES = ("as it is", "without the weight")
PROMPTS = {
    f"prompt {i}": (
        [f"t{j}" for j in range(10)],
        {state: 10 ** DRAW.uniform(-1, 4, (30, 10)) for state in STATES},
    )
    for i in range(5)
}
ENTROPIES = {name: (LENGTHS, torch.rand(30, 9, 6)) for name in ("softmax", "SSMax swapped in")}
POINTS = [
    {"x": x, "y": 1 + x, "low": 1.0, "high": 2.0, "facts": ["mlp.c_proj", "30 texts"]} for x in (0.7, 0.3)
]
WEIGHTS = DRAW.normal(size=192)
SCHEME = {
    "weights": WEIGHTS,
    "rounded": WEIGHTS.round(1),
    "blocks": [0, 64, 128],
    "held": [5],
    "error": ".01",
}
N, GAPS, SCALES = [10, 1000, 10**6], [1.0, 3.0, 5.0], [0.2, 0.43, 1.0]

FIGURES = {  # as large as the real model asks for
    "entropy": lambda: entropy_explorer(ENTROPIES),
    "spikes": lambda: spike_explorer(PROMPTS, [5, 50, 1000]),
    "cost": lambda: cost_explorer({f"method {i}": POINTS for i in range(16)}),
    "levels": lambda: level_explorer({f"scheme {i}": SCHEME for i in range(6)}),
    "needle": lambda: needle_explorer(
        [round(10 ** (k / 4)) for k in range(4, 25)], list(range(1, 21)), SCALES, 3.0
    ),
    "attention": lambda: attention_explorer(
        [f"t{j}" for j in range(24)], {f"head {i}": DRAW.random((24, 24)) for i in range(16)}
    ),
}
