"""What becomes of single weights that one watches."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import nn

from supertf.model import Coordinate, output_projections, places


@dataclass(frozen=True)
class Fate:
    """One weight before and after.

    Attributes:
        coordinate: (layer, out, in) of an MLP's output projection.
        before: its value.
        after: its value then; None where its matrix is smaller and has no column like its own (also where
            columns were fitted anew).
        removed: whether it was pruned.
        protected: whether a plan was to keep its value; `compare`, which sees models, cannot know.
        dropped: share of the tokens for which its input was dropped, of dynamic pruning.
        rank: in plans of static and structured pruning, how many of the group that it is compared with go
            before it, protection aside; None where its matrix is not pruned, as are the next two.
        group: how many weights or channels the group has.
        going: how many of them are to go.
    """

    coordinate: Coordinate
    before: float
    after: float | None
    removed: bool = False
    protected: bool = False
    dropped: float | None = None
    rank: int | None = None
    group: int | None = None
    going: int | None = None

    @property
    def chosen(self) -> bool:
        """Whether the method would remove it if nothing were protected."""
        return self.rank is not None and self.going is not None and self.rank < self.going


def untouched(
    model: nn.Module, watch: Collection[Coordinate], protect: Collection[Coordinate] = ()
) -> list[tuple[Fate, str]]:
    """The fate of each watched weight if nothing is done to it, and its matrix's name; `UserError` on weights
    outside the model."""
    found, projections = [], output_projections(model)
    for coordinate, (name, out, into) in zip(watch, places(model, watch), strict=True):
        value = projections[coordinate[0]].weight[out, into].item()
        found.append((Fate(coordinate, value, value, protected=coordinate in protect), name))
    return found
