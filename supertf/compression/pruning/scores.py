"""Scores of single weights, of which the lowest go: a function for each method of that name.

It takes a matrix's weight (out, in), the norms of its inputs (in,), None for methods that do not need them,
and a generator of random numbers; it returns the scores (out, in) float32.
"""

import torch
from torch import Tensor


def random(weight: Tensor, norms: Tensor | None, generator: torch.Generator) -> Tensor:
    """A random number: the control."""
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def magnitude(weight: Tensor, norms: Tensor | None, generator: torch.Generator) -> Tensor:
    """|W_ij|."""
    return weight.abs().float()


def wanda(weight: Tensor, norms: Tensor, generator: torch.Generator) -> Tensor:
    """|W_ij| * ||X_j||_2, X the inputs on a calibration text (Sun et al. 2023, arXiv 2306.11695)."""
    return weight.abs().float() * norms.to(weight.device)
