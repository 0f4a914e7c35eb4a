"""The matrices of a decoder's layers that are pruned and quantized: all but embeddings and head.

Named as their modules are: h.3.attn.c_attn, h.3.attn.c_proj, h.3.mlp.c_fc and h.3.mlp.c_proj in this lab's
models. What follows the layer's number is a matrix's kind. The head, lm_head, is a kind of its own for those
who ask for it: it is often tied to the embeddings, and then its weights are not to be changed.
"""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model.projections import (
    LAYER,
    OTHER_SENSES,
    PLAIN,
    Coordinate,
    Projection,
    check_coordinate,
    output_projections,
)

KIND = re.compile(LAYER + "(.+)")
HEAD = "lm_head"


def matrices(model: nn.Module, kinds: Iterable[str] | None = None) -> dict[str, Projection]:
    """The linear layers inside the model's layers by name, first layer first; each with `weight`, W[out, in].

    kinds: which ones, such as ("mlp.c_fc", "mlp.c_proj"); None is all but the head. Raises `UserError` on a
    kind that the model lacks, and on models that `output_projections` refuses: quantized, mixtures of
    experts, unknown.
    """
    output_projections(model)
    found = {
        name: Projection(int(match[1]), name, module)
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and (match := KIND.fullmatch(name))
        and not OTHER_SENSES.search(name)
    }
    if kinds is None:
        return found
    found |= heads(model)
    wanted, known = list(kinds), dict.fromkeys(map(kind, found))
    if not wanted or not set(wanted) <= set(known):
        raise UserError(f"matrices of kinds {wanted}; choose one or more of {', '.join(known)}")
    return {name: matrix for name, matrix in found.items() if kind(name) in wanted}


def heads(model: nn.Module) -> dict[str, Projection]:
    """The output head by name, if there is one in plain numbers; its layer is the number of layers."""
    return {
        name: Projection(len(output_projections(model)), name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == HEAD and isinstance(module, nn.Linear) and module.weight.dtype in PLAIN
    }


def kind(name: str) -> str:
    """What a matrix is, whatever its layer: mlp.c_proj for h.3.mlp.c_proj, lm_head for the head."""
    return HEAD if name.rpartition(".")[2] == HEAD else KIND.fullmatch(name)[2]


def places(model: nn.Module, coordinates: Iterable[Coordinate]) -> list[tuple[str, int, int]]:
    """Weights of the MLPs' output projections as (matrix name, out, in); `UserError` on one outside."""
    projections, found = output_projections(model), []
    for coordinate in coordinates:
        check_coordinate(projections, coordinate)
        layer, out, into = coordinate
        found.append((projections[layer].name, out, into))
    return found


def marks(model: nn.Module, coordinates: Iterable[Coordinate]) -> dict[str, Tensor]:
    """The same weights as masks: by matrix name (out, in) bool, True at each; other matrices have none."""
    shapes = {matrix.name: matrix.weight for matrix in output_projections(model)}
    masks: dict[str, Tensor] = {}
    for name, out, into in places(model, coordinates):
        if name not in masks:
            masks[name] = torch.zeros_like(shapes[name], dtype=torch.bool)
        masks[name][out, into] = True
    return masks
