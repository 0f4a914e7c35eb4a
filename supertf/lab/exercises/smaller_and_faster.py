"""Exercises of notebook 08: channels cut out, gates closed, projections fitted anew, bytes."""

import torch
from torch import Tensor
from torch.nn.functional import silu

from supertf.lab.exercises.checking import Exercise

Matrices = tuple[Tensor, Tensor, Tensor]


def cut(gate: Tensor, up: Tensor, down: Tensor, keep: Tensor) -> Matrices:
    """An MLP without some channels: gate and up (I, C), down (C, I), keep (I,) bool."""
    kept = keep.nonzero().flatten()
    return gate.index_select(0, kept), up.index_select(0, kept), down.index_select(1, kept)


def gated(hidden: Tensor, threshold: float) -> Tensor:
    """What the down projection is given, (T, I), of gates and ups (T, 2 I), with small gates closed."""
    gate, up = hidden.chunk(2, dim=-1)
    return torch.where(silu(gate).abs() < threshold, torch.zeros_like(up), silu(gate) * up)


def refit(X: Tensor, Y: Tensor, W: Tensor, prior: float) -> Tensor:
    """The W' (out, in) of least |Y - X W'^T|^2 + prior |W' - W|^2; X (T, in), Y (T, out)."""
    root = prior**0.5 * torch.eye(X.shape[1], dtype=X.dtype)
    return torch.linalg.lstsq(torch.cat([X, root]), torch.cat([Y, root @ W.T])).solution.T


def solved(X: Tensor, Y: Tensor, pull: Tensor, prior: float) -> Tensor:
    """The same towards another matrix, by the normal equations."""
    gram = X.T @ X + prior * torch.eye(X.shape[1], dtype=X.dtype)
    return torch.linalg.solve(gram, X.T @ Y + prior * pull.T).T


def read(shapes: list[tuple[int, int]], bits: int, group: int) -> float:
    """Bytes of weights in so many bits, with a scale of 16 bits for each group of them."""
    return sum(rows * columns for rows, columns in shapes) * (bits + 16 / group) / 8


GENERATOR = torch.Generator().manual_seed(8)


def drawn(*shape: int) -> Tensor:
    """Doubles."""
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


GATE, UP, DOWN = drawn(5, 3), drawn(5, 3), drawn(3, 5)
SEEN = drawn(20, 4)

EXERCISES = (
    Exercise(
        name="cut channels out",
        minutes=8,
        difficulty=2,
        hint="Channel j is a row of gate and of up, and a column of down.",
        solution=cut,
        wrong={
            "The down projection loses columns, not rows: its inputs are the channels.": (
                lambda gate, up, down, keep: (gate[keep], up[keep], down[keep[: len(down)]])
            ),
            "Those are the channels that go: `keep` says which stay.": (
                lambda gate, up, down, keep: cut(gate, up, down, ~keep)
            ),
            "Zeros stay in place: a smaller matrix is asked for.": lambda gate, up, down, keep: (
                gate * keep[:, None],
                up * keep[:, None],
                down * keep,
            ),
            "The up projection has the channels, too: its rows go with the gate's.": (
                lambda gate, up, down, keep: (gate[keep], up, down[:, keep])
            ),
        },
        cases={
            "three of five": (GATE, UP, DOWN, torch.tensor([True, False, True, True, False])),
            "all stay": (GATE, UP, DOWN, torch.ones(5, dtype=torch.bool)),
            "one stays": (GATE, UP, DOWN, torch.tensor([False, False, False, True, False])),
        },
    ),
    Exercise(
        name="small gates closed",
        minutes=10,
        difficulty=2,
        hint="Of gate and up, two halves: silu(gate) * up, and 0 where |silu(gate)| is below the threshold.",
        solution=gated,
        wrong={
            "You closed the large ones.": lambda hidden, t: (
                silu(hidden.chunk(2, -1)[0])
                * hidden.chunk(2, -1)[1]
                * (silu(hidden.chunk(2, -1)[0]).abs() < t)
            ),
            "The gate is what silu makes of it: compare that with the threshold.": (
                lambda hidden, t: (
                    silu(hidden.chunk(2, -1)[0])
                    * hidden.chunk(2, -1)[1]
                    * (hidden.chunk(2, -1)[0].abs() >= t)
                )
            ),
            "By magnitude: silu is below zero where the gate is.": (
                lambda hidden, t: (
                    silu(hidden.chunk(2, -1)[0])
                    * hidden.chunk(2, -1)[1]
                    * (silu(hidden.chunk(2, -1)[0]) >= t)
                )
            ),
            "The other way round: first come the gates, then what they are multiplied by.": (
                lambda hidden, t: gated(torch.cat(hidden.chunk(2, -1)[::-1], -1), t)
            ),
            "Closed by the product: the gate alone decides, or its row of up would have to be read first.": (
                lambda hidden, t: (product := gated(hidden, 0.0)) * (product.abs() >= t)
            ),
        },
        cases={
            "a threshold of 0.3": (drawn(4, 10), 0.3),
            "nothing is closed": (drawn(2, 6), 0.0),
            "one token": (drawn(1, 8), 0.15),
        },
    ),
    Exercise(
        name="bytes of a token",
        minutes=5,
        difficulty=1,
        hint="Weights times bits, and 16 bits more for each group; eight bits are a byte.",
        solution=read,
        wrong={
            "Those are bits; a byte has eight.": lambda shapes, bits, group: 8 * read(shapes, bits, group),
            "Each group has a scale of 16 bits, too.": lambda shapes, bits, group: (
                sum(rows * columns for rows, columns in shapes) * bits / 8
            ),
            "A scale for each group, not for each weight.": lambda shapes, bits, group: (
                sum(rows * columns for rows, columns in shapes) * (bits + 16) / 8
            ),
            "One scale for each matrix: there is one for each group.": lambda shapes, bits, group: (
                (sum(rows * columns for rows, columns in shapes) * bits + 16 * len(shapes)) / 8
            ),
        },
        cases={
            "4 bits in groups of 32": ([(576, 1536), (64, 64)], 4, 32),
            "8 bits by rows": ([(10, 100)], 8, 100),
            "nothing": ([], 4, 32),
        },
    ),
    Exercise(
        name="fitted anew",
        minutes=25,
        difficulty=3,
        hint="Set the derivative to zero: (X^T X + prior) W'^T = X^T Y + prior W^T.",
        solution=refit,
        wrong={
            "Where is the prior? From few tokens noise is learned.": lambda X, Y, W, prior: solved(
                X, Y, W, 1e-9
            ),
            "That draws the weights towards zero; draw them towards what they were.": (
                lambda X, Y, W, prior: solved(X, Y, torch.zeros_like(W), prior)
            ),
            "Transposed: W has a row for each output.": lambda X, Y, W, prior: refit(X, Y, W, prior).T,
            "The prior is on both sides: also of what the inputs add up to.": (
                lambda X, Y, W, prior: (
                    torch.linalg.solve(X.T @ X + 1e-9 * torch.eye(len(W.T)), X.T @ Y + prior * W.T).T
                )
            ),
        },
        cases={
            "twenty tokens": (SEEN, drawn(20, 3), drawn(3, 4), 5.0),
            "fewer tokens than inputs": (SEEN[:2], drawn(2, 3), drawn(3, 4), 1.0),
            "nothing to learn": (SEEN, SEEN @ DOWN[:, :4].T, DOWN[:, :4], 3.0),
        },
    ),
)
