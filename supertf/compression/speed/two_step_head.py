"""Dynamic pruning of the head: rough logits of all words, exact ones of the few that stand a chance.

The head is the largest matrix of a small model, and of its products with a token's state hardly any matters.
SVD-softmax (Shim, Lee, Choi, Boo, Sung 2017, "SVD-Softmax: Fast Softmax Approximation on Large Vocabulary
Neural Networks") computes all of them in the few directions where they differ most, and then those that come
out highest in full. All the others keep their rough values, so probabilities stay probabilities.

The directions here are those that lose least over the states of a calibration text: the rank-r matrix nearest
to W in the mean squared error of W x, which is the truncated SVD of W S^(1/2), S the states' second moments.
"""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.compression.calibration import Calibration
from supertf.compression.speed.kernels import columns_product, limited_threads, rows_product, threads
from supertf.compression.speed.skipped_columns import skippable
from supertf.errors import UserError
from supertf.model import HEAD, LanguageModel, linear_one_row, one_float32_row_on_cpu, replace_product

DAMPING = 0.01  # of the mean second moment: states of other texts reach a little further


@dataclass(frozen=True)
class RoughHead:
    """W (V, C) is nearly up @ down.

    Attributes:
        up: (V, r).
        down: (r, C).
        exact: words that get their logits in full.
    """

    up: Tensor
    down: Tensor
    exact: int

    @property
    def work(self) -> float:
        """Weights that are read for one token, as a share of the head's."""
        (V, r), C = self.up.shape, self.down.shape[1]
        return (V * r + r * C + self.exact * C) / (V * C)


@torch.no_grad()
def rough_head(
    model: LanguageModel, calibration: Calibration, *, rank: int = 128, exact: int = 4096
) -> RoughHead:
    """The head's best few directions; the model is not touched.

    Args:
        model: this package's `GPT`, in float32 on a CPU.
        calibration: `calibrate(model, ids, products=True, matrices=["lm_head"])`.
        rank: how many directions.
        exact: words whose logits are computed in full.

    Returns:
        What `svd_softmax` takes.

    Raises:
        UserError: numbers out of range, a calibration that has no products of this head's inputs, and other
            classes, devices and dtypes.
    """
    model = skippable(model)
    weight = model.lm_head.weight.detach()
    V, C = weight.shape
    for name, value, most in (("rank", rank, C), ("exact", exact, V)):
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}, expected 1 to {most}")
    products = calibration.products.get(HEAD, torch.empty(0))
    if tuple(products.shape) != (C, C):
        raise UserError(
            f"the calibration has no products of the head's {C} inputs: "
            "`calibrate(model, ids, products=True, matrices=['lm_head'])` of this model keeps them"
        )
    moments = products.double() / calibration.tokens
    moments += DAMPING * moments.diagonal().mean() * torch.eye(C, dtype=moments.dtype)
    sizes, axes = torch.linalg.eigh(moments)
    root, inverse = ((axes * sizes**power) @ axes.T for power in (0.5, -0.5))  # of S^(1/2), S^(-1/2)
    gram = root @ (weight.T @ weight).double() @ root
    best = torch.linalg.eigh(gram).eigenvectors[:, -rank:]  # (C, r): right singular vectors of W S^(1/2)
    return RoughHead((weight @ (root @ best).float()), (best.T @ inverse).float().contiguous(), exact)


@contextlib.contextmanager
def svd_softmax(model: LanguageModel, head: RoughHead) -> Iterator[None]:
    """Run the model with rough logits of most words while the context lasts.

    One token at a time has the work left out; several at once get the same logits from dense products. The
    directions as rows take a `rank`-th of the head's inputs as much memory again. The weights are untouched.

    Args:
        model: this package's `GPT`, in float32 on a CPU.
        head: its `rough_head`.

    Raises:
        UserError: other classes, devices and dtypes, a head of another shape, and a head whose product is
            replaced already.
    """
    model = skippable(model)
    shape = (len(head.up), head.down.shape[1])
    if shape != tuple(model.lm_head.weight.shape):
        raise UserError(
            f"the rough head is of {shape[0]} words and {shape[1]} inputs, the model's of "
            f"{' and '.join(map(str, model.lm_head.weight.shape))}: make it of this model"
        )
    with limited_threads(), contextlib.ExitStack() as undo:
        replace_product(undo, HEAD, model.lm_head, functools.partial(RoughProduct, model.lm_head, head))
        yield


class RoughProduct:
    """The head's product: x (..., C) to logits (..., V)."""

    def __init__(self, layer: nn.Linear, head: RoughHead):
        self.weight, self.head = layer.weight.detach(), head
        self.rows, self.columns = self.weight.numpy(), head.up.T.contiguous().numpy()  # (V, C), (r, V)
        self.all, self.parts = np.arange(len(self.columns)), threads()

    def __call__(self, x: Tensor) -> Tensor:
        """The logits."""
        head = self.head
        if not one_float32_row_on_cpu(x):
            logits = F.linear(F.linear(x, head.down), head.up)
            best = logits.topk(head.exact, sorted=False).indices
            return logits.scatter(-1, best, F.linear(x, self.weight).gather(-1, best))
        low = linear_one_row(x, head.down).reshape(-1)  # (r,)
        row = columns_product(low.numpy(), self.all, self.columns, self.parts)  # (V,)
        highest = np.argpartition(row, len(row) - head.exact)[-head.exact :]
        rows_product(x.reshape(-1).numpy(), highest, self.rows, row)
        return torch.from_numpy(row).view(*x.shape[:-1], -1)
