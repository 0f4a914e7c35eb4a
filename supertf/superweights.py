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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from supertf.checks import check_vocabulary
from supertf.errors import UserError
from supertf.projections import Coordinate, Projection, check_coordinate, output_projections

PROMPT = "Apple Inc. is a worldwide tech company."  # the paper's
THRESHOLD = 50.0  # the paper's, for the magnitude of both spikes


@dataclass(frozen=True)
class Peak:
    """The entry of largest magnitude in one layer's activations: its value, token and channel.

    ratio: its magnitude over the median of the channels' largest magnitudes, which needs no scale; channels
    that are silent (a ReLU's) do not count.
    """

    value: float
    token: int
    channel: int
    ratio: float = 1.0


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


@dataclass(frozen=True)
class Extreme:
    """Where activations are largest in magnitude, and every channel's largest magnitude (channels,)."""

    value: float
    token: int
    channel: int
    largest: Tensor


def extreme(rows: Tensor) -> Extreme:
    """The `Extreme` of activations (tokens, channels), reduced without a copy of them."""
    high, low = rows.amax(0), rows.amin(0)  # each a tenth of the time that torch.aminmax takes
    largest = torch.maximum(high, -low)
    channel = int(largest.argmax())
    column = rows[:, channel]
    token = int(column.argmax() if high[channel] == largest[channel] else column.argmin())
    return Extreme(float(column[token]), token, channel, largest)


def peaks(extremes: list[Extreme]) -> list[Peak]:
    """Extremes with their ratios; all medians at once, which layer by layer would take a few per cent of a
    short forward pass."""
    largest = pad_sequence([found.largest for found in extremes], batch_first=True).float().abs()
    medians = largest.masked_fill_(largest == 0, torch.nan).nanmedian(1).values.tolist()
    return [
        Peak(found.value, found.token, found.channel, abs(found.value) / median if found.value else 1.0)
        for found, median in zip(extremes, medians, strict=True)
    ]


def peak(activations: Tensor) -> Peak:
    """The entry of largest magnitude of activations (..., channels), reduced without a copy of them."""
    return peaks([extreme(activations.reshape(-1, activations.shape[-1]))])[0]


@dataclass(frozen=True)
class Trace:
    """What is kept of one projection's pass: both extremes, and the input (K,) where the output peaks."""

    projection: Projection
    input: Extreme
    output: Extreme
    x: Tensor


def find_spikes(model: nn.Module, prompt: list[int], removed: Iterable[Coordinate] = ()) -> list[Spike]:
    """One `Spike` per layer from one forward pass over a prompt; nothing larger than a channel is kept.

    model: the lab's `GPT`, or any Hugging Face causal model as an `HFModel`. removed: weights whose
    contributions are taken out of the pass; the model itself is not touched. Raises `UserError` on a
    prompt that is empty or longer than the model reads, on a model without known MLP projections, on
    quantized ones, and on activations that are not finite.
    """
    projections = output_projections(model)
    gone: dict[int, list[tuple[int, int]]] = {projection.layer: [] for projection in projections}
    for coordinate in removed:
        check_coordinate(projections, coordinate)
        gone[coordinate[0]].append(coordinate[1:])
    check_prompt(model, prompt)
    traces: list[Trace] = []
    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for projection in projections:
            hook = recorder(projection, gone[projection.layer], traces)
            hooks.callback(projection.module.register_forward_hook(hook).remove)
        model(torch.tensor([prompt], device=model.device), last_only=True)
        inputs, outputs = (peaks([getattr(trace, side) for trace in traces]) for side in ("input", "output"))
        return [
            spike(trace, into, out, gone[trace.projection.layer])
            for trace, into, out in zip(traces, inputs, outputs, strict=True)
        ]


def recorder(
    projection: Projection, removed: list[tuple[int, int]], traces: list[Trace]
) -> Callable[..., Tensor]:
    """A forward hook that takes the removed weights' part out of the output and appends a `Trace`."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        # A channel is computed anew, not corrected: what a spike leaves of it in bfloat16 is noise. Writing
        # into the output is safe: it is the projection's own, and nobody has read it yet.
        for out in {out for out, _ in removed}:
            row = row_without(projection, out, removed)
            output[..., out] = F.linear(x, row[None], projection.bias(out))[..., 0]
        rows, found = x.reshape(-1, x.shape[-1]), extreme(output.reshape(-1, output.shape[-1]))
        traces.append(Trace(projection, extreme(rows), found, rows[found.token].clone()))
        if not (abs(found.value) < float("inf") and abs(traces[-1].input.value) < float("inf")):
            raise UserError(
                f"the activations of {projection.name} are not finite: the weights are damaged, or their "
                "dtype is too narrow for this model (try float32)"
            )
        return output

    return record


def row_without(projection: Projection, out: int, removed: list[tuple[int, int]]) -> Tensor:
    """W[out, :] (K,), with zeros for the weights (out, in) that are removed."""
    row = projection.row(out)
    for gone, into in removed:
        if gone == out:
            row[into] = 0.0
    return row


def spike(trace: Trace, into: Peak, out: Peak, removed: list[tuple[int, int]]) -> Spike:
    """The `Spike` of a trace and its peaks: which weight carries the output's peak, and how much of it."""
    row = row_without(trace.projection, out.channel, removed).float()
    parts = trace.x.float() * row  # (K,); their sum and the bias are the peak
    channel = int(parts.argmax() if out.value > 0 else parts.argmin())
    share = float(parts[channel]) / out.value if out.value else 0.0
    return Spike(trace.projection.layer, into, out, channel, float(row[channel]), share)


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
