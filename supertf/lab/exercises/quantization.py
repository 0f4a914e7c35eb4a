"""Exercises of notebook 09: bits, clips, blocks, and what is held out of them."""

import math

import torch
from torch import Tensor

from supertf.compression import Scheme, quantize_tokens, round_to_nearest
from supertf.lab.exercises.checking import Exercise


def percentile(blocks: Tensor, p: float) -> Tensor:
    """Of each row the smallest magnitude that p % of its entries do not exceed, (n, 1)."""
    return torch.quantile(blocks.abs(), p / 100, dim=1, keepdim=True, interpolation="higher")


def counted(blocks: Tensor, p: float, *, down: bool = False, sizes: bool = True) -> Tensor:
    """By ranks counted from 1, rounded up, or by mistake down; of magnitudes, or by mistake of values."""
    exact = blocks.shape[1] * p / 100
    rank = max(1, math.floor(exact) if down else math.ceil(exact - 1e-9))
    return (blocks.abs() if sizes else blocks).sort(dim=1).values[:, [rank - 1]]


def per_token(x: Tensor, bits: int) -> Tensor:
    """Symmetric levels of each row."""
    step = x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (x / step).round() * step


def blockwise(W: Tensor, size: int, bits: int, *, levels: int = 0, shared: bool = False) -> Tensor:
    """Asymmetric, with another number of levels or one scale for all by mistake."""
    blocks = W.reshape(1, -1) if shared else W.reshape(-1, size)
    low, high = blocks.amin(1, keepdim=True), blocks.amax(1, keepdim=True)
    step = ((high - low) / ((levels or 2**bits) - 1)).clamp(min=1e-12)
    return (((blocks - low) / step).round() * step + low).view_as(W)


def quiet(X: Tensor, channel: int) -> Tensor:
    """A copy with each token's median in the channel's place."""
    return X.index_copy(1, torch.tensor([channel]), X.median(-1, keepdim=True).values)


def restored(read: Tensor, X: Tensor, channel: int) -> Tensor:
    """A copy with the channel as it was."""
    return read.index_copy(1, torch.tensor([channel]), X[:, [channel]])


GENERATOR = torch.Generator().manual_seed(9)
ROWS = torch.randn(3, 40, generator=GENERATOR)
FIRES = torch.randn(4, 12, generator=GENERATOR)
FIRES[1, 5] = 90.0

EXERCISES = (
    Exercise(
        name="what a block costs",
        minutes=4,
        difficulty=1,
        hint="A scale and a low of 16 bits each, shared by all weights of the block.",
        solution=lambda bits, size: (bits * size + 16 + 16) / size,
        wrong={
            "Asymmetric rounding stores two numbers: scale and low.": lambda bits, size: bits + 16 / size,
            "A block shares them: they are not stored for each weight.": lambda bits, size: bits + 32,
            "Those are bits of the whole block; per weight is asked for.": lambda bits, size: (
                bits * size + 32
            ),
            "The scale and the low come on top of the weights' own bits.": lambda bits, size: 32 / size,
        },
        cases={"4 bits by 64": (4, 64), "8 bits by 256": (8, 256), "a block of one": (4, 1)},
    ),
    Exercise(
        name="percentile clipping",
        minutes=10,
        difficulty=2,
        hint="Sort each row's magnitudes; the rank is p % of the row's length, rounded up, counted from 1.",
        solution=lambda blocks, p: counted(blocks, p),
        wrong={
            "By magnitude: a weight far below zero is clipped, too.": lambda blocks, p: counted(
                blocks, p, sizes=False
            ),
            "Each row has its own: you took one for all.": lambda blocks, p: counted(
                blocks.reshape(1, -1), p
            ).expand(len(blocks), 1),
            "At least p % do not exceed it: round the rank up, not down.": lambda blocks, p: counted(
                blocks, p, down=True
            ),
            "One of the magnitudes themselves; yours lies between two of them.": (
                lambda blocks, p: torch.quantile(blocks.abs(), p / 100, dim=1, keepdim=True)
            ),
            "Keep the second dimension: (n, 1), to compare with (n, size).": lambda blocks, p: counted(
                blocks, p
            ).flatten(),
        },
        cases={"three rows of 40": (ROWS, 99.0), "the middle": (ROWS[:, :7], 50.0), "all": (ROWS[:1], 100.0)},
    ),
    Exercise(
        name="the super activation spared",
        minutes=10,
        difficulty=2,
        hint="A copy with something quiet in the channel's place; round it; put the channel back.",
        solution=lambda X, channel: quantize_tokens(X, 8, [channel]),
        wrong={
            "Put the channel back afterwards, in full precision.": lambda X, channel: per_token(
                quiet(X, channel), 8
            ),
            "The scale still comes from the loud channel: quiet it before rounding.": (
                lambda X, channel: restored(per_token(X, 8), X, channel)
            ),
            "Each token has its own scale; yours is one for all.": lambda X, channel: restored(
                per_token(quiet(X, channel).reshape(1, -1), 8).view_as(X), X, channel
            ),
            "Nothing is rounded.": lambda X, channel: X.clone(),
        },
        cases={"one token fires": (FIRES, 5), "one token": (FIRES[1:2], 5), "nobody fires": (FIRES[2:], 0)},
    ),
    Exercise(
        name="a block quantizer",
        minutes=20,
        difficulty=3,
        hint="Blocks as rows; of each its smallest and largest; a step between levels; codes; and back.",
        solution=lambda W, size, bits: round_to_nearest(W, Scheme(bits, size)),
        wrong={
            "Symmetric: spread the levels from each block's smallest to its largest.": (
                lambda W, size, bits: per_token(W.reshape(-1, size), bits).view_as(W)
            ),
            "One scale for the whole matrix; each block has its own.": lambda W, size, bits: blockwise(
                W, size, bits, shared=True
            ),
            "Between 2^b levels there are 2^b - 1 steps.": lambda W, size, bits: blockwise(
                W, size, bits, levels=2**bits + 1
            ),
            "A block is so many weights in a row of the matrix, not below one another.": (
                lambda W, size, bits: blockwise(W.T.contiguous(), size, bits).T
            ),
            "Those are codes: read them back, times the step, plus the smallest.": (
                lambda W, size, bits: (
                    (
                        (W.reshape(-1, size) - W.reshape(-1, size).amin(1, keepdim=True))
                        / (
                            (
                                W.reshape(-1, size).amax(1, keepdim=True)
                                - W.reshape(-1, size).amin(1, keepdim=True)
                            )
                            / (2**bits - 1)
                        ).clamp(min=1e-12)
                    )
                    .round()
                    .view_as(W)
                )
            ),
        },
        cases={
            "blocks of 8, 4 bits": (ROWS, 8, 4),
            "rows, 3 bits": (ROWS[:, :16], 16, 3),
            "blocks longer than a row": (ROWS[:2, :20], 40, 4),
        },
    ),
)
