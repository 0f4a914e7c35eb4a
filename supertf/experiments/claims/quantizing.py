"""What is claimed about rounding weights and activations."""

from supertf.experiments.claims.contrasts import better

TILES, BIG, ROW = "int4 block=64x64", "int4 block=18432", "int4 block=channel"

CLAIMS = (
    better(
        "quantizing",
        "Big blocks, clipped: holding out the set is worth five times the perplexity",
        f"{BIG} clip=z9",
        f"{BIG} clip=z9, the set held out",
        more=5,
    ),
    better(
        "quantizing",
        "Big blocks, clipped: holding out as many random weights changes less than 5 %",
        f"{BIG} clip=z9, random weights held out",
        f"{BIG} clip=z9",
        more=1 / 1.05,
        less=1.05,
    ),
    better(
        "quantizing",
        "Big blocks, clipped: the set is worth more than the one weight",
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
        "Inputs in 8 bits: sparing as many random channels changes less than 1 %",
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
