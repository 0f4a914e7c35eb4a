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
        "It is worth more than the 20 largest weights outside its row together",
        over(WEIGHT, "20 largest outside row 507"),
        more=1,
    ),
    Claim(
        "removals",
        "20 random weights of its matrix, in three draws, are worth less than 1 %",
        {**dict.fromkeys(DRAWS, 1 / 3), "nothing": -1},
        less=1.01,
    ),
    Claim("removals", "The weight of the second spike is worth less than 1 %", over(SECOND), less=1.01),
    *(
        Claim("removals", f"{weight}, of the same channel, is worth at least 1 %", over(weight), more=1.01)
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
        "The super weight and the second spike's weight do not, to within 10 %",
        excess(WEIGHT, SECOND, f"{WEIGHT} and {SECOND}"),
        more=1 / 1.1,
        less=1.1,
    ),
    Claim("removals", "A tenth of the weight is not enough", over(f"{WEIGHT} times 0.1"), more=1.5),
    Claim("removals", "Half of the weight nearly is", over(f"{WEIGHT} times 0.5"), less=1.5),
    Claim("removals", "Twice the weight reads a little better", over(f"{WEIGHT} times 2"), less=1),
    Claim("removals", "Three times the weight does no harm", over(f"{WEIGHT} times 3"), less=1.05),
    Claim(
        "removals",
        "Its one activation put back mends all of it, to within 1 %",
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
        "The weight's whole column is worth less than the weight",
        over("column 11[:, 1229]", WEIGHT),
        less=1,
    ),
    Claim("removals", "... and less than 15 %", over("column 11[:, 1229]"), less=1.15),
    Claim(
        "removals",
        "The column but for the weight is worth less than 2 %",
        over("column 11[:, 1229] but for the weight"),
        less=1.02,
    ),
    Claim(
        "removals",
        "20 random columns of the matrix are worth less than 2 %",
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
        "Without the second spike's weight fewer than one in twenty are",
        over(SECOND),
        more=-0.05,
        path=("last_words",),
    ),
    Claim(
        "removals",
        "Without the 20 largest outside the row fewer than one in ten are",
        over("20 largest outside row 507"),
        more=-0.1,
        path=("last_words",),
    ),
)


def better(experiment: str, sentence: str, first: str, second: str, **bounds: float) -> Claim:
    """That the first costs less than the second; `bounds` in place of less=1."""
    return Claim(experiment, sentence, over(first, second), **(bounds or {"less": 1}))


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
    better("pruning", "... and less than with SparseGPT", "inputs 50%", "sparsegpt 50%"),
    better(
        "pruning",
        "Of all matrices, 70 % of the inputs cost more than 70 % of the weights (Wanda)",
        "inputs 70%",
        "wanda 70%",
        more=1,
    ),
    better("pruning", "... and more than with SparseGPT", "inputs 70%", "sparsegpt 70%", more=1),
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
        "... and so does protecting four random ones",
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
    better("pruning", "... less than by chance", "channels 20%", "channels at random 20%"),
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
        "With half of the inputs of mlp.c_proj fewer than one in twenty are lost",
        over("inputs of mlp.c_proj 50%"),
        more=-0.05,
        path=("last_words",),
    ),
)
REPAIRING = (
    better("repairing", "A fifth of the channels costs more than 10 %", "channels", "nothing", more=1.1),
    better("repairing", "Training wins some of it back", "channels, trained", "channels"),
    better(
        "repairing", "So does training with the dense model for a teacher", "channels, taught", "channels"
    ),
    better("repairing", "So does fitting anew", "channels, refitted", "channels"),
    better(
        "repairing",
        "Fitting anew wins back more than training, on the same tokens",
        "channels, refitted",
        "channels, trained",
    ),
    better(
        "repairing",
        "Six times the tokens are better to fit on",
        "channels, refitted on six times",
        "channels, refitted",
    ),
    better(
        "repairing",
        "A third of the tokens is worse",
        "channels, refitted on a third",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing",
        "A dense model, trained alike, stays ahead by 5 %",
        "channels, trained",
        "nothing, trained",
        more=1.05,
    ),
    better(
        "repairing",
        "Trained on one domain, it wins back less than on three, of as many tokens",
        "channels, trained on library-docs",
        "channels, trained",
        more=1,
    ),
    better(
        "repairing",
        "Fitted on one domain, it wins back less than on three, of as many tokens",
        "channels, refitted on library-docs",
        "channels, refitted",
        more=1,
    ),
    better(
        "repairing", "Fitting anew wins back some of what dropped inputs cost", "inputs, refitted", "inputs"
    ),
    better(
        "repairing",
        "Six times the tokens leave less than 2 %",
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
        "So does the dense one",
        "nothing, trained, without the weight",
        "nothing, trained",
        more=2,
    ),
    Claim(
        "repairing",
        "The pruned model needs it less after training than before",
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
        "So does the dense one, and so it is the training",
        excess("nothing, without the weight", "nothing, trained", "nothing, trained, without the weight"),
        less=1,
    ),
)
TILES, BIG, ROW = "int4 block=64x64", "int4 block=18432", "int4 block=channel"
QUANTIZING = (
    better(
        "quantizing",
        "Big blocks, clipped: holding out the set is worth five times the perplexity",
        f"{BIG} clip=z9",
        f"{BIG} clip=z9, the set held out",
        more=5,
    ),
    better(
        "quantizing",
        "... as many random weights are worth less than 5 %",
        f"{BIG} clip=z9, random weights held out",
        f"{BIG} clip=z9",
        more=1 / 1.05,
        less=1.05,
    ),
    better(
        "quantizing",
        "... and the set is worth more than the one weight",
        f"{BIG} clip=z9, the set held out",
        f"{BIG} clip=z9, the weight held out",
    ),
    better(
        "quantizing",
        "Rows, clipped: the set is worth 10 %",
        f"{ROW} clip=z9",
        f"{ROW} clip=z9, the set held out",
        more=1.1,
    ),
    better(
        "quantizing",
        "Rows, not clipped: holding out the set changes less than 5 %",
        f"{ROW}, the set held out",
        ROW,
        more=1 / 1.05,
        less=1.05,
    ),
    better(
        "quantizing",
        "Blocks of 64: holding out the set changes less than 2 %",
        "int4 block=64, the set held out",
        "int4 block=64",
        more=1 / 1.02,
        less=1.02,
    ),
    better(
        "quantizing",
        "Tiles, not clipped: holding out the set is worth twice the perplexity",
        TILES,
        f"{TILES}, the set held out",
        more=2,
    ),
    *(
        better(
            "quantizing",
            f"Clipping and holding out beats doing neither: {name}",
            f"int4 block={name} clip=z9, the set held out",
            f"int4 block={name}",
        )
        for name in ("16384", "18432", "64x64")
    ),
    *(
        better(
            "quantizing",
            f"Clipping and holding out loses to doing neither: {name}",
            f"int4 block={name} clip=z9, the set held out",
            f"int4 block={name}",
            more=1,
        )
        for name in ("channel", "4096")
    ),
    *(
        better(
            "quantizing",
            f"A z that was tuned beats z = 9: {name}",
            f"int4 block={name} clip=tuned z, the set held out",
            f"int4 block={name} clip=z9, the set held out",
        )
        for name in ("channel", "16384", "18432")
    ),
    better(
        "quantizing",
        "Rows: with a tuned z, clipping and holding out beats doing neither",
        f"{ROW} clip=tuned z, the set held out",
        ROW,
    ),
    better(
        "quantizing",
        "Tiles: holding out without a clip is better still",
        f"{TILES}, the set held out",
        f"{TILES} clip=z9, the set held out",
    ),
    *(
        better(
            "quantizing",
            f"A clip chosen by the output, nothing held out, beats the recipe: {name}",
            f"int4 block={name} clip=output",
            f"int4 block={name} clip=z9, the set held out",
        )
        for name in ("channel", "18432")
    ),
    *(
        better(
            "quantizing",
            f"The clip of least error is worse than none: {name}",
            f"int4 block={name} clip=error",
            f"int4 block={name}",
            more=1,
        )
        for name in ("channel", "18432")
    ),
    *(
        better(
            "quantizing",
            f"Holding out the column helps: {name}",
            f"int4 block={name}, the column held out",
            f"int4 block={name}",
        )
        for name in ("channel", "4096", "18432", "64x64")
    ),
    *(
        better(
            "quantizing",
            f"A random column changes less than 2 %: {name}",
            f"int4 block={name}, a random column held out",
            f"int4 block={name}",
            more=1 / 1.02,
            less=1.02,
        )
        for name in ("channel", "64x64")
    ),
    better(
        "quantizing",
        "Tiles: the column is worth more than the weight",
        f"{TILES}, the column held out",
        f"{TILES}, the weight held out",
    ),
    better(
        "quantizing", "Tiles cost three times what rows of the same size do", TILES, "int4 block=4096", more=3
    ),
    better("quantizing", "Inputs in 8 bits: sparing the set's channels helps", "A8, the set spared", "A8"),
    better(
        "quantizing",
        "... as many random channels do not, to within 1 %",
        "A8, random channels spared",
        "A8",
        more=1 / 1.01,
        less=1.01,
    ),
    better(
        "quantizing",
        "Weights and inputs in 8 bits: sparing the set's channels helps",
        "W8A8, the set spared",
        "W8A8",
    ),
)


def at_length(name: str, n: int, *swap: str) -> tuple[str | int, ...]:
    """Where a score at a length is, of the trained model or of a swap of it."""
    return (*(("swaps", *swap) if swap else ()), name, n)


LOSS, FAR = ("validation_loss",), ("beyond", 512, "last_half")
LANGUAGE = (
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
            **bound,
        )
        for n in (128, 512)
        for code, does, bound in (("none", "gains", {"less": 0}), ("rope", "loses", {"more": 0}))
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
        "After two layers it is (R² above .8)",
        {"softmax none": 1},
        more=0.8,
        path=("probe", 2, "r2"),
    ),
)
RECALL = (
    Claim(
        "recall",
        "Without positions SSMax finds 95 % at 32 times the trained length",
        {"ssmax none": 1},
        more=0.95,
        path=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "... a tenth more than softmax",
        {"ssmax none": 1, "softmax none": -1},
        more=0.1,
        path=at_length("accuracy", 2048),
    ),
    Claim(
        "recall",
        "Log n swapped into the softmax model does, too",
        {"softmax none": 1},
        more=0.95,
        path=at_length("accuracy", 2048, "logn"),
    ),
    Claim(
        "recall",
        "... and a constant is as good, to within .02",
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
GRID = ("1.4", "1.78", "2.0", "2.25", "2.5", "2.75", "3.0", "3.5", "4.0", "5.0", "6.5", "8.0")
EXTREME = (
    Claim(
        "extreme",
        "Majority: log n, swapped in, answers 90 % among 64",
        {"majority softmax": 1},
        more=0.9,
        path=at_length("accuracy", 64, "logn"),
    ),
    Claim(
        "extreme",
        "... and among 262,144",
        {"majority softmax": 1},
        more=0.9,
        path=at_length("accuracy", 2**18, "logn"),
    ),
    *(
        Claim(
            "extreme",
            f"Majority: a constant of {c}, swapped in, answers less than log n among 64",
            {"majority softmax": 1},
            more=0,
            path=at_length("accuracy", 64, "logn"),
            minus=at_length("accuracy", 64, f"constant {c}"),
        )
        for c in GRID[4:]
    ),
    *(
        Claim(
            "extreme",
            f"Majority: a constant of {c}, swapped in, answers less than log n among 262,144",
            {"majority softmax": 1},
            more=0,
            path=at_length("accuracy", 2**18, "logn"),
            minus=at_length("accuracy", 2**18, f"constant {c}"),
        )
        for c in GRID[:4]
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
SLOPE = ("fits", "log n", "a")
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
            f"... more closely than on a {curve}",
            {"majority": 1},
            more=0,
            path=("fits", "log n", "r2"),
            minus=("fits", curve, "r2"),
        )
        for curve in ("power of n", "square root of n", "linear in n")
    ),
    Claim(
        "free_scale",
        "Recall: they do not (R² below .8)",
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
            f"The slope is larger with n^{a} voters than with n^{b}",
            {f"n^{a} voters": 1, f"n^{b} voters": -1},
            more=0,
            path=("slope_gap",),
        )
        for a, b in ((0.35, 0.5), (0.5, 0.65))
    ),
)
GROWTH = (
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
CLAIMS = {
    "free_scale": FREE_SCALE,
    "recall": RECALL,
    "extreme": EXTREME,
    "language": LANGUAGE,
    "removals": REMOVALS,
    "growth": GROWTH,
    "pruning": PRUNING,
    "repairing": REPAIRING,
    "quantizing": QUANTIZING,
}
HEAD = """# What the lab claims

Written by `supertf experiment claims --output CLAIMS.md` from the recorded results: do not edit it. Every
claim was written down, in `supertf/experiments/claims.py`, before the run that judges it. "Holds" and
"fails": the mean lies on that side of the bound, with a p-value below .05 that is corrected for all claims
about the experiment (Holm 1979); else it is open."""


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
