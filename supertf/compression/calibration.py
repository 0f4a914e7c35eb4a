"""What goes into every matrix of a model on a short text: what pruning by activations is based on."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from supertf.data import check_vocabulary
from supertf.device import float64_device
from supertf.errors import UserError
from supertf.model import HEAD, LanguageModel, Projection, kind
from supertf.model import matrices as find_matrices


@dataclass(frozen=True)
class Calibration:
    """Sums over the tokens of a text, by matrix name; X (tokens, in) is what the matrix was given.

    Attributes:
        tokens: how many.
        squares: of each input channel, (in,) float64, on the CPU where the device lacks that.
        products: X^T X, (in, in) float32, if they were asked for.
    """

    tokens: int
    squares: dict[str, Tensor]
    products: dict[str, Tensor] = field(default_factory=dict)

    def norms(self, name: str) -> Tensor:
        """||X_j||_2 of each input channel j, (in,) float32: Wanda's measure of how much a channel carries."""
        return self.squares[name].sqrt().float()


@torch.no_grad()
def calibrate(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    length: int = 512,
    *,
    products: bool = False,
    matrices: Iterable[str] | None = None,
) -> Calibration:
    """Read a text in windows and sum up what goes into every matrix.

    Args:
        model: is not changed.
        ids: the text, (N,) int; tokens left over after the last whole window are not used.
        length: tokens of a window; windows lie side by side.
        products: also keep X^T X, which SparseGPT, principal axes and the rough head need: four bytes times
            the square of each matrix's inputs (400 MB for SmolLM2-135M).
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head.

    Raises:
        UserError: a text that is empty, shorter than a window or of another vocabulary, a window longer than
            the model reads, a kind that it lacks, and activations that are not finite.
    """
    windows = windows_of(model, ids, length)
    found = find_matrices(model, matrices)
    squares: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    with contextlib.ExitStack() as hooks:
        for name, matrix in found.items():
            hook = adder(name, squares, sums if products else None)
            hooks.callback(matrix.module.register_forward_pre_hook(hook).remove)
        for window in windows:
            model(window.to(model.device), last_only=HEAD not in map(kind, found))
    for name, values in squares.items():
        check_finite(name, values)
    return Calibration(windows.numel(), squares, sums)


def windows_of(model: LanguageModel, ids: Sequence[int] | Tensor, length: int) -> Tensor:
    """A calibration text (N,) as windows side by side, (N / length, 1, length); see `calibrate`."""
    ids = torch.as_tensor(ids, dtype=torch.int64)
    check_vocabulary(ids, model.config.vocab_size, "the calibration text")
    if length < 1:
        raise UserError(f"the window length is {length}, expected at least 1 token")
    if len(ids) < length:
        raise UserError(
            f"the calibration text has {len(ids)} tokens, fewer than one window of {length}: use a longer "
            "text or shorter windows"
        )
    return ids[: len(ids) // length * length].view(-1, 1, length)


def check_finite(name: str, values: Tensor) -> None:
    """`UserError` unless what was gathered of a matrix's inputs is finite."""
    if not values.isfinite().all():
        raise UserError(
            f"the inputs of {name} are not finite: the weights are damaged, or their dtype is too narrow for "
            "this model (try float32)"
        )


def adder(
    name: str, squares: dict[str, Tensor], products: dict[str, Tensor] | None
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook before a matrix's forward that adds what it is given to the sums of that name."""

    def add(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0].detach().flatten(0, -2)  # (B * T, in)
        x = x if x.dtype == torch.float64 else x.float()
        here = x.square().to(float64_device(x.device)).sum(0, dtype=torch.float64)
        squares[name] = squares[name] + here if name in squares else here
        if products is not None and name in products:
            products[name].addmm_(x.T.float(), x.float())
        elif products is not None:
            products[name] = (x.T @ x).float()

    return add


def needed_calibration(
    method: str, needs: str, found: dict[str, Projection], calibration: Calibration | None
) -> Calibration:
    """The calibration, which has what the method needs of every matrix, or `UserError`."""
    if calibration is None:
        raise UserError(f"{method} needs a calibration: give `calibrate(model, ids)` of a short text")
    if needs == "products" and not calibration.products:
        raise UserError(f"{method} needs a calibration with products: `calibrate(model, ids, products=True)`")
    for name, matrix in found.items():
        inputs = len(calibration.squares.get(name, ()))
        if inputs != matrix.weight.shape[1]:
            raise UserError(
                f"the calibration has {inputs} inputs of {name}, which has {matrix.weight.shape[1]}: "
                "calibrate this model, with the same kinds of matrices"
            )
    return calibration
