"""Weights rearranged for token-by-token generation on a CPU: bfloat16 in blocks, or 4 bits.

One-row products are bound by reading the weights. Both packings leave that to kernels that come with
PyTorch: oneDNN's for bfloat16 weights in its own block layout (same numbers, another order in memory), and
the weight-only kernel for 4-bit codes, an eighth of the float32 bytes.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.linear import Linear
from supertf.model import GPT

GROUP = 32  # inputs of a row that share a scale and a zero point in 4 bits
Product = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def packed_weights(model: GPT, packing: str) -> Iterator[None]:
    """Run a bfloat16 `model` on the CPU with its linear layers packed while the context lasts.

    packing: "bfloat16" or "int4" (lossy). The weights themselves are untouched and used again on
    leaving, also after an exception; changes made to them inside the context have no effect until then.
    Raises `UserError` for other devices and dtypes, and for layers that do not fit the packing.
    """
    if packing not in PACKINGS:
        raise UserError(f"unknown packing {packing!r}; choose from {', '.join(PACKINGS)}")
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.bfloat16:
        raise UserError(
            f"packed weights need a bfloat16 model on the CPU, this one is {model.wte.weight.dtype} on "
            f"{model.device}: load it with dtype=torch.bfloat16"
        )
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    try:
        for name, layer in layers.items():
            layer.product = PACKINGS[packing](name, layer)
        yield
    finally:
        for layer in layers.values():
            layer.product = None


def pack_bfloat16(name: str, layer: Linear) -> Product:
    """The layer's product with oneDNN's blocked weights."""
    if not torch.backends.mkldnn.is_available():
        raise UserError("this PyTorch has no oneDNN, which packs bfloat16 weights: go on without packing")
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 1)
    bias = layer.bias
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


def pack_int4(name: str, layer: Linear) -> Product:
    """The layer's product with 4-bit weights: w = (code - 8) * scale + zero in groups of 32 inputs."""
    if layer.in_features % GROUP or layer.out_features % 16:
        raise UserError(
            f"{name} is {layer.out_features} x {layer.in_features}; 4-bit weights need inputs in "
            f"multiples of {GROUP} and outputs in multiples of 16"
        )
    codes, scales_and_zeros = quantize(layer.weight.detach())
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
    bias = layer.bias

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (B * T, in)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales_and_zeros)
        y = y.view(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    return product


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as codes 0..15, (out, in) int32, and scale and zero, (in / 32, out, 2) bfloat16.

    The sixteen levels of a group are spread evenly from its smallest to its largest weight.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # (out, in / 32, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-8)
    codes = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)
    scales_and_zeros = torch.cat([scale, low + 8 * scale], dim=-1)  # (out, in / 32, 2)
    return codes, scales_and_zeros.transpose(0, 1).contiguous().bfloat16()


PACKINGS: dict[str, Callable[[str, Linear], Product]] = {"bfloat16": pack_bfloat16, "int4": pack_int4}
