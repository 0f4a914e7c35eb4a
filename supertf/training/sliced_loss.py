"""The output head and its cross-entropy in one, which training swaps in: for a large vocabulary.

Written out, a batch of N tokens passes through several (N, V) float32 arrays, hundreds of megabytes that
each travel to memory and back. Here the vocabulary is taken in slices that stay in the processor's
cache; only the logits are kept, in the precision they were computed in. `supertf bench train` reports the
training step's gain over the plain head.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from supertf.model import GPT, ForAWhile, computing_as

SLICE = 2048  # columns of the logits at a time


@contextlib.contextmanager
def sliced_head(model: GPT) -> Iterator[None]:
    """Let a model take its loss in slices of the vocabulary while the context lasts, for a training step.

    It is the same number up to the order of summation, and has the same gradient. It has first derivatives
    only, and a `RuntimeError` for a target that is no token of the vocabulary nor -100.
    """
    with computing_as({GPT: SlicedHeadGPT}, [model]):
        yield


class SlicedHeadGPT(ForAWhile, GPT):
    """`GPT` with `linear_cross_entropy` for its loss."""

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        return linear_cross_entropy(x.flatten(0, 1), self.lm_head.weight, targets.flatten())


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`F.cross_entropy(x @ weight.T, targets)`: the mean over the targets that are not -100.

    Products run in autocast's dtype, sums in float32 at least. First derivatives only.

    Args:
        x: hidden states, (N, C).
        weight: the head's, (V, C).
        targets: (N,) int64.

    Returns:
        A scalar, in nats.

    Raises:
        RuntimeError: a target is outside 0 ... V - 1, and not -100.
    """
    known = (targets >= 0) & (targets < len(weight)) | (targets == -100)
    outside = f"a target is outside 0 to {len(weight) - 1} and not -100"
    if targets.device.type in ("cpu", "cuda"):  # a GPU is not waited for, nor are numbers needed (`plan`)
        torch._assert_async(known.all(), outside)
    elif not known.all():
        raise RuntimeError(outside)
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return _LinearCrossEntropy.apply(x, weight, targets, dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        hidden, rows = x.to(dtype), weight.to(dtype)
        slices = []  # logits, (N, SLICE) each
        normalizer = torch.full((len(x),), -torch.inf, dtype=wide, device=x.device)  # log sum exp so far
        of_target = torch.zeros_like(normalizer)  # the logit of each token's target
        for start in range(0, len(rows), SLICE):
            logits = hidden @ rows[start : start + SLICE].T
            slices.append(logits)
            normalizer = torch.logaddexp(normalizer, logits.to(wide).logsumexp(-1))
            column, inside = _column(targets, start, logits)
            of_target += logits.gather(1, column).squeeze(1) * inside
        counted = targets != -100
        ctx.save_for_backward(hidden, rows, targets, normalizer, counted / counted.sum(), *slices)
        ctx.dtypes = x.dtype, weight.dtype
        return ((normalizer - of_target) * counted).sum() / counted.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, rows, targets, normalizer, share, *slices = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        share = (share * grad).to(normalizer.dtype)[:, None]
        grad_x = torch.zeros(hidden.shape, dtype=normalizer.dtype, device=hidden.device)
        grad_weight = torch.empty(rows.shape, dtype=weight_dtype, device=rows.device)
        for i, logits in enumerate(slices):
            start = i * SLICE
            residual = (logits - normalizer[:, None]).exp_()  # probabilities ...
            column, inside = _column(targets, start, logits)
            residual.scatter_add_(1, column, -inside.to(residual.dtype)[:, None])  # ... less the targets
            residual = residual.mul_(share).to(hidden.dtype)
            grad_x += residual @ rows[start : start + SLICE]
            grad_weight[start : start + SLICE] = residual.T @ hidden
        return grad_x.to(x_dtype), grad_weight, None, None


def _column(targets: Tensor, start: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Where in this slice each target lies, (N, 1), and whether it does, (N,)."""
    width = logits.shape[1]
    inside = (targets >= start) & (targets < start + width)
    return (targets - start).clamp(0, width - 1)[:, None], inside
