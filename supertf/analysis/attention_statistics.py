"""What attention looks at, in numbers, at lengths where the matrix of weights would not fit.

For each layer, head and query: the entropy of the weights, the weight on chosen keys, the weight on the
first key (the sink) and the largest weight. A block of queries at a time sees all its keys, so memory
grows with T and never with T x T; asking for a few queries only costs O(T) time as well.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.analysis.residual_stream import hidden_states, token_layout
from supertf.errors import UserError
from supertf.model import GPT, Layout

BLOCK_ELEMENTS = 2**22  # logits held at once: 16 MiB in float32
FAR_BELOW = -1e30  # the logit of a key that is not seen: exp is 0, and so is its product with 0
Bias = Callable[[Layout, torch.dtype], Tensor]  # (B or 1, H, R, S) for the queries and keys of a layout


@dataclass(frozen=True)
class AttentionStats:
    """Attention weights of one layer in a few numbers per head and query; R queries, all T by default.

    In a model with a zero key, which lets a head attend to nothing, that key is one more outcome: it counts
    in the entropy, whose ceiling becomes log(n + 1), also in `normalized`, and the weights of the n real
    keys sum to less than 1. `sink` and `largest` are about real keys.

    Attributes:
        layer: 0 is the first block.
        n: (B or 1, R) int64, visible keys.
        entropy: (B, H, R) in nats, from 0 (all weight on one key) to log n (evenly spread).
        normalized: (B, H, R), entropy / log n; 0 where n = 1.
        sink: (B, H, R), weight on key 0, the first of the query's document.
        largest: (B, H, R), the largest weight.
        needle: (B, H, R), weight on the chosen keys; None if none were chosen.

    Numbers are float32, or float64 in a float64 model.
    """

    layer: int
    n: Tensor
    entropy: Tensor
    normalized: Tensor
    sink: Tensor
    largest: Tensor
    needle: Tensor | None


@torch.no_grad()
def attention_stats(
    model: GPT,
    idx: Tensor,
    *,
    layers: Iterable[int] | None = None,
    rows: Sequence[int] | Tensor | None = None,
    needles: Sequence[int] | Tensor | None = None,
    segments: Tensor | None = None,
) -> list[AttentionStats]:
    """Attention of the chosen layers in numbers.

    The model runs as always (fused attention) up to the last wanted layer and no further, without its head.

    Args:
        model: in evaluation mode.
        idx: (B, T) int64, or (B, T, K) where a token is K ids.
        layers: wanted; 0 is the first block, default all.
        rows: the R queries wanted, default all T.
        needles: (R,), (B, R) or (B, R, K) int64, the key (or K keys, whose weights add up) that each of
            these queries is asked about; a key that the query does not see has weight 0.
        segments: (B, T) integers of packed or padded rows, see `model.layout`, whose mask is the one thing
            here that grows with T x T.

    Returns:
        One `AttentionStats` per layer, in ascending order.

    Raises:
        UserError: layers, rows or needles out of range, or what `token_layout` refuses.
    """
    where = token_layout(model, idx, segments)
    wanted = range(len(model.h)) if layers is None else sorted(set(layers))
    if not wanted or not 0 <= wanted[0] <= wanted[-1] < len(model.h):
        raise UserError(f"layers are {list(wanted)}, expected some of 0 to {len(model.h) - 1}")
    rows = indices("rows", range(idx.shape[1]) if rows is None else rows, idx.shape[1]).to(model.device)
    found = []
    for layer, x in zip(range(wanted[-1] + 1), hidden_states(model, idx, where), strict=False):
        if layer not in wanted:
            continue
        block = model.h[layer]
        attn = block.attn
        q, k, _ = attn.queries_keys_values(block.ln_1(x), where)
        bias = attn.alibi_bias if attn.alibi else None
        stats = blockwise_stats(
            q[:, :, rows], k, where, rows, needles, bias=bias, zero_key=attn.zero_key, layer=layer
        )
        found.append(stats)
    return found


def blockwise_stats(
    q: Tensor,
    k: Tensor,
    where: Layout,
    rows: Sequence[int] | Tensor,
    needles: Sequence[int] | Tensor | None = None,
    *,
    bias: Bias | None = None,
    zero_key: bool = False,
    layer: int = 0,
    block_elements: int = BLOCK_ELEMENTS,
) -> AttentionStats:
    """`AttentionStats` of given queries and keys.

    Args:
        q: (B, H, R, D), scaled, the queries of tokens `rows`.
        k: (B, kv_heads, T, D).
        where: who sees whom among the T tokens; `model.layout(T)` if plain causal.
        rows: R token indices.
        needles: as in `attention_stats`.
        bias: gives the additive bias of a part of the layout, such as `CausalSelfAttention.alibi_bias`.
        zero_key: whether there is one, see `AttentionStats`.
        layer: for the result.
        block_elements: at most so many logits are held at once, or one query's; they are at least float32.

    Raises:
        UserError: rows or needles that do not fit.
    """
    T, R = k.shape[2], q.shape[2]
    rows = indices("rows", rows, T).to(q.device)
    if rows.shape != (R,):
        raise UserError(
            f"rows have shape {tuple(rows.shape)}, expected one token index for each of {R} queries"
        )
    if needles is not None:
        needles = indices("needles", needles, T).to(q.device)
        needles = needles[None] if needles.ndim == 1 else needles
        needles = needles[..., None] if needles.ndim == 2 else needles  # (B or 1, R, K)
        if needles.ndim != 3 or needles.shape[0] not in (1, len(q)) or needles.shape[1] != R:
            raise UserError(
                f"needles come out as shape {tuple(needles.shape)}, expected ({len(q)} or 1, {R}, K): "
                f"one or K keys for each of the {R} queries"
            )
    B, H, _, D = q.shape
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    q, k = q.to(wide) / math.sqrt(D), k.to(wide).contiguous()
    step = min(R, max(1, block_elements // (B * H * T)))
    buffers = q.new_empty(2, B * H * step * T)  # blocks differ in size: fresh ones would fragment the heap
    parts = []
    for first in range(0, R, step):
        some = rows[first : first + step]
        logits = block_logits(q[:, :, first : first + step], k, where, some, bias, buffers[0])
        keys = [(some - where.positions[:, some])[..., None]]  # each document's first key, (B or 1, r, 1)
        if needles is not None:
            keys.append(needles[:, first : first + step])
        parts.append(block_stats(logits, buffers[1], keys, zero_key))
    entropy, largest, sink, *needle = (torch.cat(pieces, dim=2) for pieces in zip(*parts, strict=True))
    n = where.n[:, rows]
    ceiling = (n + zero_key).to(wide).log()[:, None]  # (B or 1, 1, R)
    normalized = torch.where(ceiling > 0, entropy / ceiling, 0.0)
    return AttentionStats(layer, n, entropy, normalized, sink, largest, needle[0] if needle else None)


def block_logits(
    q: Tensor, k: Tensor, where: Layout, rows: Tensor, bias: Bias | None, buffer: Tensor
) -> Tensor:
    """Logits of queries q (B, H, r, D) on the keys up to the last of them, (B, H, r, S), in a flat buffer."""
    B, H, _, D = q.shape
    kv_heads, S = k.shape[1], int(rows.max()) + 1
    logits = buffer[: B * H * len(rows) * S].view(B * kv_heads, -1, S)
    # query heads of a group share their keys: (B, H, r, D) to (B * kv_heads, H / kv_heads * r, D)
    torch.bmm(q.reshape(B * kv_heads, -1, D), k[:, :, :S].flatten(0, 1).transpose(1, 2), out=logits)
    logits = logits.view(B, H, -1, S)
    mask = None if where.mask is None else where.mask[:, :, rows, :S]
    if bias is not None:
        seen = None if mask is None else lambda: mask
        part = Layout(where.positions[:, rows], where.n[:, rows], where.key_positions[:, :S], seen)
        return logits.add_(bias(part, logits.dtype)).clamp_(min=FAR_BELOW)
    if mask is not None:
        return logits.masked_fill_(~mask, FAR_BELOW)
    shared = int(rows.min()) + 1  # keys that all of these queries see
    later = torch.arange(shared, S, device=q.device)
    logits[..., shared:].masked_fill_(rows[:, None] < later, FAR_BELOW)
    return logits


def block_stats(logits: Tensor, buffer: Tensor, keys: list[Tensor], zero_key: bool) -> list[Tensor]:
    """Entropy, largest weight and weight on each set of keys (B or 1, r, K), all (B, H, r).

    Overwrites the logits (B, H, r, S). With z the logits less their maximum and Z = sum exp(z), the
    entropy is log Z - sum z exp(z) / Z: two terms that are never negative.
    """
    top = logits.amax(dim=-1)  # (B, H, r)
    shift = top.clamp(min=0.0) if zero_key else top  # the zero key's logit is 0
    z = logits.sub_(shift[..., None])
    e = torch.exp(z, out=buffer[: z.numel()].view_as(z))
    total = e.sum(dim=-1)
    weights = [sum_at(e, chosen) for chosen in keys]
    weighted = z.mul_(e).sum(dim=-1)
    if zero_key:
        total = total + torch.exp(-shift)
        weighted = weighted - shift * torch.exp(-shift)
    entropy = total.log() - weighted / total
    return [entropy, torch.exp(top - shift) / total, *(weight / total for weight in weights)]


def sum_at(e: Tensor, keys: Tensor) -> Tensor:
    """Sum of e (B, H, r, S) over keys (B or 1, r, K), (B, H, r); a key beyond S is not seen and adds 0."""
    B, H, r, S = e.shape
    keys = keys[:, None].expand(B, H, r, -1)
    return e.gather(-1, keys.clamp(max=S - 1)).masked_fill(keys >= S, 0.0).sum(dim=-1)


def indices(name: str, values: Sequence[int] | Tensor, T: int) -> Tensor:
    """Token indices as int64, or `UserError` unless they are some of 0 ... T - 1."""
    values = torch.as_tensor(values, dtype=torch.int64)
    if not values.numel() or not 0 <= int(values.min()) <= int(values.max()) < T:
        span = f"{int(values.min())} to {int(values.max())}" if values.numel() else "empty"
        raise UserError(f"{name} are {span}, expected indices of the {T} tokens, 0 to {T - 1}")
    return values


@dataclass(frozen=True)
class SinkRate:
    """Attention sinks of a model.

    Attributes:
        by_head: (L, H), mean weight on key 0 over sequences and queries.
        mean: over all heads.
        share: of the heads, those whose mean exceeds the threshold.
    """

    by_head: Tensor
    mean: float
    share: float


def sink_rate(stats: Sequence[AttentionStats], threshold: float = 0.3) -> SinkRate:
    """How much attention rests on key 0 (Gu et al. 2024, arXiv 2410.10781, threshold 0.3).

    Queries whose only key is key 0 are left out; the paper counts that one as well, which adds
    (1 - mean) / T. Weights depend on how many keys compete, so compare at equal lengths.

    Args:
        stats: of the layers to count, from `attention_stats`.
        threshold: mean weight from which a head counts as a sink's.

    Raises:
        UserError: no query sees more than one key.
    """
    if not stats or not bool((stats[0].n > 1).any()):
        raise UserError("no query sees more than one key: give stats of sequences of two or more tokens")
    heads = []
    for one in stats:
        counted = (one.n > 1).expand(len(one.sink), -1)  # (B, R)
        heads.append(one.sink.transpose(1, 2)[counted].mean(dim=0))  # (H,)
    by_head = torch.stack(heads)
    return SinkRate(by_head, float(by_head.mean()), float((by_head > threshold).cpu().double().mean()))
