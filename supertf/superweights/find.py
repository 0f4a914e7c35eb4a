"""Find super weights: single entries W[out, in] of an MLP's output projection that a model needs.

Yu et al. 2024, "The Super Weight in Large Language Models" (arXiv 2411.07191), section 3.1. One forward
pass shows them, because the input and the output of their layer's projection spike at one channel each:
the output at (t, out) is a sum over input channels, nearly all of it W[out, in] times the input's spike.
What counts is what reaches the residual stream: where a norm follows the MLP, the output's spike is looked
for behind it (`model.mlp_outputs`). A spike makes a candidate. Whether the model needs the weight, only
removing it beside controls can tell: see `ablation`.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.analysis import Peak, peaks
from supertf.data import check_vocabulary
from supertf.errors import UserError
from supertf.model import (
    Coordinate,
    LanguageModel,
    Projection,
    additions,
    check_coordinate,
    output_projections,
    show,
)
from supertf.tables import Tabular, number

PROMPT = "Apple Inc. is a worldwide tech company."  # the paper's
BATCH = 1024  # tokens, over all layers, whose activations wait to be reduced together
THRESHOLD = 50.0  # the paper's, for the magnitude of both spikes


@dataclass(frozen=True)
class Spike:
    """What one layer's output projection shows in a forward pass.

    Attributes:
        layer: its number, from 0.
        input, output: the largest entries before and after the projection.
        added: the largest entry of what the residual stream takes, which is the output's unless a norm or a
            multiplier follows.
        into: the input channel that contributes most where `added` is; for a super weight it is the channel
            of the input's peak as well.
        weight: the entry W[added.channel, into].
        share: that weight's part of the projection's output there; the rest of the row may add to it
            (share < 1) or pull against it (share > 1).
        gain: what is added there over the projection's output, in magnitude.
    """

    layer: int
    input: Peak
    output: Peak
    added: Peak
    into: int
    weight: float
    share: float
    gain: float = 1.0

    @property
    def coordinate(self) -> Coordinate:
        """(layer, out, in) of the weight that carries the peak of what is added."""
        return self.layer, self.added.channel, self.into

    @property
    def size(self) -> float:
        """The smaller magnitude of the peaks of the input and of what is added: a super weight needs both.

        Where a norm makes a hundred times as much of the output, the input counts a hundred times as well.
        """
        return min(abs(self.input.value) * max(1.0, self.gain), abs(self.added.value))

    @property
    def ratio(self) -> float:
        """The smaller of the two peaks' ratios."""
        return min(self.input.ratio, self.added.ratio)


def find_spikes(
    model: LanguageModel, prompt: Sequence[int], removed: Iterable[Coordinate] = ()
) -> list[Spike]:
    """What every layer's output projection shows in one forward pass over a prompt.

    Activations are reduced as they come, and the pass ends with the last MLP: the logits are not needed.

    Args:
        model: the lab's `GPT`, or any Hugging Face causal model as `load` gives it.
        prompt: token ids.
        removed: weights whose contributions are taken out of the pass; the model itself is not touched.

    Returns:
        One `Spike` per layer, first layer first.

    Raises:
        UserError: a prompt that is empty or longer than the model reads, a model without known MLP
            projections, quantized ones, and activations that are not finite.
    """
    projections = output_projections(model)
    gone: dict[int, list[tuple[int, int]]] = {projection.layer: [] for projection in projections}
    for coordinate in removed:
        check_coordinate(projections, coordinate)
        gone[coordinate[0]].append(coordinate[1:])
    check_prompt(model, prompt)
    spikes: list[Spike] = []
    waiting: list[Pass] = []

    def heard(projection: Projection, x: Tensor, y: Tensor, added: Tensor | None) -> None:
        take(Pass(projection, gone[projection.layer], x, y, added), waiting, spikes)
        if projection.layer == projections[-1].layer:
            raise EndOfPass

    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for projection in projections:
            if gone[projection.layer]:
                hook = remover(projection, gone[projection.layer])
                hooks.callback(projection.module.register_forward_hook(hook).remove)
        with contextlib.suppress(EndOfPass), additions(model, projections, heard):
            model(torch.tensor([list(prompt)], device=model.device), last_only=True)
        spikes += reduce(waiting)
    return spikes


class EndOfPass(Exception):  # noqa: N818 - no error
    """Raised inside a forward pass of which nothing more is wanted."""


@dataclass(frozen=True)
class Pass:
    """What went through one projection without the removed weights (out, in): x (..., K) to y (..., C), of
    which the stream takes `added` (..., C), or y itself where that is None."""

    projection: Projection
    removed: list[tuple[int, int]]
    x: Tensor
    y: Tensor
    added: Tensor | None


def remover(projection: Projection, removed: list[tuple[int, int]]) -> Callable[..., None]:
    """A forward hook that takes the removed weights' part out of the output."""

    def remove(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # A channel is computed anew, not corrected: what a spike leaves of it in bfloat16 is noise. Writing
        # into the output is safe: it is the projection's own, and nobody has read it yet.
        for out in {out for out, _ in removed}:
            row = row_without(projection, out, removed)
            output[..., out] = F.linear(inputs[0], row[None], projection.bias(out))[..., 0]

    return remove


def take(one: Pass, waiting: list[Pass], spikes: list[Spike]) -> None:
    """Find a pass's `Spike`: at once on a long prompt; on a short one together with those of other layers,
    waiting for up to BATCH tokens."""
    tokens = one.x.numel() // one.x.shape[-1]
    if waiting and ((len(waiting) + 1) * tokens > BATCH or not alike(waiting[0], one)):
        spikes.extend(reduce(waiting))
        waiting.clear()
    if 2 * tokens > BATCH:
        spikes.extend(reduce([one]))
    else:  # copies, since some models (Falcon) go on to add in place
        added = None if one.added is None else one.added.clone()
        waiting.append(dataclasses.replace(one, y=one.y.clone(), added=added))


def alike(one: Pass, other: Pass) -> bool:
    """Whether two passes can be reduced together."""
    first, second = ((x.x.shape, x.x.device, x.added is None) for x in (one, other))
    return first == second


def reduce(passes: list[Pass]) -> list[Spike]:
    """The spikes of passes alike in shape and device: which weight carries the output's peak, by how much."""
    if not passes:
        return []
    xs, ys = (together([getattr(one, side) for one in passes]) for side in ("x", "y"))
    layers = torch.arange(len(passes), device=xs.device)
    inputs, outputs = peaks(xs), peaks(ys)
    added, at = outputs, [out.value for out in outputs]  # at: the outputs where `added` peaks
    if taken := [one.added for one in passes if one.added is not None]:  # all of them: they are alike
        added = peaks(together(taken))
        at = ys[layers, [one.token for one in added], [one.channel for one in added]].tolist()
    for one, *seen in zip(passes, inputs, outputs, added, strict=True):
        if not all(math.isfinite(peak.value) for peak in seen):
            raise UserError(
                f"the activations of {one.projection.name} are not finite: the weights are damaged, or their "
                "dtype is too narrow for this model (try float32)"
            )
    rows = torch.stack(
        [row_without(one.projection, to.channel, one.removed) for one, to in zip(passes, added, strict=True)]
    ).float()  # (L, K)
    x = xs[layers, [to.token for to in added]].float()
    parts = x * rows  # (L, K); a row's sum and the bias are the output where `added` peaks
    signs = torch.tensor([1.0 if value > 0 else -1.0 for value in at], device=xs.device)
    channels = (parts * signs[:, None]).argmax(1)
    found = channels.tolist(), rows[layers, channels].tolist(), parts[layers, channels].tolist()
    return [
        Spike(
            passes[i].projection.layer,
            inputs[i],
            outputs[i],
            added[i],
            into,
            weight,
            share=part / at[i] if at[i] else 0.0,
            gain=abs(added[i].value / at[i]) if at[i] else 1.0,
        )
        for i, (into, weight, part) in enumerate(zip(*found, strict=True))
    ]


def together(tensors: list[Tensor]) -> Tensor:
    """L tensors (..., K) as (L, T, K); a single one is not copied."""
    return (tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)).flatten(1, -2)


def row_without(projection: Projection, out: int, removed: list[tuple[int, int]]) -> Tensor:
    """W[out, :] (K,), with zeros for the weights (out, in) that are removed."""
    row = projection.row(out)
    for gone, into in removed:
        if gone == out:
            row[into] = 0.0
    return row


def candidates(
    spikes: Iterable[Spike], threshold: float | None = THRESHOLD, ratio: float | None = None
) -> list[Spike]:
    """Layers where the input and what is added both spike, the largest `Spike.size` first.

    Args:
        spikes: of any layers, from `find_spikes`.
        threshold: magnitude that both exceed (the paper's rule); None asks for none.
        ratio: times the median channel's that both exceed, a rule without a scale, for models whose
            activations are all large or all small; None asks for none.
    """
    found = [
        spike
        for spike in spikes
        if (threshold is None or spike.size > threshold) and (ratio is None or spike.ratio > ratio)
    ]
    return sorted(found, key=lambda spike: -spike.size)


@dataclass(frozen=True)
class Round:
    """One pass of `search`.

    Attributes:
        spikes: what every layer showed.
        candidates: those that follow the rules, the strongest first.
        removed: the weight taken out next, None where there is no candidate.
    """

    spikes: list[Spike]
    candidates: list[Spike]
    removed: Coordinate | None


@dataclass(frozen=True)
class SuperWeights(Tabular):
    """Candidates for super weights in the order found: a sequence of `Spike`, which prints itself.

    Attributes:
        rounds: the passes of the search.
    """

    rounds: tuple[Round, ...]

    @property
    def found(self) -> list[Spike]:
        """Every candidate where it first appears, pass by pass, the strongest first."""
        spikes = (spike for one in self.rounds for spike in one.candidates)
        first: dict[Coordinate, Spike] = {}
        for spike in spikes:
            first.setdefault(spike.coordinate, spike)
        return list(first.values())

    @property
    def removed(self) -> list[Coordinate]:
        """The weights taken out, one after each pass that had a candidate."""
        return [one.removed for one in self.rounds if one.removed is not None]

    @property
    def spikes_gone(self) -> bool:
        """Whether the last pass has no candidate any more; else `rounds` ended the search first."""
        return self.rounds[-1].removed is None

    def round_of(self, candidate: Spike) -> int:
        """The pass, from 1, in which a candidate first appears."""
        return next(i for i, one in enumerate(self.rounds, 1) if candidate in one.candidates)

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Spike:
        return self.found[index]

    def __iter__(self) -> Iterator[Spike]:
        return iter(self.found)

    def columns(self) -> list[str]:
        """The table's head."""
        return ["weight", "value", "input", "output", "added", "share"]

    def rows(self) -> Iterable[Sequence[Any]]:
        """A line for each candidate."""
        for one in self.found:
            peaks = (number(peak.value) for peak in (one.input, one.output, one.added))
            yield show(one.coordinate), number(one.weight), *peaks, f"{one.share:.3f}"

    def caption(self) -> str:
        """What a spike is worth."""
        gone = "no spike is left" if self.spikes_gone else "spikes are left"
        return f"after {len(self.rounds)} passes {gone}; a candidate is no verdict: `ablate` it"


def search(
    model: LanguageModel,
    prompt: Sequence[int],
    threshold: float | None = THRESHOLD,
    ratio: float | None = None,
    rounds: int = 8,
) -> SuperWeights:
    """The paper's iteration: find the strongest candidate, take it out, look again, until no spike is left.

    Taking a weight out can also quench a spike elsewhere, which then never was a candidate of its own.

    Args:
        model: as `find_spikes` takes it; it is not touched.
        prompt: token ids.
        threshold, ratio: the rules of `candidates`.
        rounds: forward passes at most.

    Raises:
        UserError: `rounds` below 1, or what `find_spikes` refuses.
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
    return SuperWeights(tuple(done))


def find_super_weights(
    model: LanguageModel,
    tokenizer: Any,
    prompt: str = PROMPT,
    *,
    threshold: float | None = THRESHOLD,
    ratio: float | None = None,
    rounds: int = 8,
) -> SuperWeights:
    """Candidates for super weights, by the paper's iteration (arXiv 2411.07191, section 3.1).

    Args:
        model: the lab's `GPT`, or any Hugging Face causal model as `load` gives it.
        tokenizer: the model's own.
        prompt: that spikes are looked for in; the default is the paper's.
        threshold: magnitude that the spikes before and after the projection exceed; None asks for none.
        ratio: both spikes must exceed this many times the median channel's; None asks for none.
        rounds: forward passes at most; each takes out the strongest candidate of the one before.

    Returns:
        `SuperWeights`: candidates, the strongest first, and a table where it is printed. A candidate is no
        verdict: `ablate` gives one.

    Raises:
        UserError: a prompt that is empty or too long, a model without known MLP projections, quantized ones,
            and activations that are not finite.

    Example:
        >>> from supertf.model import show
        >>> model, tokenizer = load("smollm2-135m")
        >>> show(find_super_weights(model, tokenizer)[0].coordinate)
        '11[507, 1229]'
    """
    return search(model, tokenizer.encode_prompt(prompt), threshold, ratio, rounds)


def check_prompt(model: LanguageModel, prompt: Sequence[int]) -> None:
    """`UserError` unless the model can read the prompt."""
    check_vocabulary(prompt, model.config.vocab_size, "the prompt")
    if len(prompt) > model.config.n_ctx:
        raise UserError(
            f"the prompt has {len(prompt)} tokens, more than the model's context of {model.config.n_ctx}: "
            "shorten it"
        )
