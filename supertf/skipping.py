"""Dynamic pruning that leaves the work out: a token that is generated alone reads only the columns it needs.

y = W x is the sum over j of x_j W[:, j]. With the columns of W laid out as rows, the sum over the channels
that count is what `torch.embedding_bag` computes, a weighted sum of some rows of a table. It sums a bag in
one thread, so each column is cut into parts, a bag each.

The products are those of `dynamically_pruned` up to the order of summation. So are texts, until an input lies
so near its threshold that rounding decides whether it counts, which later layers and tokens do not smooth
out. A text that is read whole instead of token by token parts in the same way.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from supertf.dynamic_pruning import Cut, DynamicPruning, claimed, cut_to
from supertf.errors import UserError
from supertf.linear import Linear, linear_one_row, one_float32_row_on_cpu
from supertf.model import GPT

PARTS = (16, 8, 4, 2)  # of a column; the first that divides it and leaves SHORTEST numbers or more
SHORTEST = 128  # shorter parts cost more than they share
NONZERO = torch.finfo(torch.float32).tiny  # a threshold that only zeros are below


@contextlib.contextmanager
def skipping(model: GPT, pruning: DynamicPruning) -> Iterator[None]:
    """Generate with the plan applied, and without the work that it spares, while the context lasts.

    For one token at a time, on a CPU in float32; several at once are pruned alike, with dense products. The
    columns as rows take as much memory again as the matrices they are of. The weights are untouched, and not
    to be changed meanwhile: prune or quantize them first. Raises `UserError` for other models, devices and
    dtypes, inside another such context, and as `dynamically_pruned` does.
    """
    if not isinstance(model, GPT):
        raise UserError("skipping works for this lab's models only: `dynamically_pruned` is for any")
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.float32:
        raise UserError(
            f"skipping needs a float32 model on the CPU, this one is {model.wte.weight.dtype} on "
            f"{model.device}: load it with dtype=torch.float32"
        )
    with claimed(model, pruning) as modules, contextlib.ExitStack() as undo:
        for name, layer in modules.items():
            cut = pruning.cuts[name]
            if pruning.method == "gate":
                install(undo, name, layer, SkippingGates, cut)
                name = name.replace("c_fc", "c_proj")  # for it, what its gate dropped is zero
                layer, cut = model.get_submodule(name), Cut(cut.size, cut.sparsity, NONZERO)
            install(undo, name, layer, Skipping, cut)
        yield


def install(
    undo: contextlib.ExitStack,
    name: str,
    layer: Linear,
    product: Callable[[Linear, Cut], Callable[[Tensor], Tensor]],
    cut: Cut,
) -> None:
    """Give a layer another product until `undo` is called; `UserError` if it has one already."""
    if layer.product is not None:
        raise UserError(f"{name} skips already, or is packed: leave that context before skipping")
    layer.product = product(layer, cut)
    undo.callback(setattr, layer, "product", None)


class Skipping:
    """A layer's product with vectors of which some entries do not count: x (..., in) to (..., out)."""

    def __init__(self, layer: Linear, cut: Cut):
        self.weight, self.bias, self.cut = layer.weight.detach(), layer.bias, cut
        self.axes = None if cut.axes is None else cut.axes.T.contiguous()  # a row each, as in a weight
        columns = self.weight.T if cut.axes is None else self.axes @ self.weight.T  # (in, out)
        size, out = columns.shape
        parts = next((p for p in PARTS if out % p == 0 and out >= p * SHORTEST), 1)
        self.table = columns.reshape(size * parts, out // parts).contiguous()
        self.rows = torch.arange(size * parts).view(size, parts).T.contiguous()  # (parts, in)
        self.starts = torch.arange(parts)

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        if not one_float32_row_on_cpu(x):
            return F.linear(cut_to(x, self.cut)[0], self.weight, self.bias)
        along = (x if self.axes is None else linear_one_row(x, self.axes)).reshape(-1)  # (in,)
        kept = self.cut.counts(along).nonzero().view(-1)  # (k,)
        rows = self.rows.index_select(1, kept).view(-1)  # (parts * k,)
        shares = along.index_select(0, kept).expand(len(self.rows), -1).reshape(-1)
        sums = torch.embedding_bag(
            self.table, rows, self.starts * len(kept), mode=0, per_sample_weights=shares
        )[0]  # (parts, out / parts)
        y = sums.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


class SkippingGates:
    """c_fc of SwiGLU, whose gate is computed whole, and of whose up projection only the rows that count."""

    def __init__(self, layer: Linear, cut: Cut):
        self.weight, self.bias, self.cut = layer.weight.detach(), layer.bias, cut

    def __call__(self, x: Tensor) -> Tensor:
        """x (..., C) to gate and up, (..., 2 * inner); both are zero where the gate does not count."""
        if not one_float32_row_on_cpu(x):
            gate, up = F.linear(x, self.weight, self.bias).chunk(2, dim=-1)
            return torch.cat([gate * self.cut.counts(F.silu(gate)), up], dim=-1)
        gate_rows, up_rows = self.weight.chunk(2)
        gate_bias, up_bias = (None, None) if self.bias is None else self.bias.chunk(2)
        gate = linear_one_row(x, gate_rows, gate_bias).view(-1)  # (inner,)
        counts = self.cut.counts(F.silu(gate))
        kept = counts.nonzero().view(-1)  # (k,)
        up = up_rows.index_select(0, kept) @ x.reshape(-1)
        if up_bias is not None:
            up = up + up_bias.index_select(0, kept)
        both = torch.cat([gate * counts, torch.zeros_like(gate).index_copy(0, kept, up)])
        return both.view(*x.shape[:-1], -1)
