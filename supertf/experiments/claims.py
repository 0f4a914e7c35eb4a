"""What the lab claims: hypotheses, each written down before the run that judges it.

`supertf experiment claims` says what the recorded results make of them, and writes the page that lists all.
"""

from supertf.errors import UserError
from supertf.experiments.removals import ROW_507, WEIGHT
from supertf.experiments.sweep.judging import Claim, Judgement, judge
from supertf.experiments.sweep.results import recorded


def over(variant: str, base: str = "nothing") -> dict[str, float]:
    """How many times the perplexity of another variant."""
    return {variant: 1, base: -1}


def excess(first: str, second: str, both: str, base: str = "nothing") -> dict[str, float]:
    """How many times more two changes cost together than the product of what each costs."""
    return {both: 1, first: -1, second: -1, base: 1}


SECOND = "28[507, 678]"  # whose spike is nearly as large
DRAWS = [f"20 random of layer 11, draw {draw}" for draw in range(3)]
REMOVALS = (
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


def better(
    experiment: str,
    sentence: str,
    first: str,
    second: str,
    *,
    more: float | None = None,
    less: float | None = None,
) -> Claim:
    """That the first costs so many times the perplexity of the second; less than it, without bounds."""
    if more is None and less is None:
        less = 1
    return Claim(experiment, sentence, over(first, second), more=more, less=less)


PRUNING = (
    better("pruning", "Wanda costs less than magnitude at 30 %", "wanda 30%", "magnitude 30%"),
    better("pruning", "Wanda costs less than magnitude at 50 %", "wanda 50%", "magnitude 50%"),
    better("pruning", "SparseGPT costs less than Wanda at 50 %", "sparsegpt 50%", "wanda 50%"),
    better("pruning", "SparseGPT costs less than Wanda in the pattern 2:4", "sparsegpt 2:4", "wanda 2:4"),
    better("pruning", "A free choice of half costs less than 2:4, with Wanda", "wanda 50%", "wanda 2:4"),
    better("pruning", "Half by magnitude costs less than a tenth at random", "magnitude 50%", "random 10%"),
    better(
        "pruning",
        "Of all matrices, half of the inputs cost less than half of the weights (Wanda)",
        "inputs 50%",
        "wanda 50%",
    ),
    better(
        "pruning",
        "Of all matrices, half of the inputs cost less than half of the weights (SparseGPT)",
        "inputs 50%",
        "sparsegpt 50%",
    ),
    better(
        "pruning",
        "Of all matrices, 70 % of the inputs cost more than 70 % of the weights (Wanda)",
        "inputs 70%",
        "wanda 70%",
        more=1,
    ),
    better(
        "pruning",
        "Of all matrices, 70 % of the inputs cost more than 70 % of the weights (SparseGPT)",
        "inputs 70%",
        "sparsegpt 70%",
        more=1,
    ),
    better(
        "pruning",
        "Of mlp.c_proj alone, half of the inputs cost less than half of the weights (Wanda)",
        "inputs of mlp.c_proj 50%",
        "wanda of mlp.c_proj 50%",
    ),
    better(
        "pruning",
        "Of mlp.c_proj alone, half of the inputs cost less than half of the weights (SparseGPT)",
        "inputs of mlp.c_proj 50%",
        "sparsegpt of mlp.c_proj 50%",
    ),
    better(
        "pruning",
        "Of mlp.c_proj alone, 70 % of the inputs cost less than 70 % of the weights (Wanda)",
        "inputs of mlp.c_proj 70%",
        "wanda of mlp.c_proj 70%",
    ),
    better(
        "pruning",
        "Of mlp.c_proj alone, 70 % of the inputs cost less than 70 % of the weights (SparseGPT)",
        "inputs of mlp.c_proj 70%",
        "sparsegpt of mlp.c_proj 70%",
    ),
    better(
        "pruning",
        "Half of the inputs of mlp.c_proj are worth less than 5 %",
        "inputs of mlp.c_proj 50%",
        "nothing",
        less=1.05,
    ),
    better(
        "pruning",
        "The largest half of each token is as good as one threshold, to within 2 %",
        "top of mlp.c_proj 50%",
        "inputs of mlp.c_proj 50%",
        more=1 / 1.02,
        less=1.02,
    ),
    better("pruning", "Half of the gates are worth less than 40 %", "gate 50%", "nothing", less=1.4),
    better(
        "pruning",
        "Protecting the four changes what dropped inputs cost by less than 3 %",
        "inputs, the four protected, 50%",
        "inputs 50%",
        more=1 / 1.03,
        less=1.03,
    ),
    better(
        "pruning",
        "Protecting four random weights changes what dropped inputs cost by less than 3 %",
        "inputs, four random ones protected, 50%",
        "inputs 50%",
        more=1 / 1.03,
        less=1.03,
    ),
    better(
        "pruning",
        "If Wanda took the four, it would cost 20 times as much",
        "wanda, the four lost, 50%",
        "wanda 50%",
        more=20,
    ),
    better(
        "pruning",
        "If SparseGPT took the four, it would cost 20 times as much",
        "sparsegpt, the four lost, 50%",
        "sparsegpt 50%",
        more=20,
    ),
    better(
        "pruning",
        "A fifth of the channels, by activation, is worth less than 35 %",
        "channels 20%",
        "nothing",
        less=1.35,
    ),
    better(
        "pruning",
        "Channels chosen by activation cost less than by chance",
        "channels 20%",
        "channels at random 20%",
    ),
    better(
        "pruning",
        "Channels chosen by their weights' size cost more than by chance",
        "channels by magnitude 20%",
        "channels at random 20%",
        more=1,
    ),
    better(
        "pruning",
        "Keeping the four changes what channels at random cost by less than 5 %",
        "channels at random, the four protected, 20%",
        "channels at random 20%",
        more=1 / 1.05,
        less=1.05,
    ),
    better(
        "pruning",
        "Calibrated on one domain, Wanda costs more than on three",
        "wanda, calibrated on library-docs, 50%",
        "wanda 50%",
        more=1,
    ),
    Claim(
        "pruning",
        "Of all matrices, fewer last words are lost with half of the inputs than with half of the "
        "weights (Wanda)",
        over("inputs 50%", "wanda 50%"),
        more=0,
        path=("last_words",),
    ),
    Claim(
        "pruning",
        "With half of the inputs of mlp.c_proj fewer than one in twenty last words are lost",
        over("inputs of mlp.c_proj 50%"),
        more=-0.05,
        path=("last_words",),
    ),
)
REPAIRING = (
    better("repairing", "A fifth of the channels costs more than 10 %", "channels", "nothing", more=1.1),
    better(
        "repairing",
        "Training wins back some of what a fifth of the channels costs",
        "channels, trained",
        "channels",
    ),
    better(
        "repairing",
        "Training with the dense model for a teacher wins back some of what a fifth of the channels costs",
        "channels, taught",
        "channels",
    ),
    better(
        "repairing",
        "Fitting anew wins back some of what a fifth of the channels costs",
        "channels, refitted",
        "channels",
    ),
    better(
        "repairing",
        "Fitting anew wins back more than training, on the same tokens",
        "channels, refitted",
        "channels, trained",
    ),
    better(
        "repairing",
        "Fitted on six times the tokens, channels cost less",
        "channels, refitted on six times",
        "channels, refitted",
    ),
    better(
        "repairing",
        "Fitted on a third of the tokens, channels cost more",
        "channels, refitted on a third",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing",
        "A dense model, trained alike, stays ahead of the trained one by 5 %",
        "channels, trained",
        "nothing, trained",
        more=1.05,
    ),
    better(
        "repairing",
        "Trained on one domain, channels cost more than on three, of as many tokens",
        "channels, trained on library-docs",
        "channels, trained",
        more=1,
    ),
    better(
        "repairing",
        "Fitted on one domain, channels cost more than on three, of as many tokens",
        "channels, refitted on library-docs",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing", "Fitting anew wins back some of what dropped inputs cost", "inputs, refitted", "inputs"
    ),
    better(
        "repairing",
        "Fitted on six times the tokens, dropped inputs are worth less than 2 %",
        "inputs, refitted on six times",
        "nothing",
        less=1.02,
    ),
    better(
        "repairing",
        "After training, the pruned model still needs the super weight",
        "channels, trained, without the weight",
        "channels, trained",
        more=2,
    ),
    better(
        "repairing",
        "After training, the dense model still needs the super weight",
        "nothing, trained, without the weight",
        "nothing, trained",
        more=2,
    ),
    Claim(
        "repairing",
        "The pruned model needs the super weight less after training than before",
        excess(
            "channels, without the weight",
            "channels, trained",
            "channels, trained, without the weight",
            "channels",
        ),
        less=1,
    ),
    Claim(
        "repairing",
        "The dense model needs the super weight less after training than before",
        excess("nothing, without the weight", "nothing, trained", "nothing, trained, without the weight"),
        less=1,
    ),
)
FREE_SCALE = (
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
CLAIMS = {"free_scale": FREE_SCALE, "removals": REMOVALS, "pruning": PRUNING, "repairing": REPAIRING}
HEAD = """# What the lab claims

Written by `supertf experiment claims --output CLAIMS.md` from the recorded results: do not edit it. Every
claim was written down, in `supertf/experiments/claims.py`, before the run that judges it. "Holds" and
"fails": the mean lies on that side of the bound, with a p-value below .05 that is corrected for all claims
about the experiment (Holm 1979); else it is open.

That does not make every claim a prediction from nothing. Before those about removals were written, three of
their weights had been measured on twelve of the thirty texts, 256 tokens of each, and seven conditions had
been tried on the first window of three; the bounds are older, from another text. Those about pruning and
repairing come from earlier runs on Python's documentation, which is no text of these. Of those about
free_scale the first five come from an earlier run, the slopes from the derivation in notebook 02."""


def judged(experiment: str) -> Judgement:
    """What the recorded results of an experiment say of the claims about it.

    Raises:
        UserError: no claims are made about it, or it is not recorded.
    """
    if experiment not in CLAIMS:
        raise UserError(f"no claims are made about {experiment!r}; choose from {', '.join(CLAIMS)}")
    return judge(CLAIMS[experiment], recorded(experiment))


def page() -> str:
    """All claims and what became of them, in Markdown."""
    parts = [HEAD]
    for name in CLAIMS:
        found, results = judged(name), recorded(name)
        minutes, processor = results.meta["seconds"] / 60, results.meta["processor"]
        seeds = ", ".join(map(str, results.experiment.seeds))
        parts += [
            f"## {name}",
            results.experiment.question,
            f"`supertf experiment run {name}`: {len(results.cells)} cells, {minutes:.0f} minutes on "
            f"{processor}. Seeds: {seeds}. In the table: {found.caption()}.",
            markdown(found.columns(), found.cells()),
        ]
    return "\n\n".join(parts) + "\n"


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
