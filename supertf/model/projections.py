"""The output projections of a model's MLPs: where super weights live, in any causal language model.

Llama-like models call the matrix down_proj, GPT-2 and this lab c_proj, GPT-NeoX and Falcon dense_4h_to_h,
OPT and Phi fc2. GPT-2's Hugging Face class keeps it transposed.
"""

import contextlib
import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from supertf.errors import UserError

LAYER = r"(?:.*\.)?(?:h|layers|blocks)\.(\d+)\."  # the layer's number
NAMES = re.compile(
    LAYER + r"(?:(?:mlp|ffn|feed_forward)\.(?:down_proj|c_proj|dense_4h_to_h|fc2|fc_out|w2)|fc2)"
)
EXPERTS = re.compile(LAYER + r"(?:.*\.)?(?:experts|block_sparse_moe)(?:\..*)?")
MLP = re.compile(r"mlp|ffn|feed_forward|fc2|moe|experts")  # quick to search for
OTHER_SENSES = re.compile(r"vision|visual|image|audio")  # encoders beside the language model
PLAIN = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Projection:
    """One layer's projection from the MLP's inner width back to the residual stream.

    Raises `UserError` for a matrix that is not plain numbers.
    """

    layer: int
    name: str  # the module's name in its model
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
        return self.module.weight.t() if type(self.module).__name__ == "Conv1D" else self.module.weight

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

    Raises `UserError` for a model whose MLPs are not known or quantized, and for mixtures of experts, where a
    token meets a few of many small MLPs and one matrix per layer does not exist.
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
        if (match := NAMES.fullmatch(name)) and not OTHER_SENSES.search(name)
    ]
    found.sort(key=lambda projection: projection.layer)
    if [projection.layer for projection in found] != list(range(len(found))) or not found:
        raise UserError(
            f"{type(getattr(model, 'model', model)).__name__} has {len(found)} MLP output projections under "
            "known names (down_proj, c_proj, dense_4h_to_h, fc2 in layers 0, 1, ...), expected one per layer"
        )
    return found


def block_name(projection: Projection) -> str:
    """The name of the block that a projection belongs to: "h.3" of "h.3.mlp.c_proj"."""
    return projection.name[: NAMES.fullmatch(projection.name).end(1)]


Coordinate = tuple[int, int, int]  # (layer, out, in) of W[out, in]


def check_coordinate(projections: list[Projection], coordinate: Coordinate) -> None:
    """`UserError` unless (layer, out, in) lies inside the model."""
    layer, out, into = coordinate
    if not 0 <= layer < len(projections):
        raise UserError(f"no weight {show(coordinate)}: the model has layers 0 to {len(projections) - 1}")
    rows, columns = projections[layer].weight.shape
    if not (0 <= out < rows and 0 <= into < columns):
        raise UserError(
            f"no weight {show(coordinate)}: the down projection of layer {layer} is {rows} x {columns}; "
            "give layer, out and in counted from 0"
        )


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
