"""Exercises of notebook 06: an activation put back, pairs, the balance of a state, a set."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise


def put_back(x: Tensor, y: Tensor, weight: float, out: int, into: int) -> Tensor:
    """The output y (T, out) without the weight, with its product back where its input (T, in) is largest."""
    token = int(x[:, into].abs().max(0).indices)
    product = torch.zeros_like(y)
    product[token, out] = weight * x[token, into]
    return y + product


def everywhere(x: Tensor, y: Tensor, weight: float, out: int, into: int) -> Tensor:
    """At every token: nothing is removed."""
    return y + weight * x[:, [into]] * torch.nn.functional.one_hot(torch.tensor(out), y.shape[1])


def outweighs(state: Tensor, channel: int) -> float:
    """|its channel| over the length of all the others."""
    squares = state.double().square()
    return math.sqrt(squares[channel] / (squares.sum() - squares[channel]))


Harm = Callable[[tuple[str, ...]], float]


def greedy(names: Sequence[str], harm: Harm, size: int) -> tuple[str, ...]:
    """A set, grown by what costs most beside those that are in it."""
    chosen: tuple[str, ...] = ()
    for _ in range(size):
        rest = [name for name in names if name not in chosen]
        chosen += (max(rest, key=lambda name: harm((*chosen, name))),)
    return chosen


def together(weights: tuple[str, ...]) -> float:
    """What removing some of five made-up weights costs: b is worth little, but beside a very much."""
    alone = {"a": 2.0, "b": 0.2, "c": 1.0, "d": 0.5, "e": 0.1}
    return (
        sum(alone[name] for name in weights)
        + 5 * ({"a", "b"} <= set(weights))
        + 2 * ({"b", "e"} <= set(weights))
    )


def apart(weights: tuple[str, ...]) -> float:
    """The same, without a pair that works together."""
    return sum({"a": 2.0, "b": 0.2, "c": 1.0, "d": 0.5, "e": 0.1}[name] for name in weights)


def one_at(x: Tensor, y: Tensor, weight: float, out: int, into: int, token: int) -> Tensor:
    """The product put back at a token."""
    y = y.clone()
    y[token, out] += weight * x[token, into]
    return y


def without(state: Tensor, channel: int) -> Tensor:
    """All channels but one."""
    return torch.cat([state[:channel], state[channel + 1 :]])


GENERATOR = torch.Generator().manual_seed(6)
STATE = torch.randn(7, generator=GENERATOR)
STATE[2] = -30.0
LOUD = torch.randn(5, 4, generator=GENERATOR)
LOUD[3, 1] = -25.0

EXERCISES = (
    Exercise(
        name="the restore",
        minutes=10,
        difficulty=2,
        hint="At which token is |x[:, into]| largest? Add the weight times that input there, to a copy.",
        solution=put_back,
        wrong={
            "You put it back at every token; one is asked for.": everywhere,
            "By magnitude: an input may fire below zero.": lambda x, y, w, out, into: one_at(
                x, y, w, out, into, int(x[:, into].argmax())
            ),
            "It need not be the first token: look where the input is largest.": (
                lambda x, y, w, out, into: one_at(x, y, w, out, into, 0)
            ),
            "What comes back is the product of weight and input, not the input.": (
                lambda x, y, w, out, into: put_back(x, y, 1.0, out, into)
            ),
            "Transposed: the product goes into the output channel.": lambda x, y, w, out, into: put_back(
                x, y, w, into % y.shape[1], into
            ),
        },
        cases={
            "fires below zero": (LOUD, torch.randn(5, 6, generator=GENERATOR), 5.9, 4, 1),
            "one token": (LOUD[:1], torch.zeros(1, 3), -2.0, 0, 2),
            "fires at the first": (LOUD.flip(0)[1:], torch.randn(4, 6, generator=GENERATOR), 3.0, 5, 1),
        },
    ),
    Exercise(
        name="more than the product",
        minutes=5,
        difficulty=2,
        hint="In nats: what both cost, less what each costs alone.",
        solution=lambda a, b, both: math.log(both / (a * b)),
        wrong={
            "Costs of perplexity multiply: compare logarithms, not multiples.": lambda a, b, both: (
                both - a - b
            ),
            "That is the factor itself; in nats it is the logarithm.": lambda a, b, both: both / (a * b),
            "The multiples of each alone multiply: 2 times and 3 times are 6 times.": (
                lambda a, b, both: math.log(both / (a + b))
            ),
            "The other way round: above zero where both cost more than their product.": (
                lambda a, b, both: math.log(a * b / both)
            ),
        },
        cases={
            "a pair that is worth more": (7.0, 1.2, 900.0),
            "independent": (2.0, 3.0, 6.0),
            "less": (4.0, 4.0, 5.0),
        },
    ),
    Exercise(
        name="which channel outweighs the others",
        minutes=6,
        difficulty=1,
        hint="A magnitude over a length; the channel itself is not among the others.",
        solution=outweighs,
        wrong={
            "The channel itself is no part of the others.": (
                lambda state, channel: (state[channel].abs() / state.norm()).item()
            ),
            "A magnitude: a channel far below zero outweighs, too.": (
                lambda state, channel: -outweighs(state, channel)
            ),
            "The others together are their length, not the largest of them.": lambda state, channel: (
                state[channel].abs() / without(state, channel).abs().max()
            ).item(),
            "The others together are their length (a root of squares), not the sum of their magnitudes.": (
                lambda state, channel: (state[channel].abs() / without(state, channel).abs().sum()).item()
            ),
        },
        cases={
            "one that spikes": (STATE, 2),
            "one of many": (STATE, 0),
            "two channels": (torch.tensor([3.0, 4.0]), 1),
        },
    ),
    Exercise(
        name="a set that works together",
        minutes=20,
        difficulty=3,
        hint="Each step tries every weight that is left beside those that are chosen already.",
        solution=greedy,
        wrong={
            "Those cost most alone; each step is to ask what costs most beside those chosen already.": (
                lambda names, harm, size: tuple(sorted(names, key=lambda name: -harm((name,)))[:size])
            ),
            "A weight is chosen once: leave out what is in the set.": lambda names, harm, size: tuple(
                [max(names, key=lambda name: harm((name,)))] * size
            ),
            "You took what costs least.": lambda names, harm, size: greedy(
                names, lambda weights: -harm(weights), size
            ),
            "The order counts: first what costs most by itself.": (
                lambda names, harm, size: tuple(sorted(greedy(names, harm, size)))[::-1]
            ),
        },
        cases={
            "two that belong together": (("c", "e", "d", "b", "a"), together, 2),
            "three": (("c", "e", "d", "b", "a"), together, 3),
            "one": (("a", "b", "c"), together, 1),
            "none that belong together": (("e", "b", "a", "c"), apart, 3),
        },
    ),
)
