"""Attention entropy: how evenly heads attend, and whether attention fades as the text grows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.analysis.attention_statistics import attention_stats
from supertf.model import GPT


@dataclass(frozen=True, repr=False)
class AttentionEntropy:
    """How evenly every head attends, query by query; prints itself as a table by layer.

    Attributes:
        n: (T,) int64, keys that each query sees.
        nats: (L, H, T), or (L, B, H, T) for several texts: entropy of the attention weights, from 0 (all
            weight on one key) to log n (evenly spread).
        normalized: nats / log n, of the same shape; 0 where n = 1.
    """

    n: Tensor
    nats: Tensor
    normalized: Tensor

    def by_head(self) -> tuple[Tensor, Tensor]:
        """Means of `nats` and of `normalized` over texts and queries that see more than one key, (L, H)."""
        several = [values[..., self.n > 1].mean(-1) for values in (self.nats, self.normalized)]
        nats, normalized = (mean.mean(1) if mean.ndim == 3 else mean for mean in several)
        return nats, normalized

    def __str__(self) -> str:
        lines = [
            f"attention entropy in nats (as a share of log n), means over {int((self.n > 1).sum())} queries",
            f"{'layer':>5}  {'all heads':13}  {'lowest head':13}      highest head",
        ]
        for layer, (nats, shares) in enumerate(zip(*self.by_head(), strict=True)):
            low, high = int(nats.argmin()), int(nats.argmax())
            shown = [f"{nats[i]:6.3f} ({shares[i]:4.2f})" for i in (low, high)]
            mean = f"{nats.mean():6.3f} ({shares.mean():4.2f})"
            lines.append(f"{layer:5}  {mean}  {shown[0]} #{low:<3} {shown[1]} #{high}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        nats, shares = (values.tolist() for values in self.by_head())
        heads = "".join(f"<th>head {head}</th>" for head in range(len(nats[0])))
        table = [f"<tr><th>layer</th>{heads}</tr>"]
        for layer, row in enumerate(zip(nats, shares, strict=True)):
            cells = (
                f'<td title="{share:.0%} of log n" style="background: rgba(51, 102, 170, {share / 2:.2f})">'
                f"{value:.2f}</td>"
                for value, share in zip(*row, strict=True)
            )
            table.append(f"<tr><th>{layer}</th>{''.join(cells)}</tr>")
        caption = "mean attention entropy in nats; the darker, the nearer to log n"
        return f"<table><caption>{caption}</caption>{''.join(table)}</table>"


def attention_entropy(model: GPT, ids: Sequence[int] | Tensor) -> AttentionEntropy:
    """Entropy of every head's attention at every query of a text.

    Where it stays near log n as n grows, a head attends to everything alike: attention fades, which is what
    scalable softmax is made against (Nakanishi 2025, arXiv 2501.19399).

    Args:
        model: a `GPT` in evaluation mode.
        ids: token ids of a text, (T,), or of several texts of equal length, (B, T).

    Returns:
        Entropies by layer, head and query, in nats and as shares of log n.

    Raises:
        UserError: no tokens, ids outside the vocabulary, more than the model can read, or a model that is
            run by transformers.

    Example:
        >>> from supertf import GPT, GPTConfig, attention_entropy
        >>> model = GPT(GPTConfig(vocab_size=50, n_ctx=8, n_layer=2, n_head=2, n_embd=16)).eval()
        >>> attention_entropy(model, [3, 1, 4, 1, 5]).normalized.shape  # layers, heads, queries
        torch.Size([2, 2, 5])
    """
    ids = torch.as_tensor(ids, dtype=torch.int64)
    stats = attention_stats(model, ids[None] if ids.ndim == 1 else ids)
    nats = torch.stack([layer.entropy for layer in stats])  # (L, B, H, T)
    normalized = torch.stack([layer.normalized for layer in stats])
    if ids.ndim == 1:
        nats, normalized = nats[:, 0], normalized[:, 0]
    return AttentionEntropy(stats[0].n[0], nats, normalized)
