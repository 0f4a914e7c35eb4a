"""Exercises of notebook 07: masks, ranks, Wanda from its formula, a threshold."""

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise


def two_of_four(W: Tensor) -> Tensor:
    """True at the two smallest of every four of a row."""
    groups = W.abs().unflatten(1, (-1, 4))
    ranks = groups.argsort(dim=2, stable=True).argsort(dim=2)
    return (ranks < 2).flatten(1)


def smallest(scores: Tensor, share: float, dim: int | None = 1) -> Tensor:
    """True at the share of the lowest scores: of each row, of each column (0), or of all (None)."""
    if dim is None:
        return smallest(scores.reshape(1, -1), share).view_as(scores)
    count = int(scores.shape[dim] * share)
    ranks = scores.argsort(dim=dim, stable=True).argsort(dim=dim)
    return ranks < count


def wanda(W: Tensor, X: Tensor, share: float) -> Tensor:
    """Sun et al. 2023: W (out, in), inputs X (T, in)."""
    return smallest(W.abs() * torch.linalg.vector_norm(X, dim=0), share)


def threshold(x: Tensor, share: float) -> float:
    """The size below which about a share of the entries lies: one of the sizes."""
    return torch.quantile(x.abs().flatten(), share, interpolation="nearest").item()


def smallest_first(scores: Tensor) -> list[int]:
    """Columns in the order in which they go."""
    return scores.argsort(stable=True).tolist()


GENERATOR = torch.Generator().manual_seed(7)
WIDE = torch.randn(3, 8, generator=GENERATOR)
INPUTS = torch.randn(9, 8, generator=GENERATOR) * torch.tensor([0.1, 3, 1, 9, 0.5, 1, 2, 0.01])
INPUTS[4, 0] = 4.0  # one loud moment: the norm hears it, the mean hardly
SCORES = torch.tensor([[3.0, 1.0, 2.0, 9.0], [0.5, 8.0, 0.1, 0.2], [4.0, 5.0, 6.0, 7.0]])

EXERCISES = (
    Exercise(
        name="two of four",
        minutes=8,
        difficulty=2,
        hint="Reshape to groups of four along the row, sort each group, set True at its first two.",
        solution=two_of_four,
        wrong={
            "You marked what stays: True is to stand at the two smallest.": lambda W: ~two_of_four(W),
            "By magnitude: a weight far below zero is not small.": lambda W: two_of_four(W - W.min() + 1),
            "That is half of each row, wherever; two of *every four* are to go.": lambda W: smallest(
                W.abs(), 0.5
            ),
            "The four lie next to one another in a row, not below one another in a column.": (
                lambda W: (
                    two_of_four(W.T.contiguous()).T if W.shape[0] % 4 == 0 else smallest(W.abs(), 0.5, 0)
                )
            ),
        },
        cases={
            "three rows of eight": (WIDE,),
            "one group": (torch.tensor([[0.3, -0.9, 0.1, 0.5]]),),
            "four rows of four": (torch.randn(4, 4, generator=GENERATOR),),
        },
    ),
    Exercise(
        name="how many go before it",
        minutes=4,
        difficulty=1,
        hint="Count the scores of its row that are smaller than its own.",
        solution=lambda scores, row, column: int(smallest_first(scores[row]).index(column)),
        wrong={
            "Wanda compares within a row, not over the whole matrix.": lambda scores, row, column: int(
                (scores < scores[row, column]).sum()
            ),
            "Those go after it.": lambda scores, row, column: int((scores[row] > scores[row, column]).sum()),
            "It does not go before itself.": lambda scores, row, column: int(
                (scores[row] <= scores[row, column]).sum()
            ),
            "Transposed: a row of scores is an output.": lambda scores, row, column: int(
                (scores[:, column] < scores[row, column]).sum()
            ),
        },
        cases={
            "the last to go": (SCORES, 0, 3),
            "in the middle": (SCORES, 1, 0),
            "the first": (SCORES, 2, 0),
        },
    ),
    Exercise(
        name="Wanda from its formula",
        minutes=15,
        difficulty=3,
        hint="|W| times the norm of each input channel, and then the smallest of each row.",
        solution=wanda,
        wrong={
            "Compare within each row: outputs are of different sizes.": lambda W, X, share: smallest(
                W.abs() * X.norm(dim=0), share, None
            ),
            "That is magnitude alone: weigh each column by how loud its input is.": (
                lambda W, X, share: smallest(W.abs(), share)
            ),
            "The norm is over tokens: one number for each input channel.": lambda W, X, share: smallest(
                W.abs() * X.norm(dim=1)[: W.shape[1]].repeat(W.shape[1])[: W.shape[1]], share
            ),
            "Take the root: the norm, not the sum of squares.": lambda W, X, share: smallest(
                W.abs() * X.square().sum(0), share
            ),
            "That is the mean magnitude of the inputs; Wanda takes the 2-norm.": (
                lambda W, X, share: smallest(W.abs() * X.abs().mean(0), share)
            ),
            "By the magnitude of the weight.": lambda W, X, share: smallest(W * X.norm(dim=0), share),
            "You marked what stays: True is to stand at what goes.": lambda W, X, share: ~wanda(W, X, share),
        },
        cases={
            "half": (WIDE, INPUTS, 0.5),
            "a quarter": (WIDE, INPUTS, 0.25),
            "nothing": (WIDE, INPUTS, 0.0),
            "one row": (WIDE[1:2], INPUTS[:3], 0.5),
        },
    ),
    Exercise(
        name="a threshold for a share",
        minutes=6,
        difficulty=1,
        hint="Sort the magnitudes; which one stands at that share of the way?",
        solution=threshold,
        wrong={
            "By magnitude: inputs far below zero are not small.": lambda x, share: torch.quantile(
                x.flatten(), share, interpolation="nearest"
            ).item(),
            "That is the threshold for the share that stays.": lambda x, share: threshold(x, 1 - share),
            "A share of the *entries* is to lie below it; that is a share of the largest.": (
                lambda x, share: share * x.abs().max().item()
            ),
            "A threshold for all tokens together; that is the first token's.": (
                lambda x, share: threshold(x[0], share)
            ),
        },
        cases={
            "a third of nine by eight": (INPUTS, 1 / 3),
            "half of a row": (torch.tensor([[5.0, -1.0, 2.0, -9.0, 0.0]]), 0.5),
            "most": (INPUTS[:5], 0.9),
        },
    ),
)
