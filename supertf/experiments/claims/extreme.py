"""What is claimed about one layer that is asked about far more than it was trained on."""

from supertf.experiments.claims.contrasts import at_length
from supertf.experiments.sweep.judging import Claim

GRID = ("1.4", "1.78", "2.0", "2.25", "2.5", "2.75", "3.0", "3.5", "4.0", "5.0", "6.5", "8.0")

CLAIMS = (
    Claim(
        "extreme",
        "Majority: log n, swapped in, answers 90 % among 64",
        {"majority softmax": 1},
        more=0.9,
        path=at_length("accuracy", 64, "logn"),
    ),
    Claim(
        "extreme",
        "Majority: log n, swapped in, answers 90 % among 262,144",
        {"majority softmax": 1},
        more=0.9,
        path=at_length("accuracy", 2**18, "logn"),
    ),
    *(
        Claim(
            "extreme",
            f"Majority: a constant of {c}, swapped in, answers less than log n among {n:,}",
            {"majority softmax": 1},
            more=0,
            path=at_length("accuracy", n, "logn"),
            minus=at_length("accuracy", n, f"constant {c}"),
        )
        for n, constants in ((64, GRID[4:]), (2**18, GRID[:4]))
        for c in constants
    ),
    Claim(
        "extreme",
        "Majority: 1 inside and 4 beyond answers less than log n among 262,144",
        {"majority softmax": 1},
        more=0,
        path=at_length("accuracy", 2**18, "logn"),
        minus=at_length("accuracy", 2**18, "constant 4.0"),
    ),
    *(
        Claim(
            "extreme",
            f"Majority: a constant of {c}, trained in, answers less than SSMax among 262,144",
            {"majority ssmax": 1, f"majority constant {c}": -1},
            more=0,
            path=at_length("accuracy", 2**18),
        )
        for c in ("1.78", "2.5", "4.0")
    ),
    Claim(
        "extreme",
        "Recall: a constant of 8 answers more than log n among 262,144",
        {"recall softmax": 1},
        more=0,
        path=at_length("accuracy", 2**18, "constant 8.0"),
        minus=at_length("accuracy", 2**18, "logn"),
    ),
)
