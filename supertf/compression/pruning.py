"""Static, unstructured pruning: what it removes, and models with it applied, for a while or as a copy.

A `Pruning` is a plan, which `pruning_plan.plan` makes. `pruned` applies it and puts every weight back bit for
bit; `pruned_copy` gives a pruned model.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from supertf.compression.replaced_weights import Model, Replacement, replaced_copy, replaced_weights
from supertf.model import Coordinate


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


def pruned(model: nn.Module, pruning: Pruning) -> AbstractContextManager[None]:
    """Run the model with the plan applied while the context lasts.

    On leaving, also through an exception, the very tensors of before are back in place. Raises `UserError` on
    a plan for other matrices and on weights that are packed, or pruned or quantized already; and on leaving
    when the pruned weights were changed meanwhile: then nothing is put back, so that no training is lost.
    """
    return replaced_weights(model, replacement(pruning))


def pruned_copy(model: Model, pruning: Pruning) -> Model:
    """A copy of the model with the plan applied for good; the model is not touched.

    Raises `UserError` as `pruned` does on entering.
    """
    return replaced_copy(model, replacement(pruning))


def replacement(pruning: Pruning) -> Replacement:
    """The plan as new weights of the matrices that it prunes."""

    def write(name: str, weight: Tensor) -> None:
        if name in pruning.changed:
            weight.copy_(pruning.changed[name])
        weight.masked_fill_(pruning.removed[name].to(weight.device), 0.0)

    shapes = {name: tuple(mask.shape) for name, mask in pruning.removed.items()}
    return Replacement("prune", shapes, write)
