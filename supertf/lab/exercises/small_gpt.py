"""Exercises of notebook 01: masks, windows, parameters, perplexity, and a head."""

import math

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise


def windows(ids: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (N, context) of consecutive windows of a text."""
    count = (len(ids) - 1) // context
    return ids[: count * context].view(count, context), ids[1 : count * context + 1].view(count, context)


def head(x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor) -> Tensor:
    """A causal head: x (T, C), weights (D, C), to (T, D)."""
    q, k, v = (x @ w.T for w in (w_q, w_k, w_v))
    return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]


def head_with(
    x: Tensor, w_q: Tensor, w_k: Tensor, w_v: Tensor, *, by: float = 0.0, mask: str = "causal", dim: int = 1
) -> Tensor:
    """One with a mistake: divided by another number, masked in another way, softmax over another axis."""
    q, k, v = (x @ w.T for w in (w_q, w_k, w_v))
    logits = q @ k.T / (by or math.sqrt(q.shape[1]))
    lower = torch.ones_like(logits).tril()
    if mask == "causal":
        logits = logits.masked_fill(lower == 0, -math.inf)
    elif mask == "zeros":
        logits = logits * lower
    weights = logits.softmax(dim)
    return (weights * lower if mask == "after" else weights) @ v


GENERATOR = torch.Generator().manual_seed(1)
SHAPES = {"six tokens": (6, 8, 4), "one token": (1, 8, 4), "a wide head": (3, 2, 5)}
HEADS = {
    name: tuple(torch.randn(*shape, generator=GENERATOR) for shape in ((T, C), (D, C), (D, C), (D, C)))
    for name, (T, C, D) in SHAPES.items()
}

EXERCISES = (
    Exercise(
        name="the causal mask",
        minutes=3,
        difficulty=1,
        hint="Row i sees columns 0 to i.",
        solution=lambda T: torch.arange(T)[:, None] >= torch.arange(T),
        wrong={
            "A token sees itself, too: the diagonal is True.": lambda T: torch.ones(T, T).tril(-1).bool(),
            "Transposed: rows are queries, and columns are keys.": lambda T: torch.ones(T, T).triu().bool(),
            "That is what is hidden: True is to stand where a query may look.": (
                lambda T: torch.ones(T, T).triu(1).bool()
            ),
            "Everybody sees everything: what of the tokens that come later?": (
                lambda T: torch.ones(T, T, dtype=torch.bool)
            ),
        },
        cases={"T = 5": (5,), "T = 1": (1,), "T = 2": (2,)},
    ),
    Exercise(
        name="inputs and targets",
        minutes=8,
        difficulty=2,
        hint="Both are views of one piece of the text, the targets' piece begins one token later.",
        solution=windows,
        wrong={
            "Targets are the inputs themselves here: a model that copies would be perfect.": (
                lambda ids, T: (windows(ids, T)[0],) * 2
            ),
            "Targets come one token later than inputs, not earlier.": lambda ids, T: windows(ids, T)[::-1],
            "The windows overlap: each begins where the one before it ends.": (
                lambda ids, T: (ids[:-1].unfold(0, T, 1), ids[1:].unfold(0, T, 1))
            ),
        },
        cases={
            "13 tokens in windows of 4": (torch.arange(13), 4),
            "as many as one window and its last target": (torch.arange(5), 4),
            "a rest that fills no window": (torch.arange(11), 4),
        },
    ),
    Exercise(
        name="parameters of a block",
        minutes=4,
        difficulty=1,
        hint="Matrices count C_in times C_out; in units of C times C, how many is each?",
        solution=lambda C: C * (C * (3 + 1 + 4 + 4) + 2),
        wrong={
            "The two norms have C parameters each.": lambda C: 12 * C**2,
            "There are two norms.": lambda C: 12 * C**2 + C,
            "c_attn makes queries, keys and values: three matrices in one.": lambda C: 10 * C**2 + 2 * C,
            "There are no biases here.": lambda C: 12 * C**2 + 2 * C + 9 * C,
            "The MLP has two matrices, into its 4 C channels and out of them.": lambda C: 8 * C**2 + 2 * C,
        },
        cases={"C = 64": (64,), "C = 1": (1,), "C = 768": (768,)},
    ),
    Exercise(
        name="from unigram to trained",
        minutes=3,
        difficulty=1,
        hint="The two perplexities are exponentials of the losses. How many times is one the other?",
        solution=lambda before, after: math.exp(before) / math.exp(after),
        wrong={
            "That is the ratio of the losses; perplexities are their exponentials.": lambda a, b: a / b,
            "That is how many nats were learned; as a factor it is the exponential of that.": (
                lambda a, b: a - b
            ),
            "Upside down: by how much did it shrink?": lambda a, b: math.exp(b - a),
            "That is the difference of the perplexities; a factor is asked for.": (
                lambda a, b: math.exp(a) - math.exp(b)
            ),
        },
        cases={"from 5.1 to 3.2 nats": (5.1, 3.2), "nothing learned": (4.0, 4.0), "it got worse": (1.0, 2.0)},
    ),
    Exercise(
        name="a causal head",
        minutes=20,
        difficulty=3,
        hint="Products of queries and keys over the square root of D; a mask of -inf; a softmax over keys.",
        solution=head,
        wrong={
            "Divide the products by the square root of D.": lambda *given: head_with(*given, by=1.0),
            "Divide by the square root of the head's D, not of the model's C.": lambda x, *w: head_with(
                x, *w, by=math.sqrt(x.shape[1])
            ),
            "Divide by the square root of D, not by D.": lambda x, *w: head_with(x, *w, by=len(w[0])),
            "Later tokens are seen: mask them.": lambda *given: head_with(*given, mask="none"),
            "A logit of zero is not a weight of zero: mask with -inf before the softmax.": (
                lambda *given: head_with(*given, mask="zeros")
            ),
            "Masked after the softmax, the rows sum to less than 1: mask the logits.": (
                lambda *given: head_with(*given, mask="after")
            ),
            "The softmax is over the keys of a query, the last axis; yours is over the queries.": (
                lambda *given: head_with(*given, dim=0)
            ),
        },
        cases=HEADS,
    ),
)
