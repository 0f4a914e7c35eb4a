"""Exercises of notebook 10: equal micro-batches, hours on a card, where a training goes on, two changes."""

import math
from collections.abc import Sequence
from statistics import fmean

from supertf.lab.exercises.checking import Exercise


def equal_parts(windows: int, fits: int) -> int:
    """The smallest number of equal micro-batches that fit."""
    return next(n for n in range(1, windows + 1) if windows % n == 0 and windows // n <= fits)


def effects(
    plain: Sequence[float], first: Sequence[float], second: Sequence[float], both: Sequence[float]
) -> tuple[float, float, float]:
    """What either of two changes does, averaged over the other, and by how much they depend on each other."""
    a, b, c, d = map(fmean, (plain, first, second, both))
    return (b + d - a - c) / 2, (c + d - a - b) / 2, d - c - b + a


EXERCISES = (
    Exercise(
        name="the same step on a smaller card",
        minutes=8,
        difficulty=2,
        hint="Try 1, 2, 3, ... until the number divides the windows and each part fits.",
        solution=equal_parts,
        wrong={
            "They are to be equal: so many do not divide the windows evenly.": (
                lambda windows, fits: math.ceil(windows / fits)
            ),
            "Rounded down, a micro-batch is larger than what fits.": (
                lambda windows, fits: max(1, windows // fits)
            ),
            "That is how many windows a micro-batch has; their number is asked for.": (
                lambda windows, fits: windows // equal_parts(windows, fits)
            ),
            "One window at a time always fits, and is slow: the smallest number is asked for.": (
                lambda windows, fits: windows
            ),
        },
        cases={"32, 18 fit": (32, 18), "all fit": (8, 20), "10, 4 fit": (10, 4), "a prime": (7, 3)},
    ),
    Exercise(
        name="hours on a card",
        minutes=5,
        difficulty=1,
        hint="Six FLOPs per parameter and token, over what the device does in an hour.",
        solution=lambda parameters, tokens, rate, share: 6 * parameters * tokens / (rate * share * 3600),
        wrong={
            "That is the forward pass; the backward pass takes twice as much on top.": (
                lambda n, tokens, rate, share: 2 * n * tokens / (rate * share * 3600)
            ),
            "Those are seconds.": lambda n, tokens, rate, share: 6 * n * tokens / (rate * share),
            "A device that reaches a share of its rate takes longer, not less long.": (
                lambda n, tokens, rate, share: 6 * n * tokens * share / (rate * 3600)
            ),
            "Where is the share? No training reaches all of the rate.": (
                lambda n, tokens, rate, share: 6 * n * tokens / (rate * 3600)
            ),
        },
        cases={
            "GPT-2 small, T4": (124e6, 2.4e9, 65e12, 0.3),
            "all of an H100": (1e9, 1e9, 989e12, 1.0),
            "a processor": (2e5, 4e5, 1e11, 0.1),
        },
    ),
    Exercise(
        name="where to go on",
        minutes=6,
        difficulty=2,
        hint="How many windows have all processes read together? `divmod` does the rest.",
        solution=lambda step, batch, accumulation, processes, windows: divmod(
            step * batch * accumulation * processes, windows
        ),
        wrong={
            "A step reads its micro-batch as often as it accumulates, in every process.": (
                lambda step, batch, accumulation, processes, windows: divmod(step * batch, windows)
            ),
            "All processes read: count their windows too.": (
                lambda step, batch, accumulation, processes, windows: divmod(
                    step * batch * accumulation, windows
                )
            ),
            "Epochs are counted from 0: the first is number 0.": (
                lambda step, batch, accumulation, processes, windows: (
                    step * batch * accumulation * processes // windows + 1,
                    step * batch * accumulation * processes % windows,
                )
            ),
            "The first number is the epoch, the second the window in it.": (
                lambda step, batch, accumulation, processes, windows: divmod(
                    step * batch * accumulation * processes, windows
                )[::-1]
            ),
        },
        cases={
            "two processes, second epoch": (10, 4, 2, 2, 100),
            "the beginning": (0, 8, 1, 1, 50),
            "an epoch to its end": (5, 10, 1, 2, 100),
        },
    ),
    Exercise(
        name="three effects of two changes",
        minutes=15,
        difficulty=3,
        hint="What the first change does to models without the second, and to models with it: two numbers. "
        "Their mean is the main effect, their difference (with minus without) the interaction.",
        solution=effects,
        wrong={
            "The first two are averages over the other change: you measured them without it.": (
                lambda plain, first, second, both: (
                    fmean(first) - fmean(plain),
                    fmean(second) - fmean(plain),
                    effects(plain, first, second, both)[2],
                )
            ),
            "That is each change on top of the other; average with what it does alone.": (
                lambda plain, first, second, both: (
                    fmean(both) - fmean(second),
                    fmean(both) - fmean(first),
                    effects(plain, first, second, both)[2],
                )
            ),
            "The interaction is what is left when both changes alone are added up.": (
                lambda plain, first, second, both: (
                    *effects(plain, first, second, both)[:2],
                    fmean(both) - fmean(plain),
                )
            ),
            "Add up both halves, then halve: a main effect is a mean of two differences.": (
                lambda plain, first, second, both: (
                    2 * effects(plain, first, second, both)[0],
                    2 * effects(plain, first, second, both)[1],
                    effects(plain, first, second, both)[2],
                )
            ),
            "The other way round: a change that lowers the loss has a negative effect.": (
                lambda plain, first, second, both: tuple(-x for x in effects(plain, first, second, both))
            ),
        },
        cases={
            "only the second matters": ([2.0, 2.2], [2.1, 2.2], [2.6, 2.7], [2.6, 2.8]),
            "good together": ([2.0, 2.0], [1.9, 2.1], [1.8, 2.0], [1.2, 1.1]),
            "each undoes the other": ([1.0, 1.0], [1.5, 1.7], [1.4, 1.6], [1.0, 1.2]),
        },
    ),
)
