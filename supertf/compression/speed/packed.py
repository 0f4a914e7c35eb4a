"""Weights rearranged for token-by-token generation on a CPU: bfloat16 in blocks, 8 bits, or 4 bits.

One-row products are bound by reading the weights. All packings leave that to kernels that come with
PyTorch: oneDNN's for bfloat16 weights in its own block layout (same numbers, another order in memory), and
the weight-only kernels for 8-bit and 4-bit codes, a quarter and an eighth of the float32 bytes. Fewer bytes
are not as many times faster, as the kernels also take time to unpack: `supertf bench generate` measures it.

PyTorch has these kernels on some processors only, under names that it does not promise to keep. So each is
tried once before it is used (`missing_kernel`); where it is missing, the same numbers come from ordinary
products with the weights unpacked to bfloat16: slower, and no fewer bytes than a bfloat16 model reads.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.compression.own_model import as_gpt
from supertf.errors import UserError
from supertf.model import LanguageModel, replace_product

GROUP = 32  # inputs of a row that share a scale and a zero point in 4 bits
FEW = 8  # rows up to which the 8-bit kernel is no slower than a bfloat16 product with the unpacked codes


@dataclass(frozen=True)
class Packed:
    """A layer's product in bfloat16 with packed weights.

    Attributes:
        product: of rows (n, in), to (n, out).
        tensors: the weights and scales that it reads.
    """

    product: Callable[[Tensor], Tensor]
    tensors: tuple[Tensor, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """The product: x (..., in) to (..., out)."""
        return self.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)

    @property
    def bytes(self) -> int:
        """What one row's product reads."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)


@contextlib.contextmanager
def packed_weights(model: LanguageModel, packing: str) -> Iterator[None]:
    """Run a bfloat16 model on the CPU with its linear layers packed while the context lasts.

    The weights themselves are untouched and used again on leaving, also after an exception; changes made to
    them inside the context have no effect until then. Warns where this machine has no kernel for the packing.

    Args:
        model: this package's `GPT`.
        packing: "bfloat16", "int8" or "int4" (both lossy).

    Raises:
        UserError: other classes, devices and dtypes, layers that do not fit the packing, and layers that are
            packed already or have another product in place.
    """
    if packing not in PACKINGS:
        raise UserError(f"unknown packing {packing!r}; choose from {', '.join(PACKINGS)}")
    model = as_gpt(model, "packing is for")
    if model.device.type != "cpu" or model.wte.weight.dtype != torch.bfloat16:
        raise UserError(
            f"packed weights need a bfloat16 model on the CPU, this one is {model.wte.weight.dtype} on "
            f"{model.device}: load it with dtype=torch.bfloat16"
        )
    if (why := missing_kernel(packing)) is not None:
        warnings.warn(f"{packing} goes on without packing, slower: {why}", stacklevel=3)
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    with contextlib.ExitStack() as undo:
        for name, layer in layers.items():
            replace_product(undo, name, layer, functools.partial(pack, name, layer, packing))
        yield


def pack(name: str, layer: nn.Linear, packing: str) -> Packed:
    """The layer's product with packed weights, without the kernel where it is missing."""
    inputs, outputs = MULTIPLES[packing]
    if layer.in_features % inputs or layer.out_features % outputs:
        also = f" and outputs in multiples of {outputs}" if outputs > 1 else ""
        raise UserError(
            f"{name} is {layer.out_features} x {layer.in_features}; packing in fewer bits needs inputs in "
            f"multiples of {inputs}{also}"
        )
    kernel, plain = PACKINGS[packing]
    make = kernel if missing_kernel(packing) is None else plain
    return make(layer.weight.detach(), layer.bias)


@functools.cache
def missing_kernel(packing: str) -> str | None:
    """Ask a packing's kernel once whether it works here: a small product, compared with the plain one.

    Args:
        packing: a name in `PACKINGS`.

    Returns:
        Why it cannot be used on this machine, in a line; None where it can.
    """
    kernel, plain = PACKINGS[packing]
    numbers = torch.Generator().manual_seed(0)
    weight, rows = (torch.randn(n, 64, generator=numbers, device="cpu").bfloat16() for n in (32, 1))
    with torch.inference_mode():
        expected = plain(weight, None)(rows)
        try:
            found = kernel(weight, None)(rows)
        except (RuntimeError, AttributeError) as error:
            return f"no kernel for it here ({str(error).splitlines()[0]})"
    if not (found - expected).norm() < 0.02 * expected.norm():
        return "the kernel for it computes another product here"
    return None


def product(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows (n, in) times weight (out, in), all bfloat16.

    Several rows in float32 where oneDNN has no bfloat16: PyTorch's own bfloat16 product of several rows takes
    many times as long there.
    """
    if len(rows) == 1 or missing_kernel("bfloat16") is None:
        return F.linear(rows, weight, bias)
    return F.linear(rows.float(), weight.float(), None if bias is None else bias.float()).bfloat16()


def add(y: Tensor, bias: Tensor | None) -> Tensor:
    """y + bias, if there is one."""
    return y if bias is None else y + bias


def bfloat16_kernel(weight: Tensor, bias: Tensor | None) -> Packed:
    """oneDNN's blocked weights."""
    blocks = torch.ops.mkldnn._reorder_linear_weight(weight, 1)

    def product(rows: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, blocks, bias, "none", [], "")

    return Packed(product, (blocks,))


def bfloat16_plain(weight: Tensor, bias: Tensor | None) -> Packed:
    """The weights as they are, in a copy of their own."""
    kept = weight.clone()
    return Packed(lambda rows: product(rows, kept, bias), (kept,))


def int8_kernel(weight: Tensor, bias: Tensor | None) -> Packed:
    """8-bit weights: w = code * scale, one scale per output."""
    codes, scales = quantize_rows(weight)

    def scaled(rows: Tensor) -> Tensor:
        if len(rows) <= FEW:
            y = torch.ops.aten._weight_int8pack_mm(rows, codes, scales)
        else:
            y = product(rows, codes.bfloat16()) * scales  # the codes are exact in bfloat16
        return add(y, bias)

    return Packed(scaled, (codes, scales))


def int8_plain(weight: Tensor, bias: Tensor | None) -> Packed:
    """The same codes and scales, the codes as bfloat16."""
    codes, scales = quantize_rows(weight)
    kept = codes.bfloat16()
    return Packed(lambda rows: add(product(rows, kept) * scales, bias), (kept, scales))


def int4_kernel(weight: Tensor, bias: Tensor | None) -> Packed:
    """4-bit weights: w = (code - 8) * scale + zero in groups of 32 inputs."""
    codes, scales_and_zeros = quantize_groups(weight)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)  # (out, in / 2) uint8

    def unpacking(rows: Tensor) -> Tensor:
        return add(torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales_and_zeros), bias)

    return Packed(unpacking, (packed, scales_and_zeros))


def int4_plain(weight: Tensor, bias: Tensor | None) -> Packed:
    """The weights that the codes stand for, rounded to bfloat16."""
    codes, scales_and_zeros = quantize_groups(weight)
    scale, zero = scales_and_zeros.float().transpose(0, 1).unsqueeze(-2).unbind(-1)  # (out, in / 32, 1)
    kept = ((codes.unflatten(1, (-1, GROUP)) - 8) * scale + zero).flatten(1).bfloat16()  # (out, in)
    return Packed(lambda rows: product(rows, kept, bias), (kept,))


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


Maker = Callable[[Tensor, Tensor | None], Packed]  # of a weight (out, in) and a bias
PACKINGS: dict[str, tuple[Maker, Maker]] = {  # by the kernel, and without it
    "bfloat16": (bfloat16_kernel, bfloat16_plain),
    "int8": (int8_kernel, int8_plain),
    "int4": (int4_kernel, int4_plain),
}
MULTIPLES = {  # of inputs and outputs that fit; of others the 8-bit kernel reads past its rows, unasked
    "bfloat16": (1, 1),
    "int8": (GROUP, 1),
    "int4": (GROUP, 16),
}
