"""What is claimed about recall beyond the trained length."""

from supertf.experiments.claims.contrasts import at_length
from supertf.experiments.sweep.judging import Claim

CLAIMS = (
    Claim(
        "recall",
        "Without positions SSMax finds 95 % at 32 times the trained length",
        {"ssmax none": 1},
        more=0.95,
        path=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "Without positions SSMax finds a tenth more than softmax at 32 times the trained length",
        {"ssmax none": 1, "softmax none": -1},
        more=0.1,
        path=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "Without positions log n, swapped into the softmax model, finds 95 % at 32 times the trained length",
        {"softmax none": 1},
        more=0.95,
        path=at_length("accuracy", 2048, "logn"),
    ),
    Claim(
        "recall",
        "A constant of 1.78, swapped in, is as good as log n, to within .02",
        {"softmax none": 1},
        more=-0.02,
        less=0.02,
        path=at_length("accuracy", 2048, "logn"),
        minus=at_length("accuracy", 2048, "constant 1.78"),
    ),
    Claim(
        "recall",
        "With full RoPE SSMax finds less than a fifth",
        {"ssmax rope": 1},
        less=0.2,
        path=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "With sinusoidal positions log n, swapped in, helps",
        {"softmax sinusoidal": 1},
        more=0,
        path=at_length("accuracy", 2048, "logn"),
        minus=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "With ALiBi SSMax trained in does better than softmax",
        {"ssmax alibi": 1, "softmax alibi": -1},
        more=0,
        path=at_length("accuracy", 2048),
    ),
)
