"""What is claimed about removed weights of the real model."""

from supertf.experiments.claims.contrasts import excess, over
from supertf.experiments.removals import ROW_507, WEIGHT
from supertf.experiments.sweep.judging import Claim

SECOND = "28[507, 678]"  # whose spike is nearly as large
DRAWS = [f"20 random of layer 11, draw {draw}" for draw in range(3)]
CLAIMS = (
    Claim("removals", "Without the super weight the perplexity at least doubles", over(WEIGHT), more=2),
    Claim(
        "removals",
        "The super weight is worth more than the 20 largest weights outside its row together",
        over(WEIGHT, "20 largest outside row 507"),
        more=1,
    ),
    Claim(
        "removals",
        "20 random weights of the super weight's matrix, in three draws, are worth less than 1 %",
        {**dict.fromkeys(DRAWS, 1 / 3), "nothing": -1},
        less=1.01,
    ),
    Claim("removals", "The weight of the second spike is worth less than 1 %", over(SECOND), less=1.01),
    *(
        Claim("removals", f"{weight}, of row 507, is worth at least 1 %", over(weight), more=1.01)
        for weight in ROW_507[2:]
    ),
    *(
        Claim(
            "removals",
            f"The super weight and {other} cost more together than the product of both alone",
            excess(WEIGHT, other, f"{WEIGHT} and {other}"),
            more=1,
        )
        for other in ("2[507, 430]", "9[507, 200]", "11[507, 1487]")
    ),
    Claim(
        "removals",
        "The super weight and the second spike's cost the product of both alone, to within 10 %",
        excess(WEIGHT, SECOND, f"{WEIGHT} and {SECOND}"),
        more=1 / 1.1,
        less=1.1,
    ),
    Claim(
        "removals",
        "With a tenth of the super weight the perplexity rises by more than half",
        over(f"{WEIGHT} times 0.1"),
        more=1.5,
    ),
    Claim(
        "removals",
        "With half of the super weight the perplexity rises by less than half",
        over(f"{WEIGHT} times 0.5"),
        less=1.5,
    ),
    Claim("removals", "Twice the super weight reads a little better", over(f"{WEIGHT} times 2"), less=1),
    Claim(
        "removals",
        "Three times the super weight is worth less than 5 %",
        over(f"{WEIGHT} times 3"),
        less=1.05,
    ),
    Claim(
        "removals",
        "The super weight's one activation put back mends all of it, to within 1 %",
        over(f"{WEIGHT}, its activation kept"),
        less=1.01,
    ),
    Claim(
        "removals",
        "Shrinking the first state as a whole costs less than 10 %",
        over("all of the state shrunk"),
        less=1.1,
    ),
    Claim(
        "removals",
        "The activation as high as ever, and all else enlarged, at least doubles the perplexity",
        over("all but the activation enlarged"),
        more=2,
    ),
    Claim(
        "removals",
        "The super weight's whole column is worth less than the weight",
        over("column 11[:, 1229]", WEIGHT),
        less=1,
    ),
    Claim(
        "removals",
        "The super weight's whole column is worth less than 15 %",
        over("column 11[:, 1229]"),
        less=1.15,
    ),
    Claim(
        "removals",
        "The column but for the super weight is worth less than 2 %",
        over("column 11[:, 1229] but for the weight"),
        less=1.02,
    ),
    Claim(
        "removals",
        "20 random columns of the super weight's matrix are worth less than 2 %",
        over("20 random columns of layer 11"),
        less=1.02,
    ),
    Claim(
        "removals",
        "Without the super weight at least a third of the last words are lost",
        over(WEIGHT),
        less=-0.333,
        path=("last_words",),
    ),
    Claim(
        "removals",
        "Without the second spike's weight fewer than one in twenty last words are lost",
        over(SECOND),
        more=-0.05,
        path=("last_words",),
    ),
    Claim(
        "removals",
        "Without the 20 largest outside the row fewer than one in ten last words are lost",
        over("20 largest outside row 507"),
        more=-0.1,
        path=("last_words",),
    ),
)
