"""Change single weights of the MLPs' output projections for a while, and put them back bit for bit."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.model import (
    WEIGHTS,
    Coordinate,
    LanguageModel,
    OtherProduct,
    Projection,
    changed,
    check_coordinate,
    output_projections,
    parse,
)

EDITED = "edited"


@contextlib.contextmanager
def scaled_weights(
    model: LanguageModel, coordinates: Iterable[Coordinate], factor: float = 0.0
) -> Iterator[None]:
    """Multiply weights (layer, out, in) by `factor`, 0 to remove them, while the context lasts.

    On leaving, also through an exception, every weight is put back bit for bit.

    Args:
        model: whose MLPs' output projections hold the weights.
        coordinates: of the weights, thousands if need be; one given twice is scaled once.
        factor: that they are multiplied by.

    Raises:
        UserError: a coordinate outside the model; a matrix that cannot be edited (quantized, on disk, packed,
            or shared with another part of the model); this context left before one inside it that changes
            the same matrix.
    """
    projections = output_projections(model)
    places: dict[int, list[tuple[int, int]]] = {}
    for coordinate in coordinates:
        check_coordinate(projections, coordinate)
        layer, out, into = coordinate
        places.setdefault(layer, []).append((out, into))
    check_editable(model, [projections[layer] for layer in places])
    saved: dict[str, tuple[Projection, tuple[Tensor, ...], Tensor]] = {}

    def put_back(name: str) -> None:
        if name in saved:
            projection, at, values = saved[name]
            projection.weight.data[at] = values.to(projection.weight)  # the model may have moved meanwhile

    modules = {projections[layer].name: projections[layer].module for layer in places}
    with changed(WEIGHTS, EDITED, modules, put_back):
        for layer, pairs in places.items():
            weight = projections[layer].weight.data
            at = tuple(torch.tensor(pairs).T)  # (out, in), each (N,)
            saved[projections[layer].name] = projections[layer], at, weight[at]
            weight[at] = weight[at] * factor
        yield


def coordinates(weights: Any) -> list[Coordinate]:
    """Single weights as (layer, out, in), each once and in the order given.

    Args:
        weights: one or several of these: "11[507, 1229]", (11, 507, 1229), or what has a `coordinate`, as
            a `Spike` and an `Ablation` do.

    Raises:
        UserError: text of another form.
    """
    if isinstance(weights, str) or hasattr(weights, "coordinate") or is_coordinate(weights):
        weights = [weights]
    found = [
        parse(one) if isinstance(one, str) else tuple(getattr(one, "coordinate", one)) for one in weights
    ]
    return list(dict.fromkeys(found))


def is_coordinate(weight: Any) -> bool:
    """Whether this is (layer, out, in)."""
    return (
        isinstance(weight, tuple | list)
        and len(weight) == 3
        and all(isinstance(part, int) for part in weight)
    )


def check_editable(model: LanguageModel, projections: Iterable[Projection]) -> None:
    """`UserError` when changing one of these matrices would not work, or would change more than it."""
    names: dict[int, list[str]] = {}  # of parameters, by where their numbers are
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter.data_ptr(), []).append(name)
    for projection in projections:
        if projection.weight.device.type == "meta":
            raise UserError(f"{projection.name} is on disk, not in memory: load the whole model to change it")
        if isinstance(projection.module, OtherProduct):
            raise UserError(
                f"{projection.name} is packed, or laid out for skipping, and a change of its weights would "
                "not show: change them first, then pack or skip"
            )
        own = f"{projection.name}.weight"
        sharing = [name for name in names[projection.weight.data_ptr()] if name != own]
        if sharing:
            raise UserError(
                f"{projection.name} is tied to {sharing[0]}: changing a weight of one would change both"
            )
