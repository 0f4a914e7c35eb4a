"""Causal attention whose logits may grow with the number of visible keys.

All of `scalings` are one factor per query, multiplied into q before the dot product, so the fused kernels
of `scaled_dot_product_attention` stay in use.

n counts the keys that one query sees: its row index + 1 in a plain causal decoder, plus what the
cache holds, restarting with each packed document and counting real tokens only under padding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.model.config import GPTConfig
from supertf.model.positions import alibi_slopes, rotate
from supertf.model.scalings import SCALINGS, start

Made = TypeVar("Made")


@dataclass
class Layout:
    """Who sees whom in one forward pass; the same for every layer.

    Attributes:
        positions: of the queries, index within the document, (B or 1, T) int64.
        n: visible keys of each query, (B or 1, T) int64.
        key_positions: as positions, of the keys, (B or 1, S) int64.
        make_mask: gives `mask`, where attention is not plainly causal.
        segments: as `layout` was given them.
        angles: rotary cosines and sines for the T queries, (B or 1, 1, T, D) each, if any.
        made: what the first layer has made of it for all, see `once`.
    """

    positions: Tensor
    n: Tensor
    key_positions: Tensor
    make_mask: Callable[[], Tensor] | None = None
    segments: Tensor | None = None
    angles: tuple[Tensor, Tensor] | None = None
    made: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def mask(self) -> Tensor | None:
        """None for plain causal attention, else (B or 1, 1, T, S) bool, True where the query sees the key."""
        return None if self.make_mask is None else self.once(("mask",), self.make_mask)

    def once(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """What `make` gives, the same for every layer that asks with this key."""
        if key not in self.made:
            self.made[key] = make()
        return self.made[key]


def layout(
    T: int, past: int = 0, segments: Tensor | None = None, device: torch.device | str = "cpu"
) -> Layout:
    """Positions, visible-key counts and mask of new tokens.

    Args:
        T: how many there are.
        past: how many the cache holds before them.
        segments: (B, past + T) integers that describe packed or padded rows: 0 is padding, any other number
            an unbroken document. A token sees earlier tokens of its own document only; a padding token sees
            itself, so that no softmax runs over nothing.
        device: where the tensors are made, without segments.

    Returns:
        The layout, without rotary angles.
    """
    S = past + T
    if segments is None:
        key_positions = torch.arange(S, device=device)[None]  # (1, S)
        positions = key_positions[:, past:]

        def behind_a_prefix() -> Tensor:  # SDPA's is_causal aligns to the top left, so spell it out
            return (key_positions[:, None, :] <= positions[:, :, None])[:, None]  # (1, 1, T, S)

        return Layout(positions, positions + 1, key_positions, behind_a_prefix if past and T > 1 else None)
    index = torch.arange(S, device=segments.device)
    key_positions = positions_in_segments(segments)  # (B, S)
    positions, real = key_positions[:, past:], segments > 0

    def within_documents() -> Tensor:
        causal = index[None, past:, None] >= index[None, None, :]  # (1, T, S)
        same = segments[:, past:, None] == segments[:, None, :]  # (B, T, S)
        itself = index[None, past:, None] == index[None, None, :]
        return ((causal & same & real[:, None, :]) | itself)[:, None]  # (B, 1, T, S)

    n = torch.where(real[:, past:], positions + 1, 1)  # documents are unbroken
    return Layout(positions, n, key_positions, within_documents, segments)


def positions_in_segments(segments: Tensor) -> Tensor:
    """Index of each token within its document, (B, S) int64; 0 for padding. Documents are unbroken."""
    index = torch.arange(segments.shape[1], device=segments.device)
    starts = segments != F.pad(segments[:, :-1], (1, 0), value=-1)  # the first token of each run
    offset = torch.where(starts, index, 0).cummax(dim=-1).values  # where the current run began
    return torch.where(segments > 0, index - offset, 0)


class AttentionScale(nn.Module):
    """The factor per query, one of `SCALINGS`: s and b are (H,), p is (n_ctx,), float32, never decayed."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.scaling = SCALINGS[config.attention]
        self.given = {name: getattr(config, name) for name in self.scaling.given}
        for name in self.scaling.numbers:
            count, value = start(name, config.n_head, config.n_ctx)
            numbers = torch.full((count,), value)
            if self.scaling.learned:
                self.register_parameter(name, nn.Parameter(numbers))
            else:
                self.register_buffer(name, numbers)

    def forward(self, q: Tensor, n: Tensor) -> Tensor:
        """Scale queries (B, H, T, D) by their visible-key counts n (B or 1, T); keeps q's dtype."""
        if self.scaling.factor is None:
            return q
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        numbers = {name: getattr(self, name).to(wide) for name in self.scaling.numbers}
        factor = self.scaling.factor(n.to(wide)[:, None, :, None], **numbers, **self.given)
        if isinstance(factor, Tensor):
            factor = factor.to(q.dtype)  # in float32 it would promote a bfloat16 q and lose the fused kernel
        return q * factor


class CausalSelfAttention(nn.Module):
    """Multi-head attention with grouped keys, optional qk-norm, positions and a logit scale."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.n_head, self.kv_heads, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.dropout = config.dropout
        width = (config.n_head + 2 * config.kv_heads) * config.head_dim
        self.c_attn = nn.Linear(config.n_embd, width, bias=config.bias)  # rows: all q heads, k heads, v heads
        self.c_proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)
        self.scale = AttentionScale(config)
        self.qk_norm, self.norm_eps = config.qk_norm, config.norm_eps
        self.alibi = config.position == "alibi"
        # A model of free head size may be one whose other heads are gone: each head keeps its own slope.
        keeps = self.alibi and config.n_head_dim is not None
        self.slopes: Tensor | None
        self.register_buffer("slopes", alibi_slopes(config.n_head) if keeps else None)
        self.zero_key = config.zero_key

    def queries_keys_values(self, x: Tensor, where: Layout, cache=None) -> tuple[Tensor, Tensor, Tensor]:
        """What the dot products see: scaled q (B, H, T, D), and k and v (B, kv_heads, S, D)."""
        B, T, _ = x.shape
        D = self.head_dim
        heads = self.c_attn(x).view(B, T, -1, D).transpose(1, 2)  # (B, H + 2 * kv_heads, T, D)
        qk, v = heads.split([self.n_head + self.kv_heads, self.kv_heads], dim=1)
        if self.qk_norm:
            qk = F.rms_norm(qk, (D,), eps=self.norm_eps)
        if where.angles is not None:
            qk = rotate(qk, where.angles)
        q, k = qk.split([self.n_head, self.kv_heads], dim=1)
        if cache is not None:
            k, v = cache.append(k, v)
        return self.scale(q, where.n), k, v

    def forward(
        self, x: Tensor, where: Layout, cache=None, explicit: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, T, C) to (B, T, C); with `explicit` also the probabilities (B, H, T, S), else None."""
        T = x.shape[1]
        q, k, v = self.queries_keys_values(x, where, cache)
        mask = self.alibi_bias(where, q.dtype) if self.alibi else where.mask
        causal = mask is None and T > 1
        if self.zero_key:
            q, k, v, mask = add_zero_key(q, k, v, mask, causal)
        if explicit:
            y, weights = explicit_attention(q, k, v, mask, causal)
        else:
            dropout = self.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                dropout_p=dropout,
                is_causal=causal,
                enable_gqa=self.kv_heads != self.n_head,
            )
            weights = None
        if self.zero_key:
            y = y[:, :, -T:]
            weights = None if weights is None else weights[:, :, -T:, 1:]
        return self.c_proj(y.transpose(1, 2).flatten(2)), weights  # (B, T, H * D) to (B, T, C)

    def alibi_bias(self, where: Layout, dtype: torch.dtype) -> Tensor:
        """-slope * distance where the query sees the key, -inf elsewhere: (B or 1, H, T, S)."""

        def bias() -> Tensor:
            distance = where.positions[:, None, :, None] - where.key_positions[:, None, None, :]
            visible = distance >= 0 if where.mask is None else where.mask
            slopes = alibi_slopes(self.n_head) if self.slopes is None else self.slopes
            slopes = slopes.to(distance.device, dtype)
            return (-slopes[:, None, None] * distance).masked_fill_(~visible, -torch.inf)

        if self.slopes is not None:  # this layer's own
            return bias()
        return where.once(("alibi", self.n_head, dtype), bias)


def add_zero_key(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Put a key of zeros with a value of zeros before all others, so that a head may attend to nothing.

    Its logit is 0, so weights become exp(z) / (1 + sum exp(z)): softmax-off-by-one (Miller 2023).

    Args:
        q, k, v: (B, heads, T or S, D) each.
        mask: as `explicit_attention` takes it.
        causal: plain causal attention: q gets a row of zeros, too, which keeps the diagonal in place.

    Returns:
        q, k, v and mask with one more key, first; under plain causal attention drop the first output.
    """
    first = (0, 0, 1, 0)  # one row before the others
    if causal:
        q = F.pad(q, first)
    elif mask is not None:
        mask = F.pad(mask, (1, 0), value=1 if mask.dtype == torch.bool else 0)
    return q, F.pad(k, first), F.pad(v, first), mask


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool
) -> tuple[Tensor, Tensor]:
    """Attention written out, for analysis, with the arguments of the fused kernel.

    Args:
        q: scaled queries, (B, H, T, D).
        k, v: keys and values, (B, kv_heads, S, D).
        mask: boolean, True where the query sees the key, or added to the logits; (B or 1, H or 1, T, S).
        causal: each query sees the keys up to its own row.

    Returns:
        The heads' outputs (B, H, T, D), and the probabilities (B, H, T, S).
    """
    T, S = q.shape[-2], k.shape[-2]
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)  # (B, H, S, D)
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    if causal:
        mask = torch.ones(T, S, dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    weights = logits.softmax(dim=-1)
    return weights @ v, weights
