"""What is claimed about small language models, inside their context and beyond."""

from supertf.experiments.sweep.judging import Claim

LOSS, FAR = ("validation_loss",), ("beyond", 512, "last_half")

CLAIMS = (
    *(
        Claim(
            "language",
            f"Without positions the loss is .1 nats per byte higher than with {code}",
            {"softmax none": 1, f"softmax {code}": -1},
            more=0.1,
            path=LOSS,
        )
        for code in ("learned", "sinusoidal", "rope", "alibi")
    ),
    *(
        Claim(
            "language",
            f"SSMax changes the loss inside the context by less than .03 nats per byte: {code}",
            {f"ssmax {code}": 1, f"softmax {code}": -1},
            more=-0.03,
            less=0.03,
            path=LOSS,
        )
        for code in ("none", "sinusoidal", "rope")
    ),
    Claim(
        "language",
        "SSMax without positions loses to softmax with sinusoidal positions by .1 nats per byte",
        {"ssmax none": 1, "softmax sinusoidal": -1},
        more=0.1,
        path=LOSS,
    ),
    *(
        Claim(
            "language",
            f"At eight times the context, {name} costs .5 nats per byte more than ALiBi",
            {name: 1, "softmax alibi": -1},
            more=0.5,
            path=FAR,
        )
        for name in ("softmax none", "softmax sinusoidal", "softmax rope", "ssmax none", "ssmax rope")
    ),
    *(
        Claim(
            "language",
            f"At {n} tokens SSMax {does} with {code}",
            {f"ssmax {code}": 1, f"softmax {code}": -1},
            path=("beyond", n, "last_half"),
            less=less,
            more=more,
        )
        for n in (128, 512)
        for code, does, less, more in (("none", "gains", 0, None), ("rope", "loses", None, 0))
    ),
    Claim(
        "language",
        "No position is readable at the embedding without positions (R² below .05)",
        {"softmax none": 1},
        less=0.05,
        path=("probe", 0, "r2"),
    ),
    Claim(
        "language",
        "After two layers of a model without positions a position is readable (R² above .8)",
        {"softmax none": 1},
        more=0.8,
        path=("probe", 2, "r2"),
    ),
)
