"""How large a matrix's inputs are on a short text: what thresholds of dynamic pruning are read from.

Optionally in other axes than the model's own. A matrix W and an orthogonal R (in, in) give the same product
through W R and R^T x, but where x has directions of little variance, its coordinates along the principal axes
are nearer to zero than its channels are, and more of them can be dropped (LaRoSA, arXiv 2507.01299, rotates
layer by layer for that reason).
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.compression.calibration import Calibration, check_finite, windows_of
from supertf.device import in_float64
from supertf.errors import UserError
from supertf.model import GPT, HEAD, LanguageModel, kind
from supertf.model import matrices as find_matrices

STEPS = 1000  # quantiles that are kept


@dataclass(frozen=True)
class InputSizes:
    """Quantiles of the sizes |x_j| over tokens and channels.

    Attributes:
        of: "inputs" of the matrices, or the "gate", |silu(gate)| that c_fc gives.
        tokens: of the text.
        widths: by matrix name, how many inputs or gates a token has.
        quantiles: by matrix name, (1001,) float32, 0 to 100 %.
        axes: by matrix name, R (in, in) with the axes as columns, where sizes are those of R^T x.
    """

    of: str
    tokens: int
    widths: dict[str, int]
    quantiles: dict[str, Tensor]
    axes: dict[str, Tensor] = field(default_factory=dict)

    def threshold(self, name: str, sparsity: float) -> float:
        """The size that the share `sparsity` of the inputs is below: at 0 none of any text, at 1 all."""
        if sparsity in (0, 1):
            return math.inf if sparsity else 0.0
        at = sparsity * STEPS
        below = min(int(at), STEPS - 1)
        low, high = self.quantiles[name][below : below + 2].tolist()
        return low + (at - below) * (high - low)


@torch.no_grad()
def input_sizes(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    length: int = 256,
    *,
    of: str = "inputs",
    matrices: Iterable[str] | None = None,
    axes: dict[str, Tensor] | None = None,
) -> InputSizes:
    """Read a text of a few hundred tokens and measure how large every matrix's inputs are.

    All sizes are held in memory, 4 bytes each: 390 kB per token for SmolLM2-135M.

    Args:
        model: is not changed.
        ids: the text, (N,) int, read in windows side by side.
        length: tokens of a window.
        of: "inputs", or "gate" of this package's SwiGLU models, which takes neither matrices nor axes.
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head.
        axes: by matrix name, other axes to measure along, see `principal_axes`.

    Returns:
        The `InputSizes` that `plan_dynamic` reads its thresholds from.

    Raises:
        UserError: a text that is too short or of another vocabulary, a kind that the model lacks, axes of
            other matrices, a model without gates, and activations that are not finite.
    """
    if of not in ("inputs", "gate"):
        raise UserError(f"sizes of {of!r}; choose inputs or gate")
    if of == "gate" and (matrices is not None or axes):
        raise UserError("the gate is c_fc's, in its own axes: leave matrices and axes out")
    windows = windows_of(model, ids, length)
    axes = dict(axes or {})
    if of == "gate":
        found, widths = gates(model), dict.fromkeys(gates(model), model.config.inner)
    else:
        chosen = find_matrices(model, matrices)
        found = {name: matrix.module for name, matrix in chosen.items()}
        widths = {name: matrix.weight.shape[1] for name, matrix in chosen.items()}
    for name, own in axes.items():
        if tuple(own.shape) != (widths.get(name),) * 2:
            here = f"{widths[name]} inputs" if name in widths else "none among those measured"
            raise UserError(
                f"axes {tuple(own.shape)} of {name}, which has {here}: give this model's own axes"
            )
    sizes: dict[str, list[Tensor]] = {name: [] for name in found}
    with contextlib.ExitStack() as hooks:
        for name, module in found.items():
            if of == "gate":
                handle = module.register_forward_hook(gate_collector(sizes[name]))
            else:
                handle = module.register_forward_pre_hook(input_collector(sizes[name], axes.get(name)))
            hooks.callback(handle.remove)
        for window in windows:
            model(window.to(model.device), last_only=HEAD not in map(kind, found))
    quantiles = {name: quantiles_of(torch.cat(parts)) for name, parts in sizes.items()}
    for name, ordered in quantiles.items():
        check_finite(name, ordered)
    return InputSizes(of, windows.numel(), widths, quantiles, axes)


def gates(model: LanguageModel) -> dict[str, nn.Module]:
    """The c_fc of every layer by name; `UserError` unless they are SwiGLU's."""
    if not isinstance(model, GPT) or model.config.mlp != "swiglu":
        raise UserError("gate thresholds need a SwiGLU model of this lab: use method inputs for others")
    names = [f"h.{layer}.mlp.c_fc" for layer in range(model.config.n_layer)]
    return {name: model.get_submodule(name) for name in names}


def input_collector(parts: list[Tensor], axes: Tensor | None) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook before a matrix's forward that keeps the sizes of its inputs."""

    def collect(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0] if axes is None else inputs[0] @ axes.to(inputs[0])
        parts.append(x.abs().flatten().float().cpu())

    return collect


def gate_collector(parts: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    """A hook after c_fc's forward that keeps the sizes of the activated gate."""

    def collect(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        parts.append(F.silu(output.chunk(2, dim=-1)[0]).abs().flatten().float().cpu())

    return collect


def quantiles_of(values: Tensor) -> Tensor:
    """The 1001 quantiles of values (N,), each one of the values; not a number counts as the largest."""
    ordered = values.sort().values
    at = torch.linspace(0, len(ordered) - 1, STEPS + 1, dtype=torch.float64).round().long()
    return ordered[at]


def principal_axes(calibration: Calibration, matrices: Iterable[str]) -> dict[str, Tensor]:
    """Principal axes of the inputs of some kinds of matrices: those of X^T X, about zero.

    Args:
        calibration: with products.
        matrices: kinds such as ["mlp.c_proj"].

    Returns:
        By matrix name, (in, in) float32, the axes as columns.

    Raises:
        UserError: the calibration has no products of one of the kinds.
    """
    wanted = list(matrices)
    chosen = {name: product for name, product in calibration.products.items() if kind(name) in wanted}
    if missing := set(wanted) - set(map(kind, chosen)):
        raise UserError(
            f"the calibration has no products of {', '.join(sorted(missing))}: "
            "`calibrate(model, ids, products=True, matrices=...)` keeps them"
        )
    return {
        name: torch.linalg.eigh(in_float64(product)).eigenvectors.float().to(product.device)
        for name, product in chosen.items()
    }
