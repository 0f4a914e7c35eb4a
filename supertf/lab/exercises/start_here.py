"""Exercises of notebook 00: a spike, its weight, and what it is worth."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise

Place = tuple[int, int, int]  # layer, output, input


def runner_up(costs: Mapping[Place, float]) -> Place:
    """The second of what is worth most, by what it is worth."""
    return sorted(costs, key=lambda place: -costs[place])[1]


def larger(weight: Tensor, row: int, column: int) -> int:
    """How many entries are larger in magnitude."""
    return int(torch.count_nonzero(weight.abs() > weight[row, column].abs()))


def perplexity(logits: Tensor, ids: Tensor) -> float:
    """Of a text: logits (T, V) of reading ids (T,)."""
    return math.exp(torch.nn.functional.cross_entropy(logits[:-1], ids[1:]).item())


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats of each target."""
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


GENERATOR = torch.Generator().manual_seed(0)
TEXTS = {
    "five tokens of three": (
        torch.randn(5, 3, generator=GENERATOR),
        torch.randint(3, (5,), generator=GENERATOR),
    ),
    "a model that knows nothing": (torch.zeros(4, 7), torch.tensor([1, 2, 3, 4])),
    "two tokens": (torch.tensor([[0.0, 3.0], [5.0, 0.0]]), torch.tensor([0, 1])),
}

EXERCISES = (
    Exercise(
        name="share of the output peak",
        minutes=3,
        difficulty=1,
        hint="One product of the sum, over the sum.",
        solution=lambda weight, given, output: weight * given / output,
        wrong={
            "That is the product itself; of which part of the output is it?": lambda w, x, y: w * x,
            "It is upside down: the part over the whole.": lambda w, x, y: y / (w * x),
            "That leaves the weight out: what arrives is the weight times the input.": lambda w, x, y: x / y,
            "That is the share of all the others: one minus it is asked for.": lambda w, x, y: 1 - w * x / y,
        },
    ),
    Exercise(
        name="the runner-up",
        minutes=6,
        difficulty=2,
        hint="Measure every candidate without its weight, and compare what that costs.",
        solution=runner_up,
        wrong={
            "That is the super weight itself; which one comes after it?": lambda costs: max(
                costs, key=costs.get
            ),
            "That is the second tallest spike. How tall it is does not say what it is worth: measure.": (
                lambda costs: list(costs)[1]
            ),
            "That one costs least.": lambda costs: min(costs, key=costs.get),
        },
    ),
    Exercise(
        name="rank in its matrix",
        minutes=3,
        difficulty=1,
        hint="Compare magnitudes over the whole matrix, and count.",
        solution=larger,
        wrong={
            "You compared signed values: a large negative entry is large, too.": lambda w, row, column: int(
                (w > w[row, column]).sum()
            ),
            "The candidate is not larger than itself.": lambda w, row, column: int(
                (w.abs() >= w[row, column].abs()).sum()
            ),
            "You compared within its row, not within the whole matrix.": lambda w, row, column: int(
                (w[row].abs() > w[row, column].abs()).sum()
            ),
            "You compared within its column, not within the whole matrix.": lambda w, row, column: int(
                (w[:, column].abs() > w[row, column].abs()).sum()
            ),
        },
    ),
    Exercise(
        name="perplexity by hand",
        minutes=12,
        difficulty=2,
        hint="The mean of the nats of all tokens but the first, and then its exponential.",
        solution=perplexity,
        wrong={
            "The logits at a token are about the next one: you asked them about the token itself.": (
                lambda logits, ids: math.exp(losses(logits, ids).mean())
            ),
            "That is the mean loss in nats; perplexity is its exponential.": (
                lambda logits, ids: losses(logits[:-1], ids[1:]).mean()
            ),
            "You averaged each token's perplexity; average the nats, then take the exponential.": (
                lambda logits, ids: losses(logits[:-1], ids[1:]).exp().mean()
            ),
            "There is one prediction fewer than tokens: divide by that.": (
                lambda logits, ids: math.exp(losses(logits[:-1], ids[1:]).sum() / len(ids))
            ),
            "That is for losses in bits: of natural logarithms the exponential is e to the power.": (
                lambda logits, ids: 2 ** losses(logits[:-1], ids[1:]).mean().item()
            ),
        },
        cases=TEXTS,
    ),
)
