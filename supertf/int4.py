"""Weights in 4 bits while generating on a CPU, with PyTorch's own weight-only kernel.

Every group of 32 inputs of a row shares a scale and a zero point: w = (code - 8) * scale + zero, codes 0
to 15 spread evenly from the group's smallest to its largest weight. Activations are bfloat16. A matrix of
4-bit codes is an eighth of the float32 one, and one-row products are bound by reading it.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model import GPT

GROUP = 32


class Int4Linear(nn.Module):
    """A linear layer with packed 4-bit weights: bfloat16 (..., in) to bfloat16 (..., out)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        codes, scales_and_zeros = quantize(linear.weight.detach())
        self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.scales_and_zeros = scales_and_zeros
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])  # (B * T, in)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_zeros)
        y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix (out, in) as codes 0..15, (out, in) int32, and scale and zero, (in / 32, out, 2) bfloat16."""
    groups = weight.float().unflatten(1, (-1, GROUP))  # (out, in / 32, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-8)
    codes = ((groups - low) / scale).round().clamp(0, 15).int().flatten(1)
    scales_and_zeros = torch.cat([scale, low + 8 * scale], dim=-1)  # (out, in / 32, 2)
    return codes, scales_and_zeros.transpose(0, 1).contiguous().bfloat16()


@contextlib.contextmanager
def int4_weights(model: GPT) -> Iterator[None]:
    """Run `model`, a bfloat16 model on the CPU, with 4-bit linear layers while the context lasts.

    The layers themselves are put back on leaving, also through an exception. Raises `UserError` for
    other devices and dtypes, and for widths that are no multiple of 32.
    """
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.bfloat16:
        raise UserError(
            f"4-bit weights need a bfloat16 model on the CPU, this one is {model.wte.weight.dtype} on "
            f"{model.device}: load it with dtype=torch.bfloat16"
        )
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, layer in layers.items():
        if layer.in_features % GROUP or layer.out_features % 16:
            raise UserError(
                f"{name} is {layer.out_features} x {layer.in_features}; 4-bit weights need inputs in "
                f"multiples of {GROUP} and outputs in multiples of 16"
            )
    try:
        for name, layer in layers.items():
            model.set_submodule(name, Int4Linear(layer))
        yield
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
