"""Projections into the stream fitted anew, in closed form, to make up for what is left out.

Going through the layers, each projection gets the weights that bring the pruned model's stream nearest to the
whole model's over a calibration text: least squares, as channels are reconstructed by He, Zhang and Sun 2017
("Channel Pruning for Accelerating Very Deep Neural Networks", arXiv 1707.06168), where the last layer of a
residual branch, too, takes over what went wrong before it.

It learns from the whole model's stream alone, never from the next tokens: with nothing left out there is
nothing to learn, and the weights stay what they are.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from supertf.compression.calibration import check_finite, windows_of
from supertf.compression.own_model import as_gpt
from supertf.compression.pruning.dynamic import DynamicPruning, dynamically_pruned
from supertf.device import in_float64
from supertf.errors import UserError
from supertf.model import GPT, Block, LanguageModel, Layout, with_changes

BATCH = 8  # windows


@torch.no_grad()
def refit(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    plan: DynamicPruning | None = None,
    *,
    teacher: LanguageModel | None = None,
    length: int = 512,
    matrices: Iterable[str] = ("mlp.c_proj",),
    prior: float = 1000.0,
    progress: bool = True,
) -> GPT:
    """A copy of the model with other weights in its projections into the stream, and only there.

    Minimizes, over W, the sum over tokens of |h - s - b - W x|^2 / |h|^2 + prior * m |W - W_0|^2: h is the
    teacher's stream behind this half of a block, s the copy's before the projection, x its inputs after the
    plan, b its bias, m the mean over tokens and inputs of x_j^2 / |h|^2. Errors count by what the next
    RMSNorm makes of them.

    Args:
        model: this package's `GPT`; it is not changed.
        ids: calibration text, (N,) int. A projection has as many unknowns for each output as it has inputs,
            so take many times that: 65,536 tokens for SmolLM2-135M, which take 11 kB of memory each.
        plan: what is dropped, here and later when the copy is used.
        teacher: the whole model, for one whose channels or heads were cut out (`smaller`); None is the model
            itself.
        length: tokens of a window; windows lie side by side.
        matrices: kinds, of attn.c_proj and mlp.c_proj.
        prior: how many tokens' worth the present weights count.

    Raises:
        UserError: other models, a teacher of other sizes, weights that were set to zero one by one (they
            would not stay zero), matrices or a prior out of range, and otherwise as `calibrate` does.
    """
    model, kinds = as_gpt(model, "refit is for"), list(matrices)
    teacher = model if teacher is None else as_gpt(teacher, "refit is for")
    check_refit(model, teacher, kinds, prior)
    windows = windows_of(model, ids, length)[:, 0].to(model.device).split(BATCH)  # each (B, T)
    copy = with_changes(model).eval()
    places = [teacher.layout(window, 0, None, None) for window in windows]
    wanted = [teacher.embed(window, where) for window, where in zip(windows, places, strict=True)]
    streams = [stream.clone() for stream in wanted]  # (B, T, C) each
    with contextlib.nullcontext() if plan is None else dynamically_pruned(copy, plan):
        pairs = zip(teacher.h, copy.h, strict=True)
        layers = tqdm(pairs, "refitting", len(copy.h), leave=False, disable=not progress)
        for layer, (taught, block) in enumerate(layers):
            for kind, half in HALVES.items():
                projection = block.get_submodule(kind)
                inputs: list[Tensor] = []
                with projection.register_forward_pre_hook(keeper(inputs)):  # behind the plan's own hook
                    for i, where in enumerate(places):
                        wanted[i] = wanted[i] + half(taught, wanted[i], where)
                        half(block, streams[i], where)
                if kind in kinds:
                    weight = fitted(f"h.{layer}.{kind}", projection, inputs, streams, wanted, prior)
                    projection.weight.copy_(weight.to(projection.weight.dtype))
                for i, x in enumerate(inputs):
                    streams[i] = streams[i] + F.linear(x, projection.weight, projection.bias)
    return copy


def attended(block: Block, x: Tensor, where: Layout) -> Tensor:
    """What attention adds to the stream x (B, T, C)."""
    return block.attn(block.ln_1(x), where)[0]


def fed_forward(block: Block, x: Tensor, where: Layout) -> Tensor:
    """What the MLP adds to the stream x (B, T, C)."""
    return block.mlp(block.ln_2(x))


HALVES = {"attn.c_proj": attended, "mlp.c_proj": fed_forward}  # of a block, by their last matrix


def keeper(inputs: list[Tensor]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook before a matrix's forward that keeps its inputs."""
    return lambda module, given: inputs.append(given[0])


def fitted(
    name: str,
    projection: nn.Linear,
    inputs: list[Tensor],
    streams: list[Tensor],
    wanted: list[Tensor],
    prior: float,
) -> Tensor:
    """The weights (out, in), float64, that minimize `refit`'s sum; of each batch x (B, T, in), s and h
    (B, T, C)."""
    start = in_float64(projection.weight)
    gram, cross = start.new_zeros(start.shape[1], start.shape[1]), torch.zeros_like(start)
    for x, s, h in zip(inputs, streams, wanted, strict=True):
        goal = h - s if projection.bias is None else h - s - projection.bias
        size = h.square().mean(-1, keepdim=True)
        x, goal, weighted = x.flatten(0, 1), goal.flatten(0, 1), (x / size).flatten(0, 1)
        gram += (weighted.T @ x).to(gram.device)  # (in, in)
        cross += (goal.T @ weighted).to(cross.device)  # (out, in)
    check_finite(name, gram)
    tokens = sum(x[..., 0].numel() for x in inputs)
    held = prior / tokens * gram.diagonal().mean()
    if held == 0:  # every input of every token is dropped: nothing says what the weights should be
        return start
    factor = torch.linalg.cholesky(gram + held * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    return torch.cholesky_solve((cross + held * start).T, factor).T


def check_refit(model: GPT, teacher: GPT, kinds: list[str], prior: float) -> None:
    """`UserError` unless the model can be refitted to the teacher."""
    sizes = [(len(one.h), one.config.n_embd, one.config.vocab_size) for one in (model, teacher)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"the model has layers, width and vocabulary of {sizes[0]}, the teacher of {sizes[1]}: refit to "
            "the model that was pruned"
        )
    if not kinds or not set(kinds) <= set(HALVES):
        raise UserError(f"refit matrices {kinds}; choose one or both of {', '.join(HALVES)}")
    if not 0 < prior < math.inf:
        raise UserError(f"prior is {prior}, expected a positive number of tokens such as 1000")
    for layer, (block, taught) in enumerate(zip(model.h, teacher.h, strict=True)):
        for kind in kinds:
            weight, whole = (one.get_parameter(f"{kind}.weight") for one in (block, taught))
            if weight.shape == whole.shape and ((weight == 0) & (whole != 0)).any():
                raise UserError(
                    f"h.{layer}.{kind} has weights that were set to zero, and fitted anew they would not "
                    "stay zero: `recover` keeps them"
                )
