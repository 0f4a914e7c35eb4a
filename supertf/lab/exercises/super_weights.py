"""Exercises of notebook 05: find a super weight, and prove one."""

import math
from typing import Any

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise

Found = tuple[int, int, int, float]  # token, out, in and share


def carrier(x: Tensor, y: Tensor, W: Tensor, *, token: int | None = None) -> Found:
    """The weight that adds most to the largest output: x (T, in), y (T, out), W (out, in)."""
    peak, out = divmod(int(y.abs().argmax()), y.shape[1])
    parts = x[peak if token is None else token] * W[out]
    into = int((parts * y[peak, out].sign()).argmax())
    return peak, out, into, (parts[into] / y[peak, out]).item()


def signed(x: Tensor, y: Tensor, W: Tensor) -> Found:
    """The same of the largest output by its value, not by its magnitude."""
    peak, out = divmod(int(y.argmax()), y.shape[1])
    parts = x[peak] * W[out]
    return peak, out, int(parts.argmax()), (parts.max() / y[peak, out]).item()


def by_input(x: Tensor, y: Tensor, W: Tensor) -> Found:
    """The same with the loudest input in place of the largest product."""
    peak, out, _, _ = carrier(x, y, W)
    into = int(x[peak].abs().argmax())
    return peak, out, into, (x[peak, into] * W[out, into] / y[peak, out]).item()


def verdict(candidate: float, random: float, largest: float) -> str:
    """The rule of the notebook."""
    if candidate <= max(random, largest) or candidate < 1.01:
        return "inert"
    return "super" if candidate >= 2 else "harmful"


def written(x: Tensor, W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What a layer with these weights makes of x."""
    return x, x @ W.T, W


def swapped(found: Found) -> Any:
    """With the two channels in each other's place."""
    token, out, into, share = found
    return token, into, out, share


GENERATOR = torch.Generator().manual_seed(5)
LOUD = torch.randn(6, 5, generator=GENERATOR)
LOUD[2, 3] = -40.0  # the input that fires, at the third token
BOLD = torch.randn(4, 5, generator=GENERATOR)
BOLD[1, 3] = 6.0
TWO = torch.tensor([[9.0, 1.0, 4.0], [0.5, 0.5, 0.5]])
STRONG = torch.tensor([[0.1, 0.2, 3.0], [0.3, -0.2, 0.1]])
LAYERS = {
    "one that fires": written(LOUD, BOLD),
    "the loudest input is not it": written(TWO, STRONG),
    "a single token": written(-TWO[:1], STRONG),
}

EXERCISES = (
    Exercise(
        name="the planted weight",
        minutes=6,
        difficulty=2,
        hint="find_spikes has a Spike for each layer; which of them stands out by its ratio?",
        solution=lambda secret: secret,
        wrong={
            "Transposed: the output channel, the row, comes before the input channel.": (
                lambda secret: (secret[0], secret[2], secret[1])
            ),
            "Layers are counted from 0.": lambda secret: (secret[0] + 1, *secret[1:]),
            "That is the right weight, without its layer.": lambda secret: tuple(secret[1:]),
        },
    ),
    Exercise(
        name="the verdict",
        minutes=6,
        difficulty=1,
        hint="First the controls, then the thresholds: 2 for super, 1.01 for harmful.",
        solution=verdict,
        wrong={
            "Where are the controls? What random or large weights do as well is no property of this one.": (
                lambda one, random, largest: "super" if one >= 2 else "harmful" if one >= 1.01 else "inert"
            ),
            "It has to be worth more than both controls, not than one of them.": (
                lambda one, random, largest: verdict(one, min(random, largest), 0.0)
            ),
            "More than its controls is not enough: super is at least twice the perplexity.": (
                lambda one, random, largest: "inert" if one <= max(random, largest) or one < 1.01 else "super"
            ),
            "Twice the perplexity is super, as well: the threshold is 2, not beyond it.": (
                lambda one, random, largest: "harmful" if one == 2 else verdict(one, random, largest)
            ),
        },
        cases={
            "seven times": (7.0, 1.0, 1.06),
            "what the largest do, too": (3.0, 1.0, 3.4),
            "five per cent": (1.05, 1.0, 1.02),
            "less than one per cent": (1.006, 1.0, 1.001),
            "twice, exactly": (2.0, 1.0, 1.1),
            "what random ones do, too": (1.3, 1.4, 1.0),
            "what both do, too": (2.4, 2.5, 2.6),
        },
    ),
    Exercise(
        name="times the perplexity",
        minutes=8,
        difficulty=2,
        hint="The mean of the differences of the losses, and then its exponential.",
        solution=lambda with_it, without: math.exp(
            sum(b - a for a, b in zip(with_it, without, strict=True)) / len(with_it)
        ),
        wrong={
            "That is the ratio of the mean perplexities, in which the hardest text outvotes the others.": (
                lambda a, b: sum(map(math.exp, b)) / sum(map(math.exp, a))
            ),
            "You averaged the multiples; the mean of multiples is geometric: average their logarithms.": (
                lambda a, b: sum(math.exp(y - x) for x, y in zip(a, b, strict=True)) / len(a)
            ),
            "That is the mean difference in nats; as a multiple it is the exponential of that.": (
                lambda a, b: sum(b) / len(b) - sum(a) / len(a)
            ),
            "That is the ratio of the losses; of perplexities it is asked for.": lambda a, b: sum(b) / sum(a),
            "Upside down: how many times is it without the weight?": (
                lambda a, b: math.exp(sum(a) / len(a) - sum(b) / len(b))
            ),
        },
        cases={
            "three texts": ([2.0, 3.0, 1.0], [4.0, 3.5, 3.0]),
            "one text": ([2.0], [2.7]),
            "nothing lost": ([1.0, 2.0], [1.0, 2.0]),
        },
    ),
    Exercise(
        name="a super-weight finder",
        minutes=20,
        difficulty=3,
        hint="Where is |y| largest? Of that row of W and that token's x, which product is its largest part?",
        solution=carrier,
        wrong={
            "Transposed: rows of W are outputs, columns are inputs.": lambda x, y, W: swapped(
                carrier(x, y, W)
            ),
            "By magnitude: a large negative output is a peak, too.": signed,
            "The loudest input need not carry the output; the largest product does.": by_input,
            "Take the inputs of the token where the output peaks, not of the first one.": (
                lambda x, y, W: carrier(x, y, W, token=0)
            ),
            "The share is of the output itself: it is negative only where a part pulls the other way.": (
                lambda x, y, W: (*carrier(x, y, W)[:3], -carrier(x, y, W)[3])
            ),
        },
        cases=LAYERS,
    ),
)
