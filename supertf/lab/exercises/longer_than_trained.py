"""Exercises of notebook 04: constants sized for a length, differences over seeds, entropy, rotations."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from supertf.analysis import paired_difference
from supertf.lab.exercises.checking import Exercise


def entropies(weights: Tensor) -> Tensor:
    """H / log n of each row of a causal (T, T) map, n keys seen; 0 where n is 1."""
    found = torch.special.entr(weights).sum(1)
    n = torch.arange(1, len(weights) + 1, dtype=weights.dtype)
    return torch.where(n > 1, found / n.log().clamp(min=1e-9), torch.zeros_like(found))


def apart(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two groups differ as if they had nothing to do with each other (Welch, with a t of 3)."""
    spread = math.sqrt((statistics.variance(a) + statistics.variance(b)) / len(a))
    return abs(statistics.fmean(a) - statistics.fmean(b)) > 3 * spread


def angles(position: int, D: int, base: float) -> list[float]:
    """By how much RoPE turns each of D / 2 pairs."""
    return [position / base ** (2 * i / D) for i in range(D // 2)]


GENERATOR = torch.Generator().manual_seed(4)
MAPS = {
    "a trained head's": (
        torch.randn(6, 6, generator=GENERATOR)
        .masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
        .softmax(1),
    ),
    "uniform": (torch.ones(4, 4).tril() / torch.arange(1, 5)[:, None],),
    "all on the first": (torch.eye(5)[:1].expand(5, 5).clone(),),
    "one token": (torch.ones(1, 1),),
}

EXERCISES = (
    Exercise(
        name="size a constant",
        minutes=3,
        difficulty=1,
        hint="Log n, in units of log L.",
        solution=lambda n, L: math.log(n, L),
        wrong={
            "The factor grows with the logarithm of the length, not with the length.": lambda n, L: n / L,
            "That is the logarithm of the ratio; the ratio of the logarithms is asked for.": (
                lambda n, L: math.log(n / L)
            ),
            "At the trained length the factor is 1: divide by log L.": lambda n, L: math.log(n),
            "Upside down: beyond the trained length the factor is more than 1.": lambda n, L: math.log(L, n),
        },
        cases={"262,152 after 72": (262_152, 72), "the trained length": (72, 72), "twice": (128, 64)},
    ),
    Exercise(
        name="a difference, or not",
        minutes=6,
        difficulty=2,
        hint="Seeds that are lucky are lucky for both models: subtract seed by seed first.",
        solution=lambda a, b: bool(paired_difference(a, b).excludes_zero),
        wrong={
            "You compared the groups as if they were of different seeds; they are paired.": apart,
            "Means always differ: the question is whether they differ by more than the seeds do.": (
                lambda a, b: statistics.fmean(a) != statistics.fmean(b)
            ),
            "That one lies above the other on every seed is not the 95 % level.": (
                lambda a, b: (
                    all(x > y for x, y in zip(a, b, strict=True))
                    or all(x < y for x, y in zip(a, b, strict=True))
                )
            ),
            "The other way round: True where they differ.": (
                lambda a, b: not paired_difference(a, b).excludes_zero
            ),
        },
        cases={
            "a small gain on every seed": ([1.0, 2.0, 3.0], [0.5, 1.4, 2.5]),
            "now this way, now that": ([1.0, 2.0, 3.0], [2.0, 1.0, 3.5]),
            "once by much": ([1.0, 2.0, 3.0], [0.9, 1.9, 0.0]),
            "far apart": ([1.0, 1.1, 1.2], [5.0, 5.2, 5.1]),
        },
    ),
    Exercise(
        name="dilution by hand",
        minutes=5,
        difficulty=1,
        hint="Divide numerator and denominator by the needle's exponential.",
        solution=lambda n, factor: (
            torch.tensor([7.0 * factor, *[0.0] * (n - 1)], dtype=torch.float64).softmax(0)[0].item()
        ),
        wrong={
            "The needle is one of the n: it has n - 1 rivals.": (lambda n, f: 1 / (1 + n * math.exp(-7 * f))),
            "The factor multiplies the logits, so it stands in the exponent.": (
                lambda n, f: f / (f + (n - 1) * math.exp(-7))
            ),
            "Where is the factor?": lambda n, f: 1 / (1 + (n - 1) * math.exp(-7)),
            "The needle is in the sum, too.": lambda n, f: math.exp(7 * f) / max(n - 1, 1e-9),
        },
        cases={"72 keys": (72, 1.0), "2,056 keys": (2056, 1.0), "sharpened": (2056, 1.78), "alone": (1, 1.0)},
    ),
    Exercise(
        name="entropy, held against its ceiling",
        minutes=12,
        difficulty=2,
        hint="-p log p is 0 where p is 0, and row i has i + 1 keys; a row with one key has entropy 0.",
        solution=entropies,
        wrong={
            "0 times log 0 is not a number: `torch.special.entr` knows that it is 0.": (
                lambda w: -(w * w.log()).sum(1) / torch.arange(1, len(w) + 1).log()
            ),
            "Each row has its own ceiling: the log of what it sees, not of T.": (
                lambda w: torch.special.entr(w).sum(1) / math.log(max(len(w), 2))
            ),
            "That is the entropy itself; divide each row by its ceiling.": (
                lambda w: torch.special.entr(w).sum(1)
            ),
            "The first row's ceiling is log 1 = 0: say what its entropy is.": (
                lambda w: torch.special.entr(w).sum(1) / torch.arange(1, len(w) + 1).log()
            ),
            "The rows are queries: sum over keys, the last axis.": (
                lambda w: torch.special.entr(w).sum(0) / torch.arange(1, len(w) + 1).log().clamp(min=1e-9)
            ),
        },
        cases=MAPS,
    ),
    Exercise(
        name="slower rotations",
        minutes=10,
        difficulty=3,
        hint="Pair i turns by position / base^(2i/D). What of that does a larger base change?",
        solution=angles,
        wrong={
            "The exponent is 2 i / D: the last pair turns slowest, by about 1 / base.": (
                lambda p, D, base: [p / base ** (i / D) for i in range(D // 2)]
            ),
            "There is a pair for every two channels.": (
                lambda p, D, base: [p / base ** (2 * i / D) for i in range(D)]
            ),
            "It divides: a larger base turns more slowly.": (
                lambda p, D, base: [p * base ** (2 * i / D) for i in range(D // 2)]
            ),
            "Pairs are counted from 0: the first turns by the position itself.": (
                lambda p, D, base: [p / base ** (2 * i / D) for i in range(1, D // 2 + 1)]
            ),
        },
        cases={"the usual base": (5, 8, 10_000.0), "slowed": (16, 4, 400_000.0), "position 0": (0, 6, 100.0)},
    ),
)
