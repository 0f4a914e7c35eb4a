"""What is claimed about language models that are trained until the one without positions falls no more."""

from supertf.experiments.sweep.judging import Claim

GAP = {"softmax none": 1, "softmax rope": -1}
HALF_WAY, NEAR_THE_END, END = (("validation", at) for at in (9, 17, 19))  # of 20 looks
CLAIMS = (
    Claim(
        "longer_training",
        "After 8,000 steps the loss without positions is .05 nats per byte higher than with RoPE",
        GAP,
        more=0.05,
        path=END,
    ),
    Claim(
        "longer_training",
        "The gap between no positions and RoPE shrinks in the second half of 8,000 steps",
        GAP,
        less=0,
        path=END,
        minus=HALF_WAY,
    ),
    Claim(
        "longer_training",
        "In the last tenth of 8,000 steps the loss without positions falls by less than .01 nats per byte",
        {"softmax none": 1},
        less=0.01,
        path=NEAR_THE_END,
        minus=END,
    ),
    Claim(
        "longer_training",
        "Without positions SSMax changes the loss by less than .03 nats per byte",
        {"ssmax none": 1, "softmax none": -1},
        more=-0.03,
        less=0.03,
        path=END,
    ),
)
