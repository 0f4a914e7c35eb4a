"""Exercises of notebook 02: dilution, log n, and what n is."""

import math

import torch
from torch import Tensor

from supertf.lab.exercises.checking import Exercise


def scaled_queries(q: Tensor, s: float) -> Tensor:
    """SSMax on the queries (T, D) of a head: row i sees i + 1 keys."""
    return torch.stack([row * s * math.log(i + 1) for i, row in enumerate(q)])


def with_cache(
    q: Tensor, k: Tensor, v: Tensor, s: float, padding: int, *, n: str = "seen", causal: bool = True
) -> Tensor:
    """SSMax of T new queries (T, D) on N keys and values, the first `padding` of which are none.

    `n` is what is counted: "seen" by each query, or by mistake "with padding", "new" ones only, or "last",
    for all queries what the last one sees.
    """
    (T, D), N = q.shape, len(k)
    rows = torch.arange(N - T, N)  # where the queries stand among the keys
    seen = torch.arange(N)[None] >= padding  # (1, N)
    if causal:
        seen = seen & (torch.arange(N)[None] <= rows[:, None])
    count = {
        "seen": rows + 1 - padding,
        "with padding": rows + 1,
        "new": torch.arange(1, T + 1),
        "last": torch.full((T,), N - padding),
    }[n]
    logits = (q * (s * count.to(q.dtype).log())[:, None]) @ k.T / math.sqrt(D)
    return logits.masked_fill(~seen, -math.inf).softmax(-1) @ v


GENERATOR = torch.Generator().manual_seed(2)


def drawn(new: int, keys: int, size: int = 4) -> tuple[Tensor, ...]:
    """Queries, keys and values."""
    return tuple(torch.randn(count, size, generator=GENERATOR) for count in (new, keys, keys))


EXERCISES = (
    Exercise(
        name="a constant for n keys",
        minutes=6,
        difficulty=2,
        hint="The weight is 1 / (1 + (n - 1) e^(-c gap)); set it to 0.9 and solve for c.",
        solution=lambda n, gap: (math.log(0.9) - math.log(0.1) + math.log(n - 1)) / gap,
        wrong={
            "The needle is one of the n keys: it has n - 1 rivals.": lambda n, gap: math.log(9 * n) / gap,
            "For a weight of 0.9 its rivals have 0.1 together: nine times less. Yours gives it a half.": (
                lambda n, gap: math.log(n - 1) / gap
            ),
            "Where is the gap? The needle stands that much above the others.": lambda n, gap: math.log(
                9 * (n - 1)
            ),
            "The softmax is of e to the power: take the natural logarithm.": (
                lambda n, gap: math.log2(9 * (n - 1)) / gap
            ),
            "The larger the gap, the smaller the constant.": lambda n, gap: math.log(9 * (n - 1)) * gap,
        },
        cases={"2048 keys, 1.5 above": (2048, 1.5), "11 keys, 3 above": (11, 3.0), "two keys": (2, 0.7)},
    ),
    Exercise(
        name="scaled queries",
        minutes=6,
        difficulty=2,
        hint="A factor for each row, s log(i + 1), which multiplies all of its channels.",
        solution=scaled_queries,
        wrong={
            "You used n = T for every row; row i sees i + 1 keys.": lambda q, s: q * s * math.log(len(q)),
            "The first row sees one key, itself: count from 1.": (
                lambda q, s: q * (s * torch.arange(len(q)).log())[:, None]
            ),
            "The factor belongs to the row, not to the channel.": (
                lambda q, s: q * (s * torch.arange(1, q.shape[1] + 1).log())
            ),
            "The logarithm is the natural one.": (
                lambda q, s: q * (s * torch.arange(1, len(q) + 1).log2())[:, None]
            ),
            "Where is s?": lambda q, s: q * torch.arange(1, len(q) + 1).log()[:, None],
        },
        cases={
            "five queries": (torch.randn(5, 3, generator=GENERATOR), 0.43),
            "one query": (torch.randn(1, 3, generator=GENERATOR), 0.43),
            "s = 1": (torch.randn(7, 2, generator=GENERATOR), 1.0),
        },
    ),
    Exercise(
        name="visible keys",
        minutes=3,
        difficulty=1,
        hint="The first new token sees the past and itself.",
        solution=lambda T, past: list(range(past + 1, past + T + 1)),
        wrong={
            "The past is visible, too.": lambda T, past: list(range(1, T + 1)),
            "A token sees itself, too.": lambda T, past: list(range(past, past + T)),
            "That is one n for all: the first new token does not see the last.": (
                lambda T, past: [past + T] * T
            ),
        },
        cases={"three after 64": (3, 64), "an empty cache": (4, 0), "one token": (1, 9)},
    ),
    Exercise(
        name="with a cache and padding",
        minutes=25,
        difficulty=3,
        hint="For each query: which keys does it see, and how many are those?",
        solution=with_cache,
        wrong={
            "Padding is no key: n is what a query sees.": lambda *given: with_cache(*given, n="with padding"),
            "The keys in the cache are seen, too: n is not counted from the new ones alone.": (
                lambda *given: with_cache(*given, n="new")
            ),
            "You used one n for all rows; each query sees one key more than the one before.": (
                lambda *given: with_cache(*given, n="last")
            ),
            "A new token sees those after it: mask them.": lambda *given: with_cache(*given, causal=False),
            "Padding is seen: mask it.": lambda q, k, v, s, padding: with_cache(q, k, v, s, 0),
            "Where is s log n?": lambda q, k, v, s, padding: with_cache(
                q
                / (s * torch.arange(len(k) - len(q) + 1, len(k) + 1).sub(padding).log()).clamp(min=1e-9)[
                    :, None
                ],
                *(k, v, s, padding),
            ),
        },
        cases={
            "three after four": (*drawn(3, 7), 0.4, 0),
            "two of padding": (*drawn(3, 7), 0.4, 2),
            "an empty cache": (*drawn(4, 4), 0.4, 0),
            "one token after padding": (*drawn(1, 5), 1.0, 3),
        },
    ),
)
