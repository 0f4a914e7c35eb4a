"""Quantizing activations: what a model computes when the inputs of its matrices have few bits.

Each token's input of each matrix is rounded to 2^(b-1) - 1 levels up and down, spread evenly to the token's
largest magnitude, and read back before the product, so this measures quality, not speed. One outlier then
decides how coarsely its whole token is rounded. Yu et al. 2024 (arXiv 2411.07191) spare the super activation:
put the median in its place, round, read back, and put it back in full precision. `restore` does that.

With `quantization.quantized` around or inside it, weights and activations are quantized together (W8A8).
Left out: embeddings, norms, head, and the two products inside attention (queries with keys, weights with
values), which the paper quantizes too.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model import ROUNDING, Coordinate, Hook, LanguageModel, changed, changes, kind, places
from supertf.model import matrices as find_matrices

STREAM = re.compile(  # kinds of matrices that read the residual stream, through a norm
    r"(?:.*\.)?(?:c_attn|q_proj|k_proj|v_proj|qkv_proj|query_key_value|Wqkv"
    r"|c_fc|gate_proj|up_proj|gate_up_proj|dense_h_to_4h|fc1)"
)


@contextlib.contextmanager
def quantized_activations(
    model: LanguageModel,
    bits: int = 8,
    restore: Mapping[str, Sequence[int]] | None = None,
    *,
    matrices: Iterable[str] | None = None,
) -> Iterator[None]:
    """Run the model with the inputs of its matrices quantized per token while the context lasts.

    The weights are not touched. It is for inference: rounding has no gradient.

    Args:
        bits: 2 to 16.
        restore: by matrix name, input channels that keep full precision and do not stretch their tokens'
            levels, see `super_activations`.
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head.

    Raises:
        UserError: bits out of range, a channel outside the matrices that are quantized, and activations that
            are quantized already.
    """
    if not 2 <= bits <= 16:
        raise UserError(f"activations in {bits} bits; choose 2 to 16")
    found = find_matrices(model, matrices)
    spared = {name: list(channels) for name, channels in (restore or {}).items()}
    for name, channels in spared.items():
        if name not in found:
            raise UserError(f"no matrix {name!r} among those quantized, such as {next(iter(found))}")
        width = found[name].weight.shape[1]
        for channel in channels:
            if not 0 <= channel < width:
                raise UserError(f"no input channel {channel} of {name}: choose 0 to {width - 1}")
    modules = {name: matrix.module for name, matrix in found.items()}
    if taken := [name for name, module in modules.items() if changes(module, ROUNDING)]:
        raise UserError(f"the inputs of {taken[0]} are quantized already: leave that context first")
    with changed(ROUNDING, "quantized", modules), contextlib.ExitStack() as hooks:
        for name, module in modules.items():
            hook = Hook(rounder(bits, spared.get(name, [])))
            hooks.callback(module.register_forward_pre_hook(hook).remove)
        yield


def rounder(bits: int, restore: list[int]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook before a matrix's forward that quantizes what it is given."""

    def read_back(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return quantize_tokens(inputs[0], bits, restore), *inputs[1:]

    return read_back


def quantize_tokens(x: Tensor, bits: int = 8, restore: Sequence[int] = ()) -> Tensor:
    """Round each token to few levels, and read it back.

    Args:
        x: (..., C).
        bits: give 2^(bits-1) - 1 levels up and down, to the token's largest magnitude.
        restore: channels that are replaced by the token's median first, and come back as they were, in every
            token: which one spikes, none can tell from itself.

    Returns:
        Like x; off by at most half a step, which is the largest magnitude over 2^(bits-1) - 1.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    restore = list(restore)
    if restore:
        wide = wide.clone()
        wide[..., restore] = wide.median(-1, keepdim=True).values
    levels = 2 ** (bits - 1) - 1
    step = (wide.abs().amax(-1, keepdim=True) / levels).clamp(min=torch.finfo(wide.dtype).tiny)
    read = ((wide / step).round() * step).to(x.dtype)
    if restore:
        read[..., restore] = x[..., restore]
    return read


def super_activations(
    model: LanguageModel, coordinates: Iterable[Coordinate], where: str = "both"
) -> dict[str, list[int]]:
    """Where super weights make inputs of matrices spike.

    What the paper calls the super activation is made by the weight and travels ("stream"); which inputs of
    matrices it spares is not published, so this is our reading.

    Args:
        coordinates: the weights, (layer, out, in): `Spike.coordinate` of `find_spikes`, or the user's.
        where: "input" is channel `in` of the layer's down projection, the spike that the weight multiplies.
            "stream" is what it makes of it, on its way through the residual stream: channel `out` of every
            matrix that reads the stream in later layers, where it arrives scaled by their norms. Or "both".

    Returns:
        Input channels by matrix name, as `quantized_activations` restores them.

    Raises:
        UserError: a weight outside the model, or another `where`.
    """
    if where not in ("input", "stream", "both"):
        raise UserError(f"where is {where!r}; choose input, stream or both")
    coordinates = list(coordinates)
    found: dict[str, set[int]] = {}
    for (layer, out, into), (name, _, _) in zip(coordinates, places(model, coordinates), strict=True):
        if where != "stream":
            found.setdefault(name, set()).add(into)
        if where != "input":
            for reader, matrix in find_matrices(model).items():
                if matrix.layer > layer and STREAM.fullmatch(kind(reader)):
                    found.setdefault(reader, set()).add(out)
    return {name: sorted(channels) for name, channels in found.items()}
