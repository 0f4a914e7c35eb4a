"""What is claimed about scales that a model learns freely, one for each number of keys."""

from supertf.experiments.sweep.judging import Claim

CLAIMS = (
    Claim(
        "free_scale",
        "Majority: the learned factors lie on a line in log n (R² above .95)",
        {"majority": 1},
        more=0.95,
        path=("fits", "log n", "r2"),
    ),
    *(
        Claim(
            "free_scale",
            f"Majority: they lie on a line in log n more closely than on {what} (R²)",
            {"majority": 1},
            more=0,
            path=("fits", "log n", "r2"),
            minus=("fits", curve, "r2"),
        )
        for curve, what in (
            ("power of n", "a power of n"),
            ("square root of n", "one in its square root"),
            ("linear in n", "one in n"),
        )
    ),
    Claim(
        "free_scale",
        "Recall: the learned factors do not lie on a line in log n (R² below .8)",
        {"recall": 1},
        less=0.8,
        path=("fits", "log n", "r2"),
    ),
    *(
        Claim(
            "free_scale",
            f"With n^{power} voters slope times gap is {1 - power:g}, to within .15",
            {f"n^{power} voters": 1},
            more=1 - power - 0.15,
            less=1 - power + 0.15,
            path=("slope_gap",),
        )
        for power in (0.35, 0.5, 0.65)
    ),
    *(
        Claim(
            "free_scale",
            f"Slope times gap is larger with n^{a} voters than with n^{b}",
            {f"n^{a} voters": 1, f"n^{b} voters": -1},
            more=0,
            path=("slope_gap",),
        )
        for a, b in ((0.35, 0.5), (0.5, 0.65))
    ),
)
