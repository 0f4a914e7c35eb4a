"""Can position be read out of the hidden states? A linear probe per layer, tested on unseen sequences.

Haviv et al. 2022 (arXiv 2203.16634) asked this of language models without positional encoding; their
probe was a small network and guessed among positions, this one is ridge regression: one number, one
linear read-out.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from supertf.analysis.residual_stream import hidden_states
from supertf.errors import UserError
from supertf.model import GPT

RIDGE = 1e-4  # of each standardised feature's variance


@dataclass(frozen=True)
class PositionProbe:
    """How well a linear map of the states after some blocks gives the position.

    Attributes:
        layer: how many blocks; 0 are the embeddings.
        r2: share of the positions' variance explained on test sequences; about 0, or a little below, where
            there is nothing to read.
        error: mean absolute error in tokens.
        chance: the error in tokens of guessing a position at random, (T^2 - 1) / (3 T); always answering the
            middle is off by about T / 4, 0.75 of it.
    """

    layer: int
    r2: float
    error: float
    chance: float

    @property
    def relative(self) -> float:
        """error / chance: 0 is perfect, 0.75 knows nothing, 1 guesses."""
        return self.error / self.chance


def probe_positions(
    model: GPT, train_idx: Tensor, test_idx: Tensor, *, shuffled: bool = False, batch_size: int = 32
) -> list[PositionProbe]:
    """Fit a probe per layer on some sequences and test it on others.

    The target is the token's index 0 ... T - 1. Features are the residual stream, standardised; the normal
    equations are summed batch by batch in float64, so any number of sequences fits.

    Args:
        model: in evaluation mode.
        train_idx: (N, T) int64, N * T more than the weights to fit, best many times more.
        test_idx: (M, T) int64.
        shuffled: the control: each sequence's positions are put in a random order (the same one in every
            call), and nothing should be found.
        batch_size: sequences read at once.

    Returns:
        One `PositionProbe` per layer, the embeddings first.

    Raises:
        UserError: sequences of different or single length, too few of them, or what `token_layout` refuses.
    """
    T = check_sequences(model, train_idx, test_idx)
    generator = torch.Generator().manual_seed(0)
    probes = fit(model, batches(train_idx, batch_size, shuffled, generator))
    squares, absolutes = torch.zeros(2, len(probes), dtype=torch.float64)
    for idx, positions in batches(test_idx, batch_size, shuffled, generator):
        for layer, x in enumerate(hidden_states(model, idx)):
            missed = features(x) @ probes[layer] - positions
            squares[layer] += missed.square().sum()
            absolutes[layer] += missed.abs().sum()
    variance, chance = (T * T - 1) / 12, (T * T - 1) / (3 * T)
    count = len(test_idx) * T
    r2, error = 1 - squares / count / variance, absolutes / count
    return [PositionProbe(i, float(r2[i]), float(error[i]), chance) for i in range(len(probes))]


def read_positions(model: GPT, train_idx: Tensor, test_idx: Tensor) -> list[Tensor]:
    """What the probes of `probe_positions` read at every token of the test sequences.

    Args:
        model, train_idx, test_idx: as there.

    Returns:
        Positions by layer, (M, T) float64 each on the CPU, the embeddings first.
    """
    check_sequences(model, train_idx, test_idx)
    probes = fit(model, batches(train_idx, 32, False, torch.Generator()))
    states = hidden_states(model, test_idx)
    return [(features(x) @ probe).view_as(test_idx) for x, probe in zip(states, probes, strict=True)]


def check_sequences(model: GPT, train_idx: Tensor, test_idx: Tensor) -> int:
    """The length T of sequences to fit and test on, or `UserError`."""
    T, weights = train_idx.shape[1], model.config.n_embd + 1
    if test_idx.shape[1] != T or T < 2:
        raise UserError(
            f"training sequences have {T} tokens and test sequences {test_idx.shape[1]}: give equal lengths "
            "of two tokens or more"
        )
    if len(train_idx) * T <= weights:
        raise UserError(
            f"{len(train_idx)} training sequences of {T} tokens are too few to fit {weights} weights: give "
            f"{weights // T + 1} or more, best many more"
        )
    return T


def batches(
    idx: Tensor, size: int, shuffled: bool, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sequences (B, T) and their positions (B * T,) float64, in a random order per sequence if shuffled."""
    for some in idx.split(size):
        order = torch.arange(some.shape[1]).expand(some.shape[:2])
        if shuffled:
            order = torch.rand(some.shape[:2], generator=generator).argsort(dim=1)
        yield some, order.flatten().double()


def features(x: Tensor) -> Tensor:
    """States (B, T, C) as rows with a 1 for the intercept, (B * T, C + 1) float64 on the CPU."""
    return F.pad(x.cpu().double().flatten(0, 1), (0, 1), value=1.0)


def fit(model: GPT, data: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Ridge weights (C + 1,) of every layer, from sums over the data."""
    C = model.config.n_embd
    grams = torch.zeros(len(model.h) + 1, C + 1, C + 1, dtype=torch.float64)
    targets = torch.zeros(len(model.h) + 1, C + 1, dtype=torch.float64)
    for idx, positions in data:
        for layer, x in enumerate(hidden_states(model, idx)):
            rows = features(x)
            grams[layer] += rows.T @ rows
            targets[layer] += rows.T @ positions
    return [ridge(gram, target) for gram, target in zip(grams, targets, strict=True)]


def ridge(gram: Tensor, target: Tensor) -> Tensor:
    """Weights of standardised ridge regression, for features whose last is 1: (C + 1,) from X'X and X'y."""
    count = gram[-1, -1]
    mean, mean_target = gram[-1, :-1] / count, target[-1] / count
    covariance = gram[:-1, :-1] / count - mean[:, None] * mean
    variance, power = covariance.diagonal(), gram.diagonal()[:-1] / count
    scale = torch.where(variance > 1e-10 * power, variance, torch.inf).rsqrt()  # 0 drops a constant feature
    correlation = scale[:, None] * covariance * scale + RIDGE * torch.eye(len(mean), dtype=gram.dtype)
    weights = scale * torch.linalg.solve(correlation, scale * (target[:-1] / count - mean * mean_target))
    return torch.cat([weights, (mean_target - mean @ weights)[None]])
