"""What generation swaps in while it computes a token: products and norms that are quick for one row.

One row leaves nothing to reuse: the time is that of reading the weights once. In float32 on a CPU,
`F.linear` hands such a product to a routine that falls far short of the memory's bandwidth; as a batch of
two half-matrices it comes nearer (`supertf bench generate` gives the GB/s of both). RMSNorm takes PyTorch
ten operations, here four. The results are the same up to the order of summation.
"""

import contextlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.model.context_changes import ForAWhile, computing_as


class OneRowLinear(ForAWhile, nn.Linear):
    """`nn.Linear` that reads its weights faster when there is a single row."""

    def forward(self, x: Tensor) -> Tensor:
        if one_float32_row_on_cpu(x):
            return linear_one_row(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class OneRowRMSNorm(ForAWhile, nn.RMSNorm):
    """`nn.RMSNorm` in fewer operations when there is a single row."""

    def forward(self, x: Tensor) -> Tensor:
        if self.eps is None or not one_float32_row_on_cpu(x):
            return super().forward(x)
        row = x.reshape(-1)  # (C,)
        return (x * self.weight).mul_((torch.dot(row, row).item() / len(row) + self.eps) ** -0.5)


FAST: dict[type, type] = {nn.Linear: OneRowLinear, nn.RMSNorm: OneRowRMSNorm}


def fast_rows(modules: Iterable[nn.Module]) -> contextlib.AbstractContextManager[None]:
    """Let plain linear layers and RMSNorms among the modules be quick for one row while the context lasts.

    Parameters, hooks and results stay what they are, and so do layers whose product another context replaces.
    """
    return computing_as(FAST, modules)


def one_float32_row_on_cpu(x: Tensor) -> bool:
    """Whether x (..., C) is a single row that no gradient is wanted for."""
    row = x.numel() == x.shape[-1] and x.dtype == torch.float32 and x.is_cpu
    return row and not torch.is_grad_enabled()


def linear_one_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product of a single row and a matrix, as two batched halves of the outputs, if these are even.

    Args:
        x: (..., in) with one row, float32.
        weight: (out, in).
        bias: (out,), if any.

    Returns:
        (..., out).
    """
    out, width = weight.shape
    if out % 2:
        return F.linear(x, weight, bias)
    halves = weight.view(2, out // 2, width).transpose(1, 2)  # (2, in, out / 2), a view
    y = torch.bmm(x.reshape(1, 1, width).expand(2, 1, width), halves)  # (2, 1, out / 2)
    y = y.view(*x.shape[:-1], out)
    return y if bias is None else y + bias
