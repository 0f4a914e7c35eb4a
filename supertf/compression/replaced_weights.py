"""Give matrices of a model new weights, for a while or in a copy: what pruning and quantizing share.

For a while, the old tensors are set aside and come back as they were, bit for bit. While a matrix has weights
that are not its own, nothing else may replace them; single weights may be edited.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model import WEIGHTS, LanguageModel, Projection, changed, changes, heads, matrices
from supertf.superweights import EDITED, check_editable

Model = TypeVar("Model", bound=LanguageModel)


@dataclass(frozen=True)
class Replacement:
    """What is done to a model's matrices.

    verb: "prune" or "quantize", for messages. shapes: (out, in) by name of the matrices it is for. write:
    given a name and the matrix's weight W[out, in], changes it in place, in the same way every time.
    """

    verb: str
    shapes: dict[str, tuple[int, ...]]
    write: Callable[[str, Tensor], object]

    @property
    def done(self) -> str:
        """pruned, quantized"""
        return f"{self.verb}d"

    @property
    def doing(self) -> str:
        """pruning, quantizing"""
        return f"{self.verb.removesuffix('e')}ing"


@contextlib.contextmanager
def replaced_weights(model: LanguageModel, replacement: Replacement) -> Iterator[None]:
    """Run the model with its weights replaced while the context lasts.

    On leaving, also through an exception, the very tensors of before are back in place. Raises `UserError` on
    a replacement for other matrices and on weights that are packed or replaced already; on leaving it before
    a context inside it; and on leaving when the new weights were changed meanwhile: then nothing is put back,
    so that no training is lost.
    """
    found = fitting(model, replacement)
    own = {name: parameter(matrix).data for name, matrix in found.items()}
    lost: list[str] = []

    def put_back(name: str) -> None:
        if not lost:
            parameter(found[name]).data = own[name]

    modules = {name: matrix.module for name, matrix in found.items()}
    with changed(WEIGHTS, replacement.done, modules, put_back) as mine:
        for name, matrix in found.items():
            install(matrix, own[name], replacement)
        try:
            yield
        finally:
            on_top = [name for name, module in modules.items() if changes(module, WEIGHTS)[-1] is mine[name]]
            lost += [name for name in on_top if not as_left(found[name], own[name], replacement)]
            if lost:
                done, doing = replacement.done, replacement.doing
                raise UserError(
                    f"{lost[0]} was changed while it was {done}, so the {doing} is not undone: the "
                    f"change would be lost; train a copy (`{replacement.verb}`) instead"
                )


def replaced_copy(model: Model, replacement: Replacement) -> Model:
    """A copy of the model with its weights replaced for good; the model is not touched.

    Raises `UserError` as `replaced_weights` does on entering.
    """
    fitting(model, replacement)
    changed = copy.deepcopy(model)
    for name, matrix in fitting(changed, replacement).items():
        replacement.write(name, matrix.weight.data)
    return changed


def fitting(model: LanguageModel, replacement: Replacement) -> dict[str, Projection]:
    """The matrices that a replacement is for; `UserError` unless they fit it and can be changed now."""
    known = matrices(model) | heads(model)
    fits = {name: known[name] for name in replacement.shapes if name in known}
    check_editable(model, fits.values())
    verb, done, doing = replacement.verb, replacement.done, replacement.doing
    for name, expected in replacement.shapes.items():
        shape = tuple(known[name].weight.shape) if name in known else None
        if shape != expected:
            here = "none of that name" if shape is None else f"one of {shape[0]} x {shape[1]}"
            raise UserError(
                f"the plan {verb}s {name}, a matrix of {expected[0]} x {expected[1]}, and the model has "
                f"{here}: plan for this model"
            )
        others = [one.what for one in changes(known[name].module, WEIGHTS) if one.what != EDITED]
        if others:
            before = others[0]
            again = f"{doing} again" if before == done else f"{doing} it, or work on a copy"
            raise UserError(f"{name} is {before} already: leave that context before {again}")
    return fits


def check_matrices(model: LanguageModel, found: dict[str, Projection], m: int | None) -> None:
    """`UserError` on one that cannot be changed, is damaged, or does not divide into groups of m."""
    check_editable(model, found.values())
    for name, matrix in found.items():
        total = matrix.weight.sum(dtype=torch.float32)  # finite only if every weight is; it may overflow
        if not total.isfinite() and not matrix.weight.isfinite().all():
            raise UserError(f"{name} has weights that are not finite: the model is damaged")
        inputs = matrix.weight.shape[1]
        if m and inputs % m:
            raise UserError(f"{name} has {inputs} inputs, which do not divide into groups of {m}")


def parameter(matrix: Projection) -> nn.Parameter:
    """What holds the matrix's weights, as it lies in memory: `Projection.weight` may be its transpose."""
    return matrix.module.get_parameter("weight")


def install(matrix: Projection, own: Tensor, replacement: Replacement) -> None:
    """Give the matrix a changed copy of its own parameter, which stays as it is."""
    parameter(matrix).data = own.clone()
    replacement.write(matrix.name, matrix.weight.data)


def as_left(matrix: Projection, own: Tensor, replacement: Replacement) -> bool:
    """Whether the matrix is, bit for bit, what `install` made it."""
    now = parameter(matrix).data
    install(matrix, own, replacement)
    made, parameter(matrix).data = parameter(matrix).data, now
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[made.element_size()]
    alike = (now.dtype, now.device, now.shape) == (made.dtype, made.device, made.shape)
    return alike and torch.equal(now.view(bits), made.view(bits))
