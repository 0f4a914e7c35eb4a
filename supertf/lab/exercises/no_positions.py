"""Exercises of notebook 03: sets, means, and the clock that the mask leaks."""

import itertools
import math

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise


def bags(V: int, T: int) -> int:
    """Counted one by one: last token and sorted rest."""
    return len({(one[-1], tuple(sorted(one[:-1]))) for one in itertools.product(range(V), repeat=T)})


def prefix_means(v: Tensor) -> Tensor:
    """Row i is the mean of rows 0 to i."""
    return torch.stack([v[: i + 1].mean(0) for i in range(len(v))])


GENERATOR = torch.Generator().manual_seed(3)
BITS = {
    "ones first": (torch.tensor([1.0, 1, 0, 0]),),
    "ones last": (torch.tensor([0.0, 0, 1, 1]),),
    "one token": (torch.tensor([1.0]),),
    "mixed": (torch.tensor([0.0, 1, 1, 0, 1, 0, 0]),),
}

EXERCISES = (
    Exercise(
        name="what one layer tells apart",
        minutes=10,
        difficulty=2,
        hint="V choices of the last token, times the number of bags of T - 1 letters: stars and bars.",
        solution=bags,
        wrong={
            "That counts sequences; one layer does not see in which order the letters came.": (
                lambda V, T: V**T
            ),
            "That counts bags of all T letters; the last token is told apart by itself.": (
                lambda V, T: math.comb(T + V - 1, V - 1)
            ),
            "Those are the bags before the last token; it has V choices of its own.": (
                lambda V, T: math.comb(T + V - 2, V - 1)
            ),
            "A letter may occur several times: these are not sets.": lambda V, T: V * math.comb(V, T - 1),
        },
        cases={"V = 2, T = 5": (2, 5), "V = 3, T = 4": (3, 4), "one token": (4, 1), "one letter": (1, 6)},
    ),
    Exercise(
        name="prefix means",
        minutes=5,
        difficulty=1,
        hint="A cumulative sum, and how many rows it holds.",
        solution=prefix_means,
        wrong={
            "That is the mean of all rows: row i sees rows 0 to i.": lambda v: v.mean(0).expand_as(v),
            "Row i sees i + 1 rows, itself included: divide by that.": (
                lambda v: v.cumsum(0) / torch.arange(len(v))[:, None]
            ),
            "Those are sums; uniform attention weighs each of n rows with 1 / n.": lambda v: v.cumsum(0),
            "Every sum is divided by T; row i has i + 1 summands.": lambda v: v.cumsum(0) / len(v),
            "The mean is over rows, not over channels.": (
                lambda v: v.cumsum(1) / torch.arange(1, v.shape[1] + 1)
            ),
        },
        cases={
            "twelve rows": (torch.randn(12, 3, generator=GENERATOR),),
            "one row": (torch.randn(1, 4, generator=GENERATOR),),
            "whole numbers": (torch.tensor([[2.0], [4.0], [9.0]]),),
        },
    ),
    Exercise(
        name="the weight of BOS",
        minutes=4,
        difficulty=1,
        hint="A softmax over one logit `gap` and m logits 0.",
        solution=lambda m, gap: torch.tensor([gap, *[0.0] * m]).softmax(0)[0].item(),
        wrong={
            "A softmax is of exponentials: e to the gap, against m times e to the 0.": (
                lambda m, gap: (1 + gap) / (1 + gap + m)
            ),
            "BOS is in the sum, too.": lambda m, gap: math.exp(gap) / max(m, 1e-9),
            "That is for no gap at all.": lambda m, gap: 1 / (m + 1),
            "That is what is left for the letters.": lambda m, gap: m / (math.exp(gap) + m),
        },
        cases={"no gap": (3, 0.0), "a gap of 2": (7, 2.0), "below the letters": (4, -1.5), "alone": (0, 2.0)},
    ),
    Exercise(
        name="an order detector",
        minutes=15,
        difficulty=3,
        hint="The first layer gives each position the mean of what it sees; the second does that with these.",
        solution=lambda bits: prefix_means(prefix_means(bits[:, None]))[-1, 0],
        wrong={
            "That is the mean of all tokens: one layer, or a first layer without a mask. Order is lost.": (
                lambda bits: bits.mean()
            ),
            "Those are the states of all positions; the last one's is asked for.": (
                lambda bits: prefix_means(prefix_means(bits[:, None]))[:, 0]
            ),
            "That is the first layer at the last position but one; the second sees all positions.": (
                lambda bits: bits[:-1].mean()
            ),
            "Those are sums; attention that is uniform over n keys weighs each with 1 / n.": (
                lambda bits: bits.cumsum(0).sum()
            ),
        },
        cases=BITS,
    ),
)
