"""Which weight matrices a model has, and the coordinates of single weights, in any causal language model.

The matrices of the layers, all but embeddings and head, are those that are pruned and quantized. They are
named as their modules are: h.3.attn.c_attn, h.3.attn.c_proj, h.3.mlp.c_fc and h.3.mlp.c_proj in this lab's
models. What follows the layer's number is a matrix's kind. The head, lm_head, is a kind of its own for those
who ask for it: it is often tied to the embeddings, and then its weights are not to be changed.

Super weights live in the MLPs' output projections. Llama-like models call the matrix down_proj, GPT-2 and
this lab c_proj, GPT-NeoX and Falcon dense_4h_to_h, OPT and Phi fc2. GPT-2's Hugging Face class keeps it
transposed.
"""

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supertf.errors import UserError

LAYER = r"(?:.*\.)?(?:h|layers|blocks)\.(\d+)\."  # the layer's number
KIND = re.compile(LAYER + "(.+)")
OUTPUT = re.compile(
    LAYER + r"(?:(?:mlp|ffn|feed_forward)\.(?:down_proj|c_proj|dense_4h_to_h|fc2|fc_out|w2)|fc2)"
)
EXPERTS = re.compile(LAYER + r"(?:.*\.)?(?:experts|block_sparse_moe)(?:\..*)?")
MLP = re.compile(r"mlp|ffn|feed_forward|fc2|moe|experts")  # quick to search for
OTHER_SENSES = re.compile(r"vision|visual|image|audio")  # encoders beside the language model
PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
HEAD = "lm_head"

Coordinate = tuple[int, int, int]  # (layer, out, in) of W[out, in]


@dataclass(frozen=True)
class Projection:
    """One matrix of a model, such as a layer's projection from the MLP's inner width to the residual stream.

    Attributes:
        layer: its number, from 0; of the head, the number of layers.
        name: the module's name in its model.
        module: holds the weight.

    Raises:
        UserError: the matrix is not plain floating-point numbers.
    """

    layer: int
    name: str
    module: nn.Module

    def __post_init__(self) -> None:
        weight = getattr(self.module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.dtype not in PLAIN:
            kind = getattr(weight, "dtype", type(self.module).__name__)
            raise UserError(
                f"{self.name} holds {kind}, not a matrix of plain floating-point numbers: load the model "
                "without quantization"
            )

    @property
    def weight(self) -> Tensor:
        """W[out, in], a view of the parameter."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)  # as it was when this was made
        return weight.t() if type(self.module).__name__ == "Conv1D" else weight

    def row(self, out: int) -> Tensor:
        """A copy of W[out, :], (in,)."""
        with self.loaded():
            return self.weight[out].clone()

    def bias(self, out: int) -> Tensor | None:
        """A copy of the bias of one output channel, (1,), where there is one."""
        with self.loaded():
            bias = getattr(self.module, "bias", None)
            return None if bias is None else bias[out : out + 1].clone()

    def loaded(self) -> contextlib.AbstractContextManager[None]:
        """The matrix in memory for a while, where the model is too large and it lies on disk."""
        if not hasattr(self.module, "_hf_hook"):
            return contextlib.nullcontext()
        from accelerate.utils import align_module_device

        return align_module_device(self.module)


def output_projections(model: nn.Module) -> list[Projection]:
    """The output projection of every layer's MLP, first layer first.

    Raises:
        UserError: the names of the model's MLPs are not known, it is quantized, or a mixture of experts:
            there a token meets a few of many small MLPs, and one matrix per layer does not exist.
    """
    inside = [(name, module) for name, module in model.named_modules() if MLP.search(name)]
    if any(EXPERTS.fullmatch(name) for name, _ in inside):
        raise UserError(
            "the model is a mixture of experts, whose layers have no single output projection: "
            "super weights are looked for in dense models only"
        )
    found = [
        Projection(int(match[1]), name, module)
        for name, module in inside
        if (match := OUTPUT.fullmatch(name)) and not OTHER_SENSES.search(name)
    ]
    found.sort(key=lambda projection: projection.layer)
    if [projection.layer for projection in found] != list(range(len(found))) or not found:
        raise UserError(
            f"{type(getattr(model, 'model', model)).__name__} has {len(found)} MLP output projections under "
            "known names (down_proj, c_proj, dense_4h_to_h, fc2 in layers 0, 1, ...), expected one per layer"
        )
    return found


def block_name(projection: Projection) -> str:
    """The name of the block that an output projection belongs to: "h.3" of "h.3.mlp.c_proj"."""
    match = OUTPUT.fullmatch(projection.name)
    assert match is not None  # it is an output projection by its name
    return projection.name[: match.end(1)]


def matrices(model: nn.Module, kinds: Iterable[str] | None = None) -> dict[str, Projection]:
    """The linear layers inside the model's layers, by name.

    Args:
        model: this lab's or one of transformers.
        kinds: which ones, such as ("mlp.c_fc", "mlp.c_proj"); None is all but the head.

    Returns:
        In the model's order, each with `weight`, W[out, in].

    Raises:
        UserError: a kind that the model lacks, or a model that `output_projections` refuses.
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
    return HEAD if name.rpartition(".")[2] == HEAD else KIND.sub(r"\2", name)


def check_coordinate(projections: list[Projection], coordinate: Coordinate) -> None:
    """`UserError` unless (layer, out, in) lies inside the model, whose output projections these are."""
    layer, out, into = coordinate
    if not 0 <= layer < len(projections):
        raise UserError(f"no weight {show(coordinate)}: the model has layers 0 to {len(projections) - 1}")
    rows, columns = projections[layer].weight.shape
    if not (0 <= out < rows and 0 <= into < columns):
        raise UserError(
            f"no weight {show(coordinate)}: the down projection of layer {layer} is {rows} x {columns}; "
            "give layer, out and in counted from 0"
        )


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
    weights = {matrix.name: matrix.weight for matrix in output_projections(model)}
    masks: dict[str, Tensor] = {}
    for name, out, into in places(model, coordinates):
        if name not in masks:
            masks[name] = torch.zeros_like(weights[name], dtype=torch.bool)
        masks[name][out, into] = True
    return masks


def show(coordinate: Coordinate) -> str:
    """A coordinate as people write it: 11[507, 1229]."""
    layer, out, into = coordinate
    return f"{layer}[{out}, {into}]"


def parse(text: str) -> Coordinate:
    """Read "11[507, 1229]" or "11,507,1229"; `UserError` on anything else."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:\[\s*(\d+)\s*,\s*(\d+)\s*\]|,\s*(\d+)\s*,\s*(\d+))\s*", text)
    if not match:
        raise UserError(f"coordinate {text!r}; expected layer[out, in], for example 11[507, 1229]")
    layer, *pairs = match.groups()
    out, into = (number for number in pairs if number is not None)
    return int(layer), int(out), int(into)
