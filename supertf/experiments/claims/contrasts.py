"""The comparisons that claims about the real model make, in ratios of perplexity."""

from supertf.experiments.sweep.judging import Claim


def over(variant: str, base: str = "nothing") -> dict[str, float]:
    """How many times the perplexity of another variant."""
    return {variant: 1, base: -1}


def excess(first: str, second: str, both: str, base: str = "nothing") -> dict[str, float]:
    """How many times more two changes cost together than the product of what each costs."""
    return {both: 1, first: -1, second: -1, base: 1}


def better(
    experiment: str,
    sentence: str,
    first: str,
    second: str,
    *,
    more: float | None = None,
    less: float | None = None,
) -> Claim:
    """That the first costs so many times the perplexity of the second; less than it, without bounds."""
    if more is None and less is None:
        less = 1
    return Claim(experiment, sentence, over(first, second), more=more, less=less)


def at_length(name: str, n: int, *swap: str) -> tuple[str | int, ...]:
    """Where a score at a length is, of the trained model or of a swap of it."""
    return (*(("swaps", *swap) if swap else ()), name, n)
