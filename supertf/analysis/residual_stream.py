"""The residual stream, layer by layer: its states, and how far a few channels stand out of it.

Two measures from the literature. Kurtosis over channels (He et al. 2024, arXiv 2405.19279): outlier
features, channels that are large on many tokens. Largest over median magnitude (Sun et al. 2024, arXiv
2402.17762): massive activations, single values thousands of times above the rest, mostly at one token.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.analysis.peak_entries import Peak, peak
from supertf.data import check_vocabulary
from supertf.errors import UserError
from supertf.model import GPT, Layout


@torch.no_grad()
def hidden_states(model: GPT, idx: Tensor, where: Layout | None = None) -> Iterator[Tensor]:
    """The residual stream, layer by layer: nothing after the last state taken is computed, the head never.

    Args:
        model: in evaluation mode.
        idx: (B, T) int64, or (B, T, K) where a token is K ids.
        where: the layout of packed or padded rows, from `token_layout`.

    Yields:
        States (B, T, C): first the embeddings, then the stream after each block in turn. The final norm is
        not applied.

    Raises:
        UserError: what `token_layout` refuses.
    """
    where = token_layout(model, idx) if where is None else where
    x = model.embed(idx.to(model.device), where)
    yield x
    for block in model.h:
        x, _ = block(x, where)
        yield x


def token_layout(model: GPT, idx: Tensor, segments: Tensor | None = None) -> Layout:
    """`GPT.layout` of tokens to analyse, checked.

    Args:
        model: that is to read them.
        idx: (B, T) int64, or (B, T, K) where a token is K ids.
        segments: (B, T) integers of packed or padded rows, see `model.layout`.

    Raises:
        UserError: no tokens, ids outside the vocabulary, more tokens than the model can read, a model in
            training mode with dropout (where no two passes agree), or one that is run by transformers.
    """
    if not isinstance(model, GPT):
        raise UserError(
            f"a {type(model).__name__} does not show its layers: this works on models that the lab runs "
            "itself, such as GPT-2 and Llama families (`load_model`)"
        )
    if model.training and model.config.dropout:
        raise UserError("the model is in training mode with dropout: call model.eval() before analysing it")
    if idx.ndim not in (2, 3) or not idx.numel():
        raise UserError(f"the tokens have shape {tuple(idx.shape)}, expected (B, T) with at least one token")
    check_vocabulary(idx, model.config.vocab_size, "the text")
    segments = None if segments is None else segments.to(model.device)
    return model.layout(idx.to(model.device), 0, segments, None)


@dataclass(frozen=True)
class ResidualStats:
    """Outliers of the residual stream after some blocks.

    Attributes:
        layer: how many blocks; 0 are the embeddings.
        kurtosis: E_j[s_j^4] / E_j[s_j^2]^2 over channels j, where s_j is the root mean square of channel j
            over all tokens; 1 when all channels are equally large, C when one channel is all there is, which
            a single massive activation also comes close to.
        max_over_median: largest |x| of a sequence over its median |x|, mean over sequences.
        largest: the entry of largest magnitude, with its token and channel.
        row: the sequence that it is in.
        by_position: (T,), largest |x| at each token over the sequence's median |x|, mean over sequences.
    """

    layer: int
    kurtosis: float
    max_over_median: float
    largest: Peak
    row: int
    by_position: Tensor


def residual_stats(model: GPT, idx: Tensor) -> list[ResidualStats]:
    """Outliers after every layer, embeddings first, from one pass.

    Args:
        model: in evaluation mode.
        idx: (B, T) int64.

    Raises:
        UserError: what `token_layout` refuses.
    """
    return [measure(layer, x) for layer, x in enumerate(hidden_states(model, idx))]


def measure(layer: int, x: Tensor) -> ResidualStats:
    """`ResidualStats` of states (B, T, C), counted in float64 on the CPU."""
    x = x.cpu().double()
    power = x.square().mean(dim=(0, 1))  # (C,), s_j^2
    size = x.abs()
    median = size.flatten(1).median(dim=1).values  # (B,)
    by_position = size.amax(dim=-1) / median[:, None]  # (B, T)
    row = int(size.flatten(1).amax(dim=1).argmax())
    return ResidualStats(
        layer,
        float(power.square().mean() / power.mean().square()),
        float(by_position.amax(dim=1).mean()),
        peak(x[row : row + 1]),
        row,
        by_position.mean(dim=0),
    )
