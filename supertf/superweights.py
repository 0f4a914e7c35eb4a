"""Find super weights: single entries W[out, in] of an MLP's output projection that a model needs.

Yu et al. 2024, "The Super Weight in Large Language Models" (arXiv 2411.07191), section 3.1. One forward
pass shows them, because the input and the output of their layer's projection spike at one channel each:
the output at (t, out) is a sum over input channels, nearly all of it W[out, in] times the input's spike.
A spike makes a candidate. Whether the model needs the weight, only removing it beside controls can tell:
see `ablation`.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supertf.checks import check_vocabulary
from supertf.errors import UserError
from supertf.projections import Coordinate, Projection, check_coordinate, output_projections

PROMPT = "Apple Inc. is a worldwide tech company."  # the paper's
THRESHOLD = 50.0  # the paper's, for the magnitude of both spikes


@dataclass(frozen=True)
class Peak:
    """The entry of largest magnitude in one layer's activations: its value, token and channel.

    ratio: its magnitude over the median of all channels' largest magnitudes, which needs no scale.
    """

    value: float
    token: int
    channel: int
    ratio: float = float("nan")


@dataclass(frozen=True)
class Spike:
    """What one layer's output projection shows in a forward pass.

    input, output: the largest entries before and after it. into: the input channel that contributes most to
    the output's peak; for a super weight it is the channel of the input's peak as well. weight: the entry
    W[output.channel, into]. share: that weight's part of the output's peak; the rest of the row may add to
    it (share < 1) or pull against it (share > 1).
    """

    layer: int
    input: Peak
    output: Peak
    into: int
    weight: float
    share: float

    @property
    def coordinate(self) -> Coordinate:
        """(layer, out, in) of the weight that carries the output's peak."""
        return self.layer, self.output.channel, self.into

    @property
    def size(self) -> float:
        """The smaller magnitude of the two peaks: a super weight needs both."""
        return min(abs(self.input.value), abs(self.output.value))

    @property
    def ratio(self) -> float:
        """The smaller of the two peaks' ratios."""
        return min(self.input.ratio, self.output.ratio)


def peak(activations: Tensor) -> Peak:
    """The entry of largest magnitude of activations (..., channels), reduced without a copy of them."""
    rows = activations.reshape(-1, activations.shape[-1])  # (tokens, channels)
    low, high = torch.aminmax(rows, dim=0)
    largest = torch.maximum(high, -low).float()  # (channels,)
    channel = int(largest.argmax())
    token = int(rows[:, channel].abs().argmax())
    ratio = largest[channel] / largest.median()
    return Peak(float(rows[token, channel]), token, channel, float(ratio))


def find_spikes(model: nn.Module, prompt: list[int], removed: Iterable[Coordinate] = ()) -> list[Spike]:
    """One `Spike` per layer from one forward pass over a prompt; nothing larger than a channel is kept.

    model: the lab's `GPT`, or any Hugging Face causal model as an `HFModel`. removed: weights whose
    contributions are taken out of the pass; the model itself is not touched. Raises `UserError` on a
    prompt that is empty or longer than the model reads, on a model without known MLP projections, on
    quantized ones, and on activations that are not finite.
    """
    projections = output_projections(model)
    removed = list(removed)
    for coordinate in removed:
        check_coordinate(projections, coordinate)
    check_prompt(model, prompt)
    spikes: list[Spike] = []
    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for projection in projections:
            gone = [(out, into) for layer, out, into in removed if layer == projection.layer]
            hook = projection.module.register_forward_hook(recorder(projection, gone, spikes))
            hooks.callback(hook.remove)
        model(torch.tensor([prompt], device=model.device), last_only=True)
    return spikes


def recorder(
    projection: Projection, removed: list[tuple[int, int]], spikes: list[Spike]
) -> Callable[..., Any]:
    """A forward hook that appends the layer's `Spike`, after taking the removed weights' part out."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        for out, into in removed:
            output[..., out] -= x[..., into] * projection.row(out)[into]
        spikes.append(spike(projection, x, output, removed))
        return output

    return record


def spike(projection: Projection, x: Tensor, y: Tensor, removed: list[tuple[int, int]]) -> Spike:
    """The `Spike` of inputs x (..., K) and outputs y (..., C) of one projection."""
    into, out = peak(x), peak(y)
    if not (abs(into.value) < float("inf") and abs(out.value) < float("inf")):
        raise UserError(
            f"the activations of {projection.name} are not finite: the weights are damaged, or their dtype "
            "is too narrow for this model (try float32)"
        )
    row = projection.row(out.channel)  # (K,)
    for gone, channel in removed:
        if gone == out.channel:
            row[channel] = 0.0
    parts = x.reshape(-1, x.shape[-1])[out.token].float() * row.float()  # (K,), their sum is the peak
    channel = int((parts * (1.0 if out.value > 0 else -1.0)).argmax())
    share = float(parts[channel]) / out.value if out.value else 0.0
    return Spike(projection.layer, into, out, channel, float(row[channel]), share)


def candidates(
    spikes: Iterable[Spike], threshold: float | None = THRESHOLD, ratio: float | None = None
) -> list[Spike]:
    """Layers where input and output both spike, the largest `Spike.size` first.

    threshold: both magnitudes exceed it (the paper's rule). ratio: both exceed so many times the median
    channel (a rule without a scale, for models whose activations are all large or all small).
    """
    found = [
        spike
        for spike in spikes
        if (threshold is None or spike.size > threshold) and (ratio is None or spike.ratio > ratio)
    ]
    return sorted(found, key=lambda spike: -spike.size)


@dataclass(frozen=True)
class Round:
    """One pass of `search`: what every layer showed, candidates in order, and the weight taken out next."""

    spikes: list[Spike]
    candidates: list[Spike]
    removed: Coordinate | None


def search(
    model: nn.Module,
    prompt: list[int],
    threshold: float | None = THRESHOLD,
    ratio: float | None = None,
    rounds: int = 8,
) -> list[Round]:
    """The paper's iteration: find the strongest candidate, take it out, look again, until no spike is left.

    A last round without `removed` says that the spikes are gone; with it, that `rounds` ended first. Taking
    a weight out can also quench a spike elsewhere, which then never was a candidate of its own.
    """
    if rounds < 1:
        raise UserError(f"rounds is {rounds}, expected at least 1")
    done: list[Round] = []
    removed: list[Coordinate] = []
    while len(done) < rounds and (not done or done[-1].removed):
        spikes = find_spikes(model, prompt, removed)
        found = candidates(spikes, threshold, ratio)
        next_one = found[0].coordinate if found else None
        done.append(Round(spikes, found, next_one))
        if next_one:
            removed.append(next_one)
    return done


def check_prompt(model: nn.Module, prompt: list[int]) -> None:
    """`UserError` unless the model can read the prompt."""
    check_vocabulary(prompt, model.config.vocab_size, "the prompt")
    if len(prompt) > model.config.n_ctx:
        raise UserError(
            f"the prompt has {len(prompt)} tokens, more than the model's context of {model.config.n_ctx}: "
            "shorten it"
        )
