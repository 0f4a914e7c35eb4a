"""What a super weight does: measures of a model, taken as it is and while some weights are changed.

A change is a context: `scaled_weights`, or `restored_activations` here. An effect is a function of a model:
its loss (`text_loss`), the `activation_path` (Yu et al. 2024, arXiv 2411.07191, Figure 4), what `next_tokens`
it expects (Figure 5), its `attention_sinks` (appendix A.5), a text it continues (`supertf.generate`). Before
and after are the same function, outside and inside the context.
"""

import contextlib
import math
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from supertf.analysis import Peak, SinkRate, attention_stats, peak, sink_rate
from supertf.data import STOP_WORDS, check_vocabulary
from supertf.errors import UserError
from supertf.model import (
    GPT,
    Coordinate,
    Hook,
    LanguageModel,
    block_name,
    check_coordinate,
    output_projections,
)
from supertf.superweights.ablation import Loss, measured, ratio
from supertf.superweights.edit import scaled_weights
from supertf.superweights.find import check_prompt

if TYPE_CHECKING:
    from supertf.model import Tokenizer


@dataclass(frozen=True)
class Scaled:
    """Weights multiplied by a factor.

    Attributes:
        factor: 0 removes them, 1 changes nothing.
        loss: with the weights so, nats per token.
        ratio: perplexity over the unchanged model's.
    """

    factor: float
    loss: float
    ratio: float


def scaling_curve(
    model: LanguageModel,
    coordinates: Iterable[Coordinate],
    factors: Iterable[float],
    loss: Loss,
    progress: bool = True,
) -> list[Scaled]:
    """Scale weights together by each factor in turn (the paper's Figure 6: 0 to 3) and measure the loss.

    Args:
        model: whose weights they are.
        coordinates: of the weights, (layer, out, in).
        factors: one or more.
        loss: a measure of the model, such as `text_loss(ids)`.
        progress: show a bar.

    Returns:
        A `Scaled` for each factor, in the order given.

    Raises:
        UserError: no factors, one that is not finite, a loss that is not, and what `scaled_weights` refuses.
    """
    coordinates, factors = list(coordinates), list(factors)
    if not factors or not all(math.isfinite(factor) for factor in factors):
        raise UserError(f"factors are {factors}, expected one or more numbers, for example 0, 0.5, 1, 2")
    base = measured(model, loss)
    curve = []
    for factor in tqdm(factors, desc="scaling", disable=not progress, leave=False):
        with scaled_weights(model, coordinates, factor):
            value = measured(model, loss, f"with weights times {factor}")
        curve.append(Scaled(factor, value, ratio(value, base)))
    return curve


@contextlib.contextmanager
def restored_activations(model: LanguageModel, coordinates: Iterable[Coordinate]) -> Iterator[None]:
    """Remove weights, but keep the super activations they make (the paper's Table 1, "Prune SW, +SA").

    In each window of a forward pass, the token where the removed weight's input channel is largest gets the
    weight's part of the output back, all others stay without it. Mostly that is the window's first token
    (in SmolLM2-135M in 15 of 16 windows of text), which no other can change, and its output is then the
    unchanged model's. A pass that continues a cache gets nothing: its window's token was in the first pass.

    Args:
        model: whose weights they are.
        coordinates: of the weights, (layer, out, in).

    Raises:
        UserError: what `scaled_weights` refuses.
    """
    projections = output_projections(model)
    weights: dict[Coordinate, Tensor] = {}
    for coordinate in coordinates:
        check_coordinate(projections, coordinate)
        layer, out, into = coordinate
        weights[coordinate] = projections[layer].row(out)[into].detach()
    windows: list[int | None] = [None]  # that begin in the model's pass; None: blocks are run one by one

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("cache")
        held = 0 if cache is None else cache.length if isinstance(model, GPT) else cache.get_seq_length()
        windows[0] = 0 if held else len(args[0])

    def end(*_: Any) -> None:
        windows[0] = None

    with contextlib.ExitStack() as stack:
        stack.enter_context(scaled_weights(model, weights))
        stack.callback(model.register_forward_pre_hook(Hook(begin), with_kwargs=True).remove)
        stack.callback(model.register_forward_hook(Hook(end), always_call=True).remove)
        for (layer, out, into), weight in weights.items():
            hook = Hook(restorer(out, into, weight, windows))
            stack.callback(projections[layer].module.register_forward_hook(hook).remove)
        yield


def restorer(out: int, into: int, weight: Tensor, windows: list[int | None]) -> Callable[..., Tensor]:
    """A forward hook of a projection that gives one token of each window a removed weight's part back."""

    def restore(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x, y = inputs[0], output  # (B, T, in), (B, T, out); OPT's are (B * T, ...)
        if windows[0] == 0:
            return output
        if windows[0]:
            x, y = (one.view(windows[0], -1, one.shape[-1]) for one in (x, y))
        signal = x[..., into]  # (B, T)
        row, token = torch.arange(len(signal), device=x.device), signal.abs().argmax(dim=1)
        y[row, token, out] += signal[row, token] * weight
        return output

    return restore


@dataclass(frozen=True)
class Restoration:
    """What keeping the super activations is worth.

    Attributes:
        base: the loss of the unchanged model, nats per token.
        removed: the loss without the weights.
        restored: the loss without the weights, with their activations put back.
    """

    base: float
    removed: float
    restored: float

    @property
    def share(self) -> float | None:
        """The part of the damage that comes back: 1 is all of it. None where removing does no damage."""
        damage = self.removed - self.base
        return (self.removed - self.restored) / damage if damage > 0 else None


def restoration(model: LanguageModel, coordinates: Iterable[Coordinate], loss: Loss) -> Restoration:
    """The three rows of the paper's Table 1, in losses.

    Args:
        model: whose weights they are.
        coordinates: of the weights, (layer, out, in).
        loss: a measure of the model, such as `text_loss(ids)`.

    Raises:
        UserError: a loss that is not finite, and what `scaled_weights` refuses.
    """
    coordinates = list(coordinates)
    base = measured(model, loss)
    with scaled_weights(model, coordinates):
        removed = measured(model, loss, "without the weights")
    with restored_activations(model, coordinates):
        restored = measured(model, loss, "with restored activations")
    return Restoration(base, removed, restored)


def activation_path(model: LanguageModel, ids: Sequence[int]) -> list[Peak]:
    """The residual stream's entry of largest magnitude before the first block and after each in turn.

    Args:
        model: to run once.
        ids: token ids of one text.

    Returns:
        One `Peak` more than there are layers; the last is of what the final norm reads.

    Raises:
        UserError: a text that the model cannot read, and a model without known MLP projections.
    """
    check_prompt(model, ids)
    blocks = [model.get_submodule(block_name(projection)) for projection in output_projections(model)]
    path: list[Peak] = []

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        path.append(peak(args[0] if args else kwargs["hidden_states"]))

    def after(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        path.append(peak(output[0] if isinstance(output, tuple) else output))

    with contextlib.ExitStack() as hooks, torch.inference_mode():
        hooks.callback(blocks[0].register_forward_pre_hook(before, with_kwargs=True).remove)
        for block in blocks:
            hooks.callback(block.register_forward_hook(after).remove)
        model(torch.tensor([list(ids)], device=model.device), last_only=True)
    return path


@dataclass(frozen=True)
class NextTokens:
    """What a model expects next, mean over prompts.

    Attributes:
        probabilities: (V,) float64.
        groups: the mass on each group of tokens.
        entropy: of each prompt's distribution, nats.
        kl: Kullback-Leibler divergence of each prompt's distribution from the unigram one, nats.
        js: Jensen-Shannon divergence of the two, nats: 0 for equal distributions, log 2 = 0.693 for disjoint
            ones.
    """

    probabilities: Tensor
    groups: dict[str, float]
    entropy: float
    kl: float
    js: float


@torch.inference_mode()
def next_tokens(
    model: LanguageModel,
    prompts: Iterable[Sequence[int]],
    unigram: Tensor,
    groups: Mapping[str, Collection[int]] | None = None,
    batch_size: int = 16,
    progress: bool = True,
) -> NextTokens:
    """`NextTokens` after many prompts (the paper's Figure 5), which run together where equally long.

    Args:
        model: to run.
        prompts: token ids of each.
        unigram: (V,), how often each token occurs in text, see `unigram`.
        groups: token ids by name, see `token_groups`.
        batch_size: prompts run together at most.
        progress: show a bar.

    Raises:
        UserError: no prompts, one that the model cannot read, and a unigram distribution or a group of
            another vocabulary.
    """
    size = model.config.vocab_size
    prompts = sorted(map(list, prompts), key=len)
    if not prompts:
        raise UserError("no prompts: give one or more, each a list of token ids")
    for prompt in prompts:
        check_prompt(model, prompt)
    if unigram.shape != (size,) or not (unigram >= 0).all() or abs(float(unigram.sum()) - 1) > 1e-3:
        raise UserError(
            f"the unigram distribution has shape {tuple(unigram.shape)} and sum {float(unigram.sum()):.4g}, "
            f"expected probabilities of the model's {size} tokens"
        )
    for name, group in (groups or {}).items():
        check_vocabulary(list(group), size, f"group {name!r}")
    unigram = unigram.double()
    total = torch.zeros(size, dtype=torch.float64)
    sums = torch.zeros(3, dtype=torch.float64)  # entropy, kl, js
    batches = [
        equal[first : first + batch_size]
        for equal in (list(group) for _, group in groupby(prompts, key=len))
        for first in range(0, len(equal), batch_size)
    ]
    for batch in tqdm(batches, desc="prompts", disable=not progress, leave=False):
        logits = model(torch.tensor(batch, device=model.device), last_only=True).logits[:, -1, :size]
        p = logits.cpu().double().softmax(-1)  # (B, V)
        middle = (p + unigram) / 2
        js = (divergence(p, middle) + divergence(unigram, middle)) / 2
        entropy = -torch.xlogy(p, p).sum(-1)
        total += p.sum(0)
        sums += torch.stack([entropy, divergence(p, unigram), js]).sum(-1)
    mean = total / len(prompts)
    mass = {name: float(mean[list(set(group))].sum()) for name, group in (groups or {}).items()}
    return NextTokens(mean, mass, *(sums / len(prompts)).tolist())


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of p (..., V) from q (..., V) in nats, (...); infinite where q lacks p."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def unigram(ids: Sequence[int] | Tensor, vocab_size: int, smoothing: float = 0.01) -> Tensor:
    """How often each token occurs in a text, (V,) float64 that sums to 1.

    Args:
        ids: token ids of the text, (N,).
        vocab_size: V, of the model.
        smoothing: counted on top for every token, so that none is impossible.

    Raises:
        UserError: no ids, or some of another vocabulary.
    """
    check_vocabulary(ids, vocab_size, "the text")
    counts = torch.bincount(torch.as_tensor(ids, dtype=torch.int64), minlength=vocab_size) + smoothing
    return counts.double() / counts.double().sum()


def token_groups(tokenizer: "Tokenizer") -> dict[str, list[int]]:
    """Ids of all tokens that are "stop words" (with or without a space, any case) or "punctuation"."""
    stop_words = set(STOP_WORDS.split())
    groups: dict[str, list[int]] = {"stop words": [], "punctuation": []}
    for token, raw in enumerate(map(tokenizer.decode_single_token_bytes, range(tokenizer.n_vocab))):
        text = raw.decode("utf-8", errors="replace").strip().lower()
        if text in stop_words:
            groups["stop words"].append(token)
        elif text and all(character in string.punctuation for character in text):
            groups["punctuation"].append(token)
    return groups


def attention_sinks(model: LanguageModel, ids: Sequence[int] | Tensor, length: int = 64) -> SinkRate:
    """How much attention rests on the first token of windows side by side, see `analysis.sink_rate`.

    Args:
        model: this lab's `GPT`.
        ids: token ids of the text, (N,).
        length: tokens of a window, at least 2; what is left over is left out.

    Raises:
        UserError: a text shorter than one window, and a Hugging Face model, whose attention weights this lab
            does not see.
    """
    if not isinstance(model, GPT):
        raise UserError(
            "attention sinks are measured in this lab's GPT only: load the model with `load_model`, which "
            "reads GPT-2, Llama and Mistral checkpoints"
        )
    ids = torch.as_tensor(ids, dtype=torch.int64)
    if not 2 <= length <= len(ids):
        raise UserError(f"windows of {length} tokens in a text of {len(ids)}, expected 2 to {len(ids)}")
    windows = ids[: len(ids) // length * length].view(-1, length)
    return sink_rate(attention_stats(model, windows))
