"""Weights rearranged for token-by-token generation on a CPU: bfloat16 in blocks, 8 bits, or 4 bits.

One-row products are bound by reading the weights. All packings leave that to kernels that come with
PyTorch: oneDNN's for bfloat16 weights in its own block layout (same numbers, another order in memory), and
the weight-only kernels for 8-bit and 4-bit codes, a quarter and an eighth of the float32 bytes. Fewer bytes
are not as many times faster, as the kernels also take time to unpack: `supertf bench generate` measures it.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from supertf.errors import UserError
from supertf.linear import Linear
from supertf.model import GPT

GROUP = 32  # inputs of a row that share a scale and a zero point in 4 bits
FEW = 8  # rows up to which the 8-bit kernel is no slower than a bfloat16 product with the unpacked codes


@dataclass(frozen=True)
class Packed:
    """A layer's product, x (..., in) to (..., out) in bfloat16, and the weights and scales that it reads."""

    product: Callable[[Tensor], Tensor]
    tensors: tuple[Tensor, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The product."""
        return self.product(x)

    @property
    def bytes(self) -> int:
        """What one row's product reads."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


@contextlib.contextmanager
def packed_weights(model: GPT, packing: str) -> Iterator[None]:
    """Run a bfloat16 `model` on the CPU with its linear layers packed while the context lasts.

    packing: "bfloat16", "int8" or "int4" (both lossy). The weights themselves are untouched and used again on
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


def pack_bfloat16(name: str, layer: Linear) -> Packed:
    """The layer's product with oneDNN's blocked weights."""
    if not torch.backends.mkldnn.is_available():
        raise UserError("this PyTorch has no oneDNN, which packs bfloat16 weights: go on without packing")
    packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 1)
    bias = layer.bias
    return Packed(lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], ""), (packed,))


def pack_int8(name: str, layer: Linear) -> Packed:
    """The layer's product with 8-bit weights: w = code * scale, one scale per output."""
    check_fits(name, layer, 1)  # of inputs in other multiples the kernel reads past its rows, unasked
    codes, scales = quantize_rows(layer.weight.detach())
    bias = layer.bias

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (B * T, in)
        if len(rows) <= FEW:
            y = torch.ops.aten._weight_int8pack_mm(rows, codes, scales)
        else:
            y = F.linear(rows, codes.to(x.dtype)) * scales  # the codes are exact in bfloat16
        y = y.view(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    return Packed(product, (codes, scales))


def pack_int4(name: str, layer: Linear) -> Packed:
    """The layer's product with 4-bit weights: w = (code - 8) * scale + zero in groups of 32 inputs."""
    check_fits(name, layer, 16)
    codes, scales_and_zeros = quantize_groups(layer.weight.detach())
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)  # (out, in / 2) uint8
    bias = layer.bias

    def product(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (B * T, in)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales_and_zeros)
        y = y.view(*x.shape[:-1], -1)
        return y if bias is None else y + bias

    return Packed(product, (packed, scales_and_zeros))


def check_fits(name: str, layer: Linear, outputs: int) -> None:
    """`UserError` unless inputs come in whole groups and outputs in multiples of `outputs`."""
    if layer.in_features % GROUP or layer.out_features % outputs:
        also = f" and outputs in multiples of {outputs}" if outputs > 1 else ""
        raise UserError(
            f"{name} is {layer.out_features} x {layer.in_features}; packing in fewer bits needs inputs in "
            f"multiples of {GROUP}{also}"
        )


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as codes -127..127, (out, in) int8, and a scale per row, (out,) bfloat16.

    The scale is rounded first, so that the codes make good what it lacks.
    """
    weight = weight.float()
    scales = (weight.abs().amax(1) / 127).clamp(min=1e-8).bfloat16()
    codes = (weight / scales.float()[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scales


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as codes 0..15, (out, in) int32, and scale and zero, (in / 32, out, 2) bfloat16.

    The sixteen levels of a group are spread evenly from its smallest to its largest weight.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # (out, in / 32, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-8)
    codes = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)
    scales_and_zeros = torch.cat([scale, low + 8 * scale], dim=-1)  # (out, in / 32, 2)
    return codes, scales_and_zeros.transpose(0, 1).contiguous().bfloat16()


PACKINGS: dict[str, Callable[[str, Linear], Packed]] = {
    "bfloat16": pack_bfloat16,
    "int8": pack_int8,
    "int4": pack_int4,
}
