"""`nn.Linear` that reads its weights faster when there is a single row, as in token-by-token generation.

One row leaves nothing to reuse: the time is that of reading the weights once. In float32 on a CPU,
`F.linear` hands such a product to a routine that falls far short of the memory's bandwidth; as a batch of
two half-matrices it comes nearer. `supertf bench generate` gives the GB/s of both.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.errors import UserError


class Linear(nn.Linear):
    """Same parameters and the same result, up to the order of summation, as `nn.Linear`."""

    product: Callable[[Tensor], Tensor] | None = None  # takes the weights' place while a context lasts

    def __getstate__(self) -> dict[str, Any]:
        """What copies and files have of the layer: not the product, which only its context can take back."""
        return {name: value for name, value in self.__dict__.items() if name != "product"}

    def forward(self, x: Tensor) -> Tensor:
        if self.product is not None:
            return self.product(x)
        if one_float32_row_on_cpu(x):
            return linear_one_row(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


def one_float32_row_on_cpu(x: Tensor) -> bool:
    """Whether x (..., C) is a single row that no gradient is wanted for."""
    return (
        x.numel() == x.shape[-1]
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_grad_enabled()
    )


def linear_one_row(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) with a single row times weight (out, in): two batched halves of the outputs, if even."""
    out, width = weight.shape
    if out % 2:
        return F.linear(x, weight, bias)
    halves = weight.view(2, out // 2, width).transpose(1, 2)  # (2, in, out / 2), a view
    y = torch.bmm(x.reshape(1, 1, width).expand(2, 1, width), halves)  # (2, 1, out / 2)
    y = y.view(*x.shape[:-1], out)
    return y if bias is None else y + bias


def replace_product(
    undo: contextlib.ExitStack, name: str, layer: Linear, make: Callable[[], Callable[[Tensor], Tensor]]
) -> None:
    """Give a layer another product, which `make` makes, until `undo` is closed; `UserError` if it has one.

    Refused, so that contexts which replace products can be left in any order: each undoes only its own.
    """
    if layer.product is not None:
        raise UserError(f"{name} is packed, or skips, already: leave that context first")
    layer.product = make()
    undo.callback(setattr, layer, "product", None)
