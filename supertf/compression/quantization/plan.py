"""Quantizing weights: what a model's matrices become in few bits, applied for a while or in a copy.

`plan_quantization` rounds every matrix and reads it back (the model computes in its own dtype, so this
measures quality, not speed); `quantized` applies that and puts every weight back bit for bit; `quantize`
gives a quantized model. Weights can be held out: they keep their values and do not stretch their block's
levels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.compression.calibration import Calibration
from supertf.compression.fate import Fate, untouched
from supertf.compression.quantization.rounding import Scheme, block_count, check_block, round_to_nearest
from supertf.compression.replaced_weights import Replacement, check_matrices
from supertf.model import Coordinate, LanguageModel, kind, marks, places
from supertf.model import matrices as find_matrices
from supertf.superweights import coordinates

HELD = 16 + 32  # bits of a weight that is held out: its value, and where it is


@dataclass(frozen=True)
class Quantization:
    """What quantizing makes of a model's matrices. `quantized` and `quantize` apply it.

    Attributes:
        scheme: how weights were rounded.
        values: by matrix name, the weights read back, (out, in) in the model's dtype.
        errors: by matrix name, the squared error over the sum of squares.
        held: the weights held out of these matrices.
        fates: of the weights that were watched.
    """

    scheme: Scheme
    values: dict[str, Tensor]
    errors: dict[str, float]
    held: tuple[Coordinate, ...] = ()
    fates: tuple[Fate, ...] = ()

    @property
    def bytes(self) -> float:
        """What the matrices take: the codes; a scale of 16 bits a block, and when asymmetric a zero point of
        16 more; 48 bits a weight held out. Scales are counted in 16 bits but computed in float32."""
        scales = 16 if self.scheme.symmetric else 32
        bits = HELD * len(self.held)
        for value in self.values.values():
            bits += self.scheme.bits * value.numel() + scales * block_count(value.shape, self.scheme.block)
        return bits / 8

    @property
    def bits_per_weight(self) -> float:
        """Bits of `bytes` over the number of weights."""
        return 8 * self.bytes / sum(value.numel() for value in self.values.values())

    def replacement(self) -> Replacement:
        """The quantization as new weights of its matrices."""
        shapes = {name: tuple(value.shape) for name, value in self.values.items()}
        return Replacement("quantize", shapes, lambda name, weight: weight.copy_(self.values[name]))


@torch.no_grad()
def plan_quantization(
    model: LanguageModel,
    scheme: Scheme | str,
    *,
    protect: Any = (),
    watch: Any = (),
    calibration: Calibration | None = None,
    matrices: Iterable[str] | None = None,
    progress: bool = True,
) -> Quantization:
    """Round the model's matrices to nearest; the model is not touched.

    Args:
        model: any causal language model that `load` reads.
        scheme: such as "int4 block=64 clip=error".
        protect: single weights of the MLPs' output projections that are held out: they keep their values, and
            do not stretch their block's levels. `row_pool` and `greedy_set` give those of a row that do most.
        watch: weights whose `Fate` is wanted.
        calibration: of the same model; clip=output needs one.
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head.

    Raises:
        UserError: an unknown scheme or kind, blocks that do not divide a matrix, a weight outside the model,
            a calibration that is missing or of other matrices, and weights that are not finite, not in memory
            or shared with another part of the model.
    """
    scheme = Scheme.parse(scheme) if isinstance(scheme, str) else scheme
    found = find_matrices(model, matrices)
    for name, matrix in found.items():
        check_block(name, matrix.weight.shape, scheme.block)
    check_matrices(model, found, None)
    protect, watch = coordinates(protect), coordinates(watch)
    masks, names = marks(model, protect), [name for name, *_ in places(model, protect)]
    held = tuple(one for one, name in zip(protect, names, strict=True) if name in found)
    watched = untouched(model, watch, held)
    squares = calibration.squares if calibration else {}
    values: dict[str, Tensor] = {}
    errors: dict[str, float] = {}
    for name, matrix in tqdm(found.items(), desc=f"rounding to {scheme}", disable=not progress, leave=False):
        weight = matrix.weight.detach()
        values[name] = round_to_nearest(weight, scheme, masks.get(name), squares=squares.get(name), name=name)
        size = weight.float().square().sum().item()
        errors[name] = (values[name].float() - weight.float()).square().sum().item() / size if size else 0.0
    fates = tuple(
        replace(fate, after=values[name][fate.coordinate[1:]].item()) if name in values else fate
        for fate, name in watched
    )
    return Quantization(scheme, values, errors, held, fates)


def holding_out(
    model: LanguageModel,
    bare: Quantization,
    protect: Any,
    *,
    watch: Any = (),
    calibration: Calibration | None = None,
) -> Quantization:
    """A quantization once more, with weights held out: only their kinds of matrices are rounded again.

    Args:
        model: the same.
        bare: its quantization.
        protect, watch, calibration: as `plan_quantization` takes them.

    Raises:
        UserError: as `plan_quantization` does.
    """
    protect = coordinates(protect)
    kinds = {kind(name) for name, *_ in places(model, protect)} & set(map(kind, bare.values))
    if not kinds:
        return bare
    found = plan_quantization(
        model,
        bare.scheme,
        protect=protect,
        watch=watch,
        calibration=calibration,
        matrices=kinds,
        progress=False,
    )
    return replace(found, values=bare.values | found.values, errors=bare.errors | found.errors)
