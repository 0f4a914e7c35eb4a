"""Quantizing weights: what a model's matrices become in few bits, applied for a while or in a copy.

`quantize` rounds every matrix and reads it back (the model computes in its own dtype, so this measures
quality, not speed); `quantized` applies that and puts every weight back bit for bit; `quantized_copy` gives a
quantized model. Weights can be held out: they keep their values and do not stretch their block's levels.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from supertf.compression.calibration import Calibration
from supertf.compression.pruning_plan import check_matrices
from supertf.compression.replaced_weights import Model, Replacement, replaced_copy, replaced_weights
from supertf.compression.rounding import Scheme, block_count, check_block, round_to_nearest
from supertf.model import Coordinate, kind, marks, matrices, output_projections, places

HELD = 16 + 32  # bits of a weight that is held out: its value, and where it is


@dataclass(frozen=True)
class Fate:
    """One weight's value before and after, and whether it was held out."""

    coordinate: Coordinate
    before: float
    after: float
    held: bool


@dataclass(frozen=True)
class Quantization:
    """What quantizing makes of a model's matrices.

    values: by matrix name, the weights read back, (out, in) in the model's dtype. errors: by matrix name, the
    squared error over the sum of squares. held: the weights held out of these matrices. fates: of the weights
    that were watched. To undo it, leave the context of `quantized`.
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


@torch.no_grad()
def quantize(
    model: nn.Module,
    scheme: Scheme | str,
    hold_out: Iterable[Coordinate] = (),
    watch: Iterable[Coordinate] = (),
    calibration: Calibration | None = None,
    kinds: Iterable[str] | None = None,
    progress: bool = True,
) -> Quantization:
    """Round the model's matrices to nearest; the model is not touched.

    scheme: or its text, such as "int4 block=64 clip=error". hold_out: (layer, out, in) of the MLPs' output
    projections: weights that keep their values. `superweights.sets.row_pool` and `greedy_set` give those of a
    row that do most. watch: weights whose `Fate` is wanted. calibration: of the same model; clip=output
    needs one. kinds: which matrices, see `matrices`.

    Raises `UserError` on an unknown scheme or kind, blocks that do not divide a matrix, a coordinate outside
    the model, a calibration that is missing or of other matrices, and weights that are not finite, not in
    memory or shared with another part of the model.
    """
    scheme = Scheme.parse(scheme) if isinstance(scheme, str) else scheme
    found = matrices(model, kinds)
    for name, matrix in found.items():
        check_block(name, matrix.weight.shape, scheme.block)
    check_matrices(model, found, None)
    hold_out, watch = list(dict.fromkeys(hold_out)), list(watch)
    masks, watched = marks(model, hold_out), places(model, watch)
    squares = calibration.squares if calibration else {}
    values: dict[str, Tensor] = {}
    errors: dict[str, float] = {}
    for name, matrix in tqdm(found.items(), desc=f"rounding to {scheme}", disable=not progress, leave=False):
        weight = matrix.weight.detach()
        values[name] = round_to_nearest(weight, scheme, masks.get(name), squares.get(name), name)
        size = weight.float().square().sum().item()
        errors[name] = (values[name].float() - weight.float()).square().sum().item() / size if size else 0.0
    held = tuple(
        one for one, (name, *_) in zip(hold_out, places(model, hold_out), strict=True) if name in found
    )
    projections = output_projections(model)
    fates = []
    for coordinate, (name, out, into) in zip(watch, watched, strict=True):
        before = projections[coordinate[0]].weight[out, into].item()
        after = values[name][out, into].item() if name in found else before
        fates.append(Fate(coordinate, before, after, coordinate in held))
    return Quantization(scheme, values, errors, held, tuple(fates))


def holding_out(
    model: nn.Module,
    bare: Quantization,
    hold_out: Iterable[Coordinate],
    watch: Iterable[Coordinate] = (),
    calibration: Calibration | None = None,
) -> Quantization:
    """A quantization of the same model once more, with weights held out: only the kinds of matrices that they
    are in are rounded again. Raises `UserError` as `quantize` does.
    """
    hold_out = list(hold_out)
    kinds = {kind(name) for name, *_ in places(model, hold_out)} & set(map(kind, bare.values))
    if not kinds:
        return bare
    found = quantize(model, bare.scheme, hold_out, watch, calibration, kinds, progress=False)
    return replace(found, values=bare.values | found.values, errors=bare.errors | found.errors)


def quantized(model: nn.Module, quantization: Quantization) -> AbstractContextManager[None]:
    """Run the model with quantized weights while the context lasts.

    On leaving, also through an exception, the very tensors of before are back in place. Raises `UserError` on
    a quantization of other matrices and on weights that are packed, or pruned or quantized already; and on
    leaving when the quantized weights were changed meanwhile: then nothing is put back.
    """
    return replaced_weights(model, replacement(quantization))


def quantized_copy(model: Model, quantization: Quantization) -> Model:
    """A copy of the model with quantized weights for good; the model is not touched.

    Raises `UserError` as `quantized` does on entering.
    """
    return replaced_copy(model, replacement(quantization))


def replacement(quantization: Quantization) -> Replacement:
    """The quantization as new weights of its matrices."""
    values = quantization.values
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    return Replacement("quantize", shapes, lambda name, weight: weight.copy_(values[name]))
