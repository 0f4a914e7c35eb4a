"""What a super weight does: measures of a model, taken as it is and while some weights are changed.

A change is a context: `weight_edits.scaled_weights`, or `restored_activations` here. An effect is a function
of a model: its loss (`ablation.text_loss`), the `activation_path` (Yu et al. 2024, arXiv 2411.07191, Figure
4), what `next_tokens` it expects (Figure 5), its `attention_sinks` (appendix A.5), a text it continues
(`generation.generate`). Before and after are the same function, outside and inside the context.
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
from supertf.data import check_vocabulary
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

STOP_WORDS = (  # the commonest function words of English
    "a an and are as at be been but by can could did do does for from had has have he her him his how i if "
    "in into is it its me my no not of on or our she should so than that the their them then there these "
    "they this those to too us was we were what when where which who will with would you your"
)


@dataclass(frozen=True)
class Scaled:
    """The loss in nats with weights times `factor`; ratio: perplexity over the unchanged model's."""

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

    Raises `UserError` without factors, on one that is not finite, and as `scaled_weights` does.
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
    Raises `UserError` as `scaled_weights` does.
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
    """Losses in nats: of the unchanged model, without the weights, and with their activations put back."""

    base: float
    removed: float
    restored: float

    @property
    def share(self) -> float | None:
        """The part of the damage that comes back: 1 is all of it. None where removing does no damage."""
        damage = self.removed - self.base
        return (self.removed - self.restored) / damage if damage > 0 else None


def restoration(model: LanguageModel, coordinates: Iterable[Coordinate], loss: Loss) -> Restoration:
    """The three rows of the paper's Table 1 in losses; raises `UserError` as `scaled_weights` does."""
    coordinates = list(coordinates)
    base = measured(model, loss)
    with scaled_weights(model, coordinates):
        removed = measured(model, loss, "without the weights")
    with restored_activations(model, coordinates):
        restored = measured(model, loss, "with restored activations")
    return Restoration(base, removed, restored)


def activation_path(model: LanguageModel, ids: Sequence[int]) -> list[Peak]:
    """The residual stream's entry of largest magnitude before the first block and after each in turn.

    ids: one text, token and channel of each `Peak` are counted in it. The last entry is what the final norm
    reads. Raises `UserError` on a text that the model cannot read and on a model without known MLP
    projections.
    """
    check_prompt(model, list(ids))
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

    probabilities: (V,) float64. groups: the mass on each group of tokens. entropy: of each prompt's
    distribution, nats. kl, js: Kullback-Leibler divergence from the unigram distribution (that of p to it)
    and Jensen-Shannon divergence, nats; js is 0 for equal distributions and log 2 = 0.693 for disjoint ones.
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
    """`NextTokens` after many prompts (Figure 5), which run together where they are equally long.

    unigram: (V,), how often each token occurs in text, see `unigram`. groups: token ids by name, see
    `token_groups`. Raises `UserError` without prompts, on one that the model cannot read, and on a
    unigram distribution or a group of another vocabulary.
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

    smoothing: counted on top for every token, so that none is impossible.
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
    """How much attention rests on the first token of windows side by side, see `attention_stats.sink_rate`.

    Raises `UserError` on a text shorter than one window, and on a Hugging Face model, whose attention
    weights this lab does not see.
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
