"""Change single weights of the MLPs' output projections for a while, and put them back bit for bit."""

import contextlib
from collections.abc import Iterable, Iterator

from torch import nn

from supertf.errors import UserError
from supertf.projections import Coordinate, Projection, check_coordinate, output_projections


@contextlib.contextmanager
def scaled_weights(
    model: nn.Module, coordinates: Iterable[Coordinate], factor: float = 0.0
) -> Iterator[None]:
    """Multiply weights (layer, out, in) by `factor`, 0 to remove them, while the context lasts.

    On leaving, also through an exception, every weight is put back bit for bit. Raises `UserError` on a
    coordinate outside the model, and on a matrix that cannot be edited: quantized, on disk, or shared with
    another part of the model.
    """
    projections = output_projections(model)
    coordinates = list(coordinates)
    for coordinate in coordinates:
        check_coordinate(projections, coordinate)
    for layer in {layer for layer, _, _ in coordinates}:
        check_editable(model, projections[layer])
    saved = []
    try:
        for layer, out, into in coordinates:
            weight = projections[layer].weight.data
            saved.append((weight, out, into, weight[out, into].clone()))
            weight[out, into] *= factor
        yield
    finally:
        for weight, out, into, value in reversed(saved):  # last first, in case a coordinate came twice
            weight[out, into] = value


def check_editable(model: nn.Module, projection: Projection) -> None:
    """`UserError` when changing this matrix would not work, or would change more than this matrix."""
    weight = projection.weight
    if weight.device.type == "meta":
        raise UserError(f"{projection.name} is on disk, not in memory: load the whole model to change it")
    parameter = projection.module.weight
    sharing = [
        name
        for name, other in model.named_parameters(remove_duplicate=False)
        if other.data_ptr() == parameter.data_ptr() and name != f"{projection.name}.weight"
    ]
    if sharing:
        raise UserError(
            f"{projection.name} is tied to {sharing[0]}: changing a weight of one would change both"
        )
