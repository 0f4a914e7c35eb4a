"""Claims about an experiment, written down before it is run, and what its recorded results make of them."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supertf.analysis import Interval, holm, mean_interval, p_value
from supertf.errors import UserError
from supertf.experiments.sweep.results import Results
from supertf.superweights import ratio
from supertf.tables import Tabular

LEVEL = 0.05  # of the claims of an experiment together
OVER_ALL = "all"


@dataclass(frozen=True)
class Claim:
    """What is expected of a sum of variants' values, taken text by text or seed by seed.

    Args:
        experiment: its name.
        sentence: the claim.
        contrast: variants to the factors that their values have in the sum: {"a": 1, "b": -1} is how much
            more `a` is than `b`. Of losses the sum's exponential is a multiple of the perplexity.
        more: what the mean is above; of losses a multiple.
        less: what it is below.
        path: where the values are in a cell's result: lists by domain, or a number on each seed.
        minus: where a value is that is taken from each of these, if any.
    """

    experiment: str
    sentence: str
    contrast: Mapping[str, float]
    more: float | None = None
    less: float | None = None
    path: tuple[str | int, ...] = ("losses",)
    minus: tuple[str | int, ...] = ()

    @property
    def multiple(self) -> bool:
        """Whether the bounds are multiples of a perplexity."""
        return self.path == ("losses",)

    @property
    def bounds(self) -> dict[str, float]:
        """Those that are given, in the unit of the values."""
        given = {"more": self.more, "less": self.less}
        return {
            name: math.log(bound) if self.multiple else bound
            for name, bound in given.items()
            if bound is not None
        }

    def holds_of(self, interval: Interval) -> bool:
        """Whether the whole interval lies within the bounds."""
        bounds = self.bounds
        return bounds.get("more", -math.inf) < interval.low and interval.high < bounds.get("less", math.inf)


@dataclass(frozen=True)
class Judged:
    """A claim, and what the results say of it.

    Attributes:
        claim: as it was written.
        intervals: of the sum, 95 %, by domain and over "all" texts; or over the seeds, as "all".
        p: that the mean is at the bound, corrected for all claims of the experiment (Holm).
        verdict: "holds", "fails" (the mean is beyond the bound, with p below .05), or "open".
    """

    claim: Claim
    intervals: dict[str, Interval]
    p: float
    verdict: str

    @property
    def alone(self) -> list[str]:
        """The domains whose own interval lies within the bounds, uncorrected."""
        return [name for name, one in self.intervals.items() if name != OVER_ALL and self.claim.holds_of(one)]


class Judgement(Tabular):
    """The claims of an experiment; a table where it is printed."""

    def __init__(self, judged: Sequence[Judged]) -> None:
        self.judged = list(judged)

    def __iter__(self) -> Any:
        return iter(self.judged)

    def __getitem__(self, sentence: str) -> Judged:
        for one in self.judged:
            if one.claim.sentence == sentence:
                return one
        raise UserError(f"there is no claim {sentence!r}; choose from {[one.claim.sentence for one in self]}")

    def among(self, *variants: str, of: str = "losses") -> "Judgement":
        """The claims that compare `of`, such as "last_words", some of these variants and no others."""
        return Judgement(
            [one for one in self if one.claim.path[0] == of and set(one.claim.contrast) <= set(variants)]
        )

    @property
    def verdicts(self) -> dict[str, str]:
        """By sentence."""
        return {one.claim.sentence: one.verdict for one in self}

    @property
    def domains(self) -> list[str]:
        """Of all the claims' texts, in order; "all" first."""
        names = dict.fromkeys(itertools.chain.from_iterable(one.intervals for one in self.judged))
        return [OVER_ALL, *(name for name in names if name != OVER_ALL)]

    def columns(self) -> list[str]:
        """The table's head."""
        return ["claim", "verdict", "bound", "n", *self.domains, "p"]

    def rows(self) -> Iterable[Sequence[Any]]:
        """A line for each claim."""
        for one in self.judged:
            found = [shown(one, name) for name in self.domains]
            size = one.intervals[OVER_ALL].n
            yield [one.claim.sentence, one.verdict, bound(one.claim), size, *found, f"{one.p:.2g}"]

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON: of losses the intervals are of logarithms."""
        return [
            {
                "claim": one.claim.sentence,
                "contrast": dict(one.claim.contrast),
                "more": one.claim.more,
                "less": one.claim.less,
                "verdict": one.verdict,
                "p": one.p,
                "intervals": {name: vars(interval) for name, interval in one.intervals.items()},
                "holds_alone_in": one.alone,
            }
            for one in self.judged
        ]

    def caption(self) -> str:
        """How to read it."""
        parts = ["means with 95 % t-intervals"]
        if any(one.claim.multiple for one in self.judged):
            parts.append("× is a multiple of the perplexity")
        parts.append("p is corrected for all claims about the experiment (Holm)")
        if len(self.domains) > 1:
            parts.append("✓: the domain's own interval lies within the bound")
        return "; ".join(parts)


def judge(claims: Sequence[Claim], results: Results) -> Judgement:
    """What an experiment's results say of the claims about it.

    Args:
        claims: all that are made about the experiment, which are corrected for each other.
        results: of the experiment.

    Raises:
        UserError: a claim about another experiment, and what `Results.contrast` refuses.
    """
    found = []
    for claim in claims:
        if claim.experiment != results.experiment.name:
            raise UserError(f"{claim.sentence!r} is about {claim.experiment}, not {results.experiment.name}")
        values = results.contrast(claim.contrast, *claim.path)
        if claim.minus:
            less = results.contrast(claim.contrast, *claim.minus)
            values = {name: [a - b for a, b in zip(values[name], less[name], strict=True)] for name in values}
        found.append((claim, values, max(p_value(values[OVER_ALL], one) for one in claim.bounds.values())))
    corrected = holm({str(number): p for number, (_, _, p) in enumerate(found)})
    judged = []
    for (claim, values, _), p in zip(found, corrected.values(), strict=True):
        intervals = {name: mean_interval(ones) for name, ones in values.items()}
        mean = intervals[OVER_ALL].mean
        within = claim.holds_of(Interval(mean, mean, mean, 1))
        verdict = "open" if p >= LEVEL else "holds" if within else "fails"
        judged.append(Judged(claim, intervals, p, verdict))
    return Judgement(judged)


def bound(claim: Claim) -> str:
    """The bounds of a claim, for people."""
    unit = "× " if claim.multiple else ""
    signs = {"more": ">", "less": "<"}
    given = {"more": claim.more, "less": claim.less}
    return ", ".join(f"{signs[name]} {unit}{value:g}" for name, value in given.items() if value is not None)


def shown(judged: Judged, domain: str) -> str:
    """The mean and interval of a domain, for people."""
    interval = judged.intervals.get(domain)
    if interval is None:
        return ""
    mark = " ✓" if domain in judged.alone else ""
    if not judged.claim.multiple:
        return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]{mark}"
    low, mean, high = (ratio(one, 0.0) for one in (interval.low, interval.mean, interval.high))
    return f"× {mean:.4g} [{low:.4g}, {high:.4g}]{mark}"
