"""Static pruning: which weights it removes.

A `Pruning` is a plan, which `plan_pruning` makes. `pruned` applies it and puts every weight back bit for bit;
`prune` gives a pruned model.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from supertf.compression.fate import Fate
from supertf.compression.replaced_weights import Replacement


@dataclass(frozen=True)
class Pruning:
    """A plan: which weights of which matrices become zero, and what the others become.

    settings: what was asked for. removed: by matrix name, (out, in) bool, True where removed. changed:
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

    def replacement(self) -> Replacement:
        """The plan as new weights of the matrices that it prunes."""

        def write(name: str, weight: Tensor) -> None:
            if name in self.changed:
                weight.copy_(self.changed[name])
            weight.masked_fill_(self.removed[name].to(weight.device), 0.0)

        shapes = {name: tuple(mask.shape) for name, mask in self.removed.items()}
        return Replacement("prune", shapes, write)
