"""What is claimed about super weights, spikes and sinks that grow in training."""

from supertf.experiments.sweep.judging import Claim

CLAIMS = (
    Claim(
        "growth",
        "Deep models: no spike's weight is worth 5 %",
        {"deep, softmax": 1},
        less=1.05,
        path=("spike_harm",),
    ),
    *(
        Claim(
            "growth",
            f"Deep models: {what} is smaller under {arm} than under softmax",
            {f"deep, {arm}": 1, "deep, softmax": -1},
            less=0,
            path=(key,),
        )
        for arm in ("ssmax", "zero key")
        for key, what in (
            ("sink", "the largest sink"),
            ("max_over_median", "the largest activation"),
            ("spike_ratio", "the largest spike"),
        )
    ),
    *(
        Claim(
            "growth",
            f"Four layers, {mlp}, {start}: the largest sink is smaller under SSMax than under softmax",
            {f"{mlp} {start} ssmax": 1, f"{mlp} {start} softmax": -1},
            less=0,
            path=("sink",),
        )
        for mlp in ("gelu", "swiglu")
        for start in ("bos", "no bos")
    ),
)
