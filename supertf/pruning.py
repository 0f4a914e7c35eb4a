"""Static, unstructured pruning: what it removes, and models with it applied, for a while or as a copy.

A `Pruning` is a plan, which `pruning_plan.plan` makes. `pruned` applies it and puts every weight back bit for
bit; `pruned_copy` gives a pruned model.
"""

import contextlib
import copy
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.matrices import matrices
from supertf.projections import Coordinate, Projection
from supertf.weight_edits import check_editable

Model = TypeVar("Model", bound=nn.Module)
_pruned: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # modules that a context of `pruned` holds


@dataclass(frozen=True)
class Fate:
    """What a method does to one weight, protection aside: how many of its group go before it, how many go.

    removed: whether it is removed in the end. rank: 0 goes first, None in a matrix that is not pruned.
    group, going: the weights it is compared with, and how many of them the method is to remove.
    """

    coordinate: Coordinate
    removed: bool
    rank: int | None = None
    group: int = 0
    going: int = 0

    @property
    def chosen(self) -> bool:
        """Whether the method would remove it if nothing were protected."""
        return self.rank is not None and self.rank < self.going


@dataclass(frozen=True)
class Pruning:
    """A plan: which weights of which matrices become zero, and what the others become.

    settings: what `plan` was asked for. removed: by matrix name, (out, in) bool, True where removed. changed:
    by matrix name, the new values of the whole matrix, from methods that also change the weights they keep.
    fates: of the weights that were watched. To undo it, leave the context of `pruned`.
    """

    method: str
    settings: dict[str, Any]
    removed: dict[str, Tensor]
    changed: dict[str, Tensor] = field(default_factory=dict)
    fates: tuple[Fate, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Weights removed, by matrix."""
        return {name: int(mask.sum()) for name, mask in self.removed.items()}

    @property
    def sparsities(self) -> dict[str, float]:
        """Share of the weights removed, by matrix."""
        return {name: count / self.removed[name].numel() for name, count in self.counts.items()}

    @property
    def sparsity(self) -> float:
        """Share of the weights removed, of all matrices that were pruned."""
        return sum(self.counts.values()) / sum(mask.numel() for mask in self.removed.values())


@contextlib.contextmanager
def pruned(model: nn.Module, pruning: Pruning) -> Iterator[None]:
    """Run the model with the plan applied while the context lasts.

    On leaving, also through an exception, the very tensors of before are back in place. Raises `UserError` on
    a plan for other matrices and on weights that are packed or pruned already; and on leaving when the pruned
    weights were changed meanwhile: then nothing is put back, so that no training is lost.
    """
    found = fitting(model, pruning)
    dense = {name: matrix.module.weight.data for name, matrix in found.items()}
    modules = [matrix.module for matrix in found.values()]
    with contextlib.ExitStack() as undo:
        undo.callback(put_back, found, dense)
        for name, matrix in found.items():
            install(matrix, dense[name], pruning)
        _pruned.update(modules)
        try:
            yield
        finally:
            _pruned.difference_update(modules)
            changed = [name for name, matrix in found.items() if not as_left(matrix, dense[name], pruning)]
            if changed:
                undo.pop_all()  # and with it `put_back`
                raise UserError(
                    f"{changed[0]} was changed while it was pruned, so the pruning is not undone, lest the "
                    "change is lost: train a `pruned_copy` instead"
                )


def pruned_copy(model: Model, pruning: Pruning) -> Model:
    """A copy of the model with the plan applied for good; the model is not touched.

    Raises `UserError` as `pruned` does on entering.
    """
    fitting(model, pruning)
    changed = copy.deepcopy(model)
    for matrix in fitting(changed, pruning).values():
        apply(matrix, pruning)
    return changed


def fitting(model: nn.Module, pruning: Pruning) -> dict[str, Projection]:
    """The matrices that a plan is for; `UserError` unless they fit it and can be changed now."""
    known = matrices(model)
    for name, mask in pruning.removed.items():
        shape = tuple(known[name].weight.shape) if name in known else None
        if shape != tuple(mask.shape):
            here = "none of that name" if shape is None else f"one of {shape[0]} x {shape[1]}"
            raise UserError(
                f"the plan prunes {name}, a matrix of {mask.shape[0]} x {mask.shape[1]}, and the model has "
                f"{here}: plan for this model"
            )
        check_editable(model, known[name])
        if known[name].module in _pruned:
            raise UserError(f"{name} is pruned already: leave that context before pruning again")
        if getattr(known[name].module, "product", None) is not None:
            raise UserError(f"{name} is packed, which would hide the pruning: prune first, then pack")
    return {name: known[name] for name in pruning.removed}


def apply(matrix: Projection, pruning: Pruning) -> None:
    """Prune one matrix in place."""
    weight = matrix.weight.data
    if matrix.name in pruning.changed:
        weight.copy_(pruning.changed[matrix.name])
    weight.masked_fill_(pruning.removed[matrix.name].to(weight.device), 0.0)


def install(matrix: Projection, dense: Tensor, pruning: Pruning) -> None:
    """Give the matrix a pruned copy of its dense parameter, which stays as it is."""
    matrix.module.weight.data = dense.clone()
    apply(matrix, pruning)


def put_back(found: dict[str, Projection], dense: dict[str, Tensor]) -> None:
    """Give the matrices their dense parameters again."""
    for name, matrix in found.items():
        matrix.module.weight.data = dense[name]


def as_left(matrix: Projection, dense: Tensor, pruning: Pruning) -> bool:
    """Whether the matrix is, bit for bit, what `install` made it."""
    now = matrix.module.weight.data
    install(matrix, dense, pruning)
    made, matrix.module.weight.data = matrix.module.weight.data, now
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[made.element_size()]
    alike = (now.dtype, now.device, now.shape) == (made.dtype, made.device, made.shape)
    return alike and torch.equal(now.view(bits), made.view(bits))
