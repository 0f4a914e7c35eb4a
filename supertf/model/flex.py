"""FlexAttention, for ALiBi and for packed documents: who sees whom as a function, not as a matrix of T x T.

Compiled for a GPU it computes only the blocks of the matrix in which somebody sees something, and ALiBi's
bias on the way. On a processor PyTorch computes the same plainly, with the matrix: to test it, not to use it.
"""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from supertf.errors import UserError
from supertf.model.attention import CausalSelfAttention, Layout
from supertf.model.context_changes import ForAWhile, computing_as
from supertf.model.gpt import GPT
from supertf.model.positions import alibi_slopes


class FlexSelfAttention(ForAWhile, CausalSelfAttention):
    """`CausalSelfAttention` by FlexAttention where it can be: without a cache, dropout, a zero key and
    probabilities asked for."""

    def forward(
        self, x: Tensor, where: Layout, cache: Any = None, explicit: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `CausalSelfAttention.forward`."""
        if explicit or cache is not None or self.zero_key or (self.training and self.dropout):
            return super().forward(x, where, cache, explicit)
        q, k, v = self.queries_keys_values(x, where)
        if x.is_cpu and q.requires_grad:
            raise UserError("FlexAttention has no gradients on a processor: train without it, or on a GPU")
        y = kernel(x.device.type)(
            q,
            k,
            v,
            score_mod=self.nearer_counts_more(q) if self.alibi else None,
            block_mask=where.once(("blocks",), lambda: blocks(where)),
            enable_gqa=self.kv_heads != self.n_head,
        )
        return self.c_proj(y.transpose(1, 2).flatten(2)), None  # (B, T, H * D) to (B, T, C)

    def nearer_counts_more(self, q: Tensor) -> Any:
        """ALiBi's bias, of a logit and its place; distances within a document are those between indices."""
        slopes = alibi_slopes(self.n_head) if self.slopes is None else self.slopes
        slopes = slopes.to(q.device, torch.float32)

        def bias(logit: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return logit - slopes[h] * (query - key)

        return bias


def blocks(where: Layout) -> BlockMask:
    """Which blocks of the matrix of queries and keys are computed, and who sees whom in them."""
    T, segments, device = where.positions.shape[1], where.segments, str(where.positions.device)

    def causal(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    make = block_mask(where.positions.device.type)
    if segments is None:
        return make(causal, None, None, T, T, device=device)

    def within_documents(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (segments[b, query] == segments[b, key]) & (segments[b, key] > 0)
        return ((query >= key) & same) | (query == key)

    return make(within_documents, segments.shape[0], None, T, T, device=device)


@functools.cache
def block_mask(device: str) -> Any:
    """What makes a `BlockMask`, compiled where that is worth it: otherwise it goes through all of T x T."""
    return torch.compile(create_block_mask) if device == "cuda" else create_block_mask


@functools.cache
def kernel(device: str) -> Any:
    """FlexAttention, compiled where that is worth it."""
    return torch.compile(flex_attention) if device == "cuda" else flex_attention


@contextlib.contextmanager
def by_flex_attention(model: GPT) -> Iterator[None]:
    """Let a model attend by FlexAttention while the context lasts; results stay the same up to rounding.

    It pays on a GPU, for ALiBi and for packed documents (`segments` of `GPT.forward`), whose masks and biases
    grow with T x T elsewhere.

    Args:
        model: of this lab; unchanged afterwards, also after an error.

    Raises:
        UserError: gradients are wanted on a processor, where there are none.

    Example:
        >>> model = GPT(GPTConfig(vocab_size=9, n_ctx=8, n_layer=1, n_head=2, n_embd=16, position="alibi"))
        >>> idx = torch.tensor([[1, 2, 3, 4]])
        >>> with torch.inference_mode(), by_flex_attention(model):
        ...     flexible = model(idx).logits
        >>> torch.allclose(flexible, model(idx).logits, atol=1e-5)
        True
    """
    with warnings.catch_warnings(), computing_as({CausalSelfAttention: FlexSelfAttention}, model.modules()):
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield
