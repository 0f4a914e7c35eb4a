"""Dynamic pruning that leaves the work out: a token that is generated alone reads only the columns it needs.

y = W x is the sum over j of x_j W[:, j]. The columns of W are laid out as rows, so that one that counts is
read in one piece, and `speed.kernels` adds up those that do.

The products are those of `dynamically_pruned` up to the order of summation. So are texts, until an input lies
so near its threshold that rounding decides whether it counts, which later layers and tokens do not smooth
out. A text that is read whole instead of token by token parts in the same way.
"""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.compression.pruning.dynamic import Cut, DynamicPruning, claimed, cut_to
from supertf.compression.speed.kernels import (
    columns_product,
    large_columns_product,
    limited_threads,
    rows_product,
    threads,
)
from supertf.errors import UserError
from supertf.model import GPT, LanguageModel, linear_one_row, one_float32_row_on_cpu, replace_product

NONZERO = torch.finfo(torch.float32).tiny  # a threshold that only zeros are below


@contextlib.contextmanager
def skipping(model: LanguageModel, pruning: DynamicPruning) -> Iterator[None]:
    """Generate with a plan applied, and without the work that it spares, while the context lasts.

    That is for one token at a time, on a CPU in float32; several at once are pruned alike, with dense
    products. The columns as rows take as much memory again as the matrices they are of. The weights are
    untouched, and not to be changed meanwhile: prune or quantize them first.

    Args:
        model: this package's `GPT`.
        pruning: a plan for it.

    Raises:
        UserError: other classes, devices and dtypes, another such context around this one, and otherwise as
            `dynamically_pruned` does.
    """
    model = skippable(model)
    with claimed(model, pruning) as modules, limited_threads(), contextlib.ExitStack() as undo:
        for name in modules:
            layer, cut = linear(model, name), pruning.cuts[name]
            if pruning.method == "gate":
                replace_product(undo, name, layer, functools.partial(SkippingGates, layer, cut))
                name = name.replace("c_fc", "c_proj")  # for it, what its gate dropped is zero
                layer, cut = linear(model, name), Cut(cut.size, cut.sparsity, NONZERO)
            replace_product(undo, name, layer, functools.partial(Skipping, layer, cut))
        yield


def linear(model: GPT, name: str) -> nn.Linear:
    """One of the model's matrices; all of a `GPT` are of this class."""
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer


def skippable(model: LanguageModel) -> GPT:
    """The model, whose products can be replaced by those of `speed.kernels`, or `UserError`."""
    if not isinstance(model, GPT):
        raise UserError("skipping works for this lab's models only: `dynamically_pruned` is for any")
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.float32:
        raise UserError(
            f"skipping needs a float32 model on the CPU, this one is {model.wte.weight.dtype} on "
            f"{model.device}: load it with dtype=torch.float32"
        )
    return model


class Skipping:
    """A layer's product with vectors of which some entries do not count: x (..., in) to (..., out)."""

    def __init__(self, layer: nn.Linear, cut: Cut):
        self.weight, self.bias, self.cut = layer.weight.detach(), layer.bias, cut
        columns = self.weight.T if cut.axes is None else cut.axes.T @ self.weight.T  # (in, out)
        self.columns = columns.contiguous().numpy()
        self.axes = None if cut.axes is None else cut.axes.contiguous().numpy()
        self.held = np.zeros(cut.size, bool) if cut.held is None else cut.held.numpy()
        self.threshold = None if cut.threshold is None else np.float32(cut.threshold)
        self.all, self.parts = np.arange(cut.size), threads()

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        if not one_float32_row_on_cpu(x):
            return F.linear(cut_to(x, self.cut)[0], self.weight, self.bias)
        along = x.reshape(-1).numpy()  # (in,)
        if self.axes is not None:
            along = columns_product(along, self.all, self.axes, self.parts)  # R^T x
        if self.threshold is None:
            kept = self.cut.counts(torch.from_numpy(along)).nonzero().view(-1).numpy()  # (k,)
            total = columns_product(along, kept, self.columns, self.parts)  # (out,)
        else:
            total = large_columns_product(along, self.threshold, self.held, self.columns, self.parts)
        y = torch.from_numpy(total).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class SkippingGates:
    """c_fc of SwiGLU, whose gate is computed whole, and of whose up projection only the rows that count."""

    def __init__(self, layer: nn.Linear, cut: Cut):
        self.weight, self.bias, self.cut = layer.weight.detach(), layer.bias, cut
        self.up_rows = self.weight.chunk(2)[1].numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., C) to gate and up, (..., 2 * inner); both are zero where the gate does not count."""
        if not one_float32_row_on_cpu(x):
            gate, up = F.linear(x, self.weight, self.bias).chunk(2, dim=-1)
            return torch.cat([gate * self.cut.counts(F.silu(gate)), up], dim=-1)
        gate_bias, up_bias = (None, None) if self.bias is None else self.bias.chunk(2)
        both = torch.zeros(*x.shape[:-1], len(self.weight))
        gate, up = both.view(2, -1)  # views
        gate.copy_(linear_one_row(x, self.weight.chunk(2)[0], gate_bias).view(-1))
        counts = self.cut.counts(F.silu(gate))
        kept = counts.nonzero().view(-1)  # (k,)
        rows_product(x.reshape(-1).numpy(), kept.numpy(), self.up_rows, up.numpy())
        if up_bias is not None:
            up += up_bias * counts
        gate *= counts
        return both
