"""SparseGPT: remove weights of a matrix in one shot, and let the rest of each row make up for it.

Frantar & Alistarh 2023 (arXiv 2301.00774), Algorithm 1. Optimal Brain Surgeon asks which weights w_j of a row
raise the squared error of the row's outputs least, and how the others best change once w_j is gone. With
H = X^T X of the inputs, the error is w_j^2 / [H^-1]_jj and the change -w_j [H^-1]_j: / [H^-1]_jj. Going
through the columns from left to right, and changing only those to the right, all rows share one sequence of
inverses, which are the rows of a single Cholesky factor.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.compression.pruning.groups import lowest_of
from supertf.device import in_float64

BLOCK = 128  # columns whose removals are chosen together; the paper's
DAMPING = 0.01  # added to the diagonal of H, as a share of its mean; the paper's


@dataclass(frozen=True)
class Compensated:
    """A pruned matrix, all (out, in): new weights, zero where removed; the mask; and the scores w_j^2 /
    [H^-1]_jj as they were when each weight's fate was decided."""

    weight: Tensor
    removed: Tensor
    scores: Tensor


@torch.no_grad()
def sparsegpt(
    weight: Tensor,
    products: Tensor,
    sparsity: float,
    every: int | None = None,
    protected: Tensor | None = None,
    block: int = BLOCK,
    damping: float = DAMPING,
) -> Compensated:
    """Prune weight W[out, in], whose inputs had the `products` X^T X (in, in).

    Of every `block` columns, all rows together, `sparsity` of the weights go; with `every`, of so many
    consecutive inputs of each row, which must divide them. protected: (out, in) bool; these weights keep
    their values, and the columns to their right make up for that too. The result has the dtype of `weight`;
    the factor is computed in float64, since a channel of massive activations makes H badly conditioned.
    """
    dtype = torch.promote_types(weight.dtype, torch.float32)
    w = weight.to(dtype, copy=True)
    root = inverse_root(products, damping).to(dtype).to(w.device)
    alive = products.diagonal() > 0  # a channel that was always zero costs nothing, whatever the damping says
    removed = torch.zeros_like(w, dtype=torch.bool)
    scores = torch.empty_like(w)
    together = every or block  # columns that are decided at once
    block = max(block // together, 1) * together
    for start in range(0, w.shape[1], block):
        stop = min(start + block, w.shape[1])
        errors = torch.empty_like(w[:, start:stop])
        for j in range(start, stop):
            if (j - start) % together == 0:
                now = slice(j, min(j + together, stop))
                scores[:, now] = (w[:, now] / root.diagonal()[now]) ** 2 * alive[now]
                held = None if protected is None else protected[:, now]
                removed[:, now] = lowest_of(scores[:, now], every, sparsity, held)
            target = w[:, j].masked_fill(removed[:, j], 0.0)
            if protected is not None:
                target = torch.where(protected[:, j], weight[:, j].to(dtype), target)
            error = (w[:, j] - target) / root[j, j]
            w[:, j:stop].addr_(error, root[j, j:stop], alpha=-1)
            w[:, j] = target  # it is that but for rounding
            errors[:, j - start] = error
        w[:, stop:].addmm_(errors, root[start:stop, stop:], alpha=-1)  # the columns of later blocks, at once
    return Compensated(w.to(weight.dtype), removed, scores)


def inverse_root(products: Tensor, damping: float) -> Tensor:
    """Upper triangular U (in, in) (`in_float64`) with U^T U = (H + damping * mean(diag H) * I)^-1.

    Its row j over its diagonal entry is the j-th row of the inverse of H without the columns before j, over
    that row's first entry: all that Optimal Brain Surgeon needs. Inputs that are all zero make H = I.
    """
    h = in_float64(products)
    amount = damping * h.diagonal().mean()
    h = h + torch.eye(len(h), dtype=h.dtype, device=h.device) * (amount if amount > 0 else 1.0)
    reverse = torch.linalg.cholesky(h.flip(0, 1)).flip(0, 1)  # R, upper, with R R^T = H
    eye = torch.eye(len(h), dtype=h.dtype, device=h.device)
    return torch.linalg.solve_triangular(reverse, eye, upper=True)
