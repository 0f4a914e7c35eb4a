"""The decoder: GPT-2, Llama-like models and the lab's own, from one class and a `GPTConfig`.

Read from top to bottom: norm, MLP, block, cache, model; attention is in a file of its own. Module names are
GPT-2's (wte, wpe, h, ln_1, c_attn, c_proj, c_fc, ln_f); for SwiGLU `c_fc` holds the gate and up projections,
one above the other, and `mlp.c_proj` is what Llama calls `down_proj`. All matrices are W[out, in].

A beginning-of-sequence token is the data's business: where a model needs one (without positions, identical
tokens carry no order at all unless something distinct comes first), the data prepends it.

What only saves time is not here: `generation` swaps in the layers of `fast`, training the loss of its
`sliced_loss`.
"""

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model.attention import CausalSelfAttention, Layout, layout
from supertf.model.config import GPTConfig
from supertf.model.language_model import LanguageModel, Output
from supertf.model.positions import rotary_angles, sinusoidal


def make_norm(config: GPTConfig) -> nn.Module:
    """LayerNorm or RMSNorm over the residual width."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.n_embd, eps=config.norm_eps)
    return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)


class MLP(nn.Module):
    """GELU (GPT-2's tanh form) or SwiGLU (Llama): (B, T, C) to (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.swiglu = config.mlp == "swiglu"
        self.c_fc = nn.Linear(config.n_embd, config.inner * (2 if self.swiglu else 1), bias=config.bias)
        self.c_proj = nn.Linear(config.inner, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        if self.swiglu:
            gate, up = x.chunk(2, dim=-1)
            return self.c_proj(F.silu(gate) * up)
        return self.c_proj(F.gelu(x, approximate="tanh"))


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x)), both (B, T, C)."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = make_norm(config)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = make_norm(config)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, where: Layout, cache=None, explicit: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attn(self.ln_1(x), where, cache, explicit)
        x = x + self.drop(attended)
        return x + self.drop(self.mlp(self.ln_2(x))), weights


class LayerCache:
    """Keys and values of one layer in a buffer that grows by a quarter, so appending is cheap."""

    def __init__(self) -> None:
        self.length = 0  # tokens held, S
        self.keys = self.values = torch.empty(1, 1, 0, 1)  # (B, kv_heads, room, D) once there are any

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values of T tokens, (B, kv_heads, T, D) each.

        Returns:
            All keys and values so far, (B, kv_heads, S, D) each: views of the buffers.
        """
        B, H, T, D = k.shape
        end = self.length + T
        if end > self.keys.shape[2]:
            room = max(self.length + self.length // 4, end, 64)
            keys, values = k.new_empty(B, H, room, D), v.new_empty(B, H, room, D)
            keys[:, :, : self.length] = self.keys[:, :, : self.length]
            values[:, :, : self.length] = self.values[:, :, : self.length]
            self.keys, self.values = keys, values
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """What generation remembers: one `LayerCache` per layer, and the segments seen so far, if any."""

    def __init__(self, n_layer: int):
        self.layers = [LayerCache() for _ in range(n_layer)]
        self.segments: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens held."""
        return self.layers[0].length


class GPT(LanguageModel):
    """A decoder-only transformer with fresh random weights; `load_model` reads trained ones.

    Args:
        config: its sizes and switches.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config: GPTConfig = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h: list[Block]
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))  # type: ignore[assignment]
        self.ln_f = make_norm(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_head:
            self.lm_head.weight = self.wte.weight
        self.apply(self._init_weights)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # GPT-2: residual layers start smaller, as 2 * n_layer add up
                nn.init.normal_(parameter, std=config.init_std / math.sqrt(2 * config.n_layer))

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.init_std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.wte.weight.device

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
        output_attentions: bool = False,
        last_only: bool = False,
    ) -> Output:
        """Run tokens through the decoder.

        Args:
            idx: token ids, (B, T) int64, or (B, T, K) where a token is K ids whose embeddings add up.
            targets: (B, T) int64, -100 where no loss is wanted; the logits are then not returned (at a large
                vocabulary they are most of a step's memory).
            segments: (B, T) integers for packed or padded rows, see `attention.layout`.
            cache: of the tokens before these, from `new_cache`; extended in place.
            output_attentions: return the attention probabilities, too.
            last_only: logits of the last token only, (B, 1, V).

        Returns:
            Logits, or the loss with targets.

        Raises:
            UserError: more tokens than learned positions or scales, or padding that has no continuation.
        """
        past = cache.length if cache is not None else 0
        where = self.layout(idx, past, segments, cache)
        x = self.drop(self.embed(idx, where))  # (B, T, C)
        attentions = []
        for i, block in enumerate(self.h):
            x, weights = block(x, where, cache.layers[i] if cache is not None else None, output_attentions)
            attentions.append(weights)
        x = self.ln_f(x[:, -1:] if last_only else x)
        found = tuple(attentions) if output_attentions else None
        if targets is not None:
            return Output(None, self.loss(x, targets), found)
        return Output(self.lm_head(x), None, found)

    def embed(self, idx: Tensor, where: Layout) -> Tensor:
        """Token embeddings (B, T, C), with positions added where the model adds them."""
        x = self.wte(idx)
        if idx.ndim == 3:
            x = x.sum(dim=2)
        if self.config.position == "learned":
            x = x + self.wpe(where.positions)
        elif self.config.position == "sinusoidal":
            x = x + sinusoidal(where.positions, self.config.n_embd, self.config.init_std).to(x.dtype)
        return x

    def layout(self, idx: Tensor, past: int, segments: Tensor | None, cache: KVCache | None) -> Layout:
        """The `Layout` of this call, with rotary angles where the model rotates."""
        T = idx.shape[1]
        if cache is not None and (segments is not None or cache.segments is not None):
            segments = remember_segments(cache, segments, idx, past)
        where = layout(T, past, segments, idx.device)
        config = self.config
        if config.length_limit is not None:
            last = past + T if segments is None else int(where.positions.max()) + 1
            if last > config.length_limit:
                what = "positions" if config.position == "learned" else "scales p_n"
                raise UserError(
                    f"the model has learned {what} for {config.n_ctx} tokens and was given {last}: shorten "
                    "the input, or train with position none, rope or alibi and another attention, which go "
                    "further"
                )
        if config.position == "rope":
            cos, sin = rotary_angles(where.positions, config.head_dim, config.rope_base, config.rope_fraction)
            dtype = self.wte.weight.dtype
            where.angles = cos[:, None].to(dtype), sin[:, None].to(dtype)  # (B or 1, 1, T, D) each
        return where

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of normed hidden states (B, T, C) against targets (B, T)."""
        logits = self.lm_head(x).flatten(0, 1)  # (B * T, V)
        return F.cross_entropy(logits.float(), targets.flatten(), ignore_index=-100)

    def new_cache(self) -> KVCache:
        """An empty cache for `forward`."""
        return KVCache(self.config.n_layer)


@torch.no_grad()
def with_changes(model: GPT, **changes: Any) -> GPT:
    """A copy of a model under a changed config.

    Args:
        model: stays as it is.
        **changes: fields of its config, such as attention="ssmax" or rope_base=1e6.

    Returns:
        The copy, with the model's weights; another attention starts with fresh scales.

    Raises:
        UserError: the change needs other weights than the model has.
    """
    changed = GPT(dataclasses.replace(model.config, **changes)).to(model.device, model.wte.weight.dtype)
    weights = {name: weight for name, weight in model.state_dict().items() if ".scale." not in name}
    wanted = {name: weight for name, weight in changed.state_dict().items() if ".scale." not in name}
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in wanted.items()}:
        raise UserError(
            f"the change {changes} needs other weights than the model has: only what adds no weights can be "
            "changed afterwards, such as attention, rope_base or zero_key"
        )
    changed.load_state_dict(weights, strict=False)
    scales = {name: value for name, value in model.state_dict().items() if ".scale." in name}
    if changed.config.attention == model.config.attention:
        changed.load_state_dict(scales, strict=False)
    return changed.train(model.training)


def remember_segments(cache: KVCache, segments: Tensor | None, idx: Tensor, past: int) -> Tensor:
    """Append this call's segments to the cache's and return all of them, (B, past + T).

    Tokens given without segments continue the row's last document. `UserError` behind padding, where there
    is none to continue: a document has no gaps.
    """
    B, T = idx.shape[:2]
    before = cache.segments if cache.segments is not None else idx.new_ones(B, past)
    if segments is None and (before[:, -1] == 0).any():
        raise UserError(
            "a row of the cache ends in padding, so new tokens without segments have no document to "
            "continue: pad rows on the left, or give segments that start new documents"
        )
    new = before[:, -1:].expand(B, T) if segments is None else segments
    cache.segments = torch.cat([before, new], dim=1)
    return cache.segments
