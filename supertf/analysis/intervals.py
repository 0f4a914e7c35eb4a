"""Means over seeds with their uncertainty: Student's t intervals, paired differences, 2 x 2 designs."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.special import stdtr, stdtrit  # Student's t: `scipy.stats` has it from here, and imports longer

from supertf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and the confidence interval from `low` to `high`."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside: only then is a difference called one."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        decimals = min(9, max(0, 1 - math.floor(math.log10(half)))) if half > 1e-9 * abs(self.mean) else 3
        mean, low, high = (f"{value:.{decimals}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}] (n={self.n})"


class TwoByTwo(NamedTuple):
    """Effects in a 2 x 2 design, each the second level minus the first."""

    first: Interval  # of the first factor, averaged over the second
    second: Interval  # of the second factor, averaged over the first
    interaction: Interval  # the first factor's effect at the second's second level minus that at its first


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values, one per seed, with Student's t interval.

    It assumes that the mean is about normal. Equal values give an interval of no width: that no seed differed
    is known, not that none can.

    Args:
        values: at least two.
        confidence: share of such intervals that hold the true mean.

    Raises:
        UserError: fewer than two values, or one that is None, NaN or infinite.
    """
    if not 0 < confidence < 1:
        raise UserError(f"confidence {confidence}: expected a number between 0 and 1, such as 0.95")
    values = list(values)
    _check_finite(values)
    n = len(values)
    if n < 2:
        raise UserError(f"an interval needs values of at least 2 seeds, got {n}")
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * deviation / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired_difference(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """`mean_interval` of `a - b`, where `a[i]` and `b[i]` come from the same seed, which takes out what seeds
    share; `UserError` for unequal numbers of them."""
    return _contrast([(1, a), (-1, b)], confidence)


def two_by_two(values: Mapping[tuple[str, str], Sequence[float]], confidence: float = 0.95) -> TwoByTwo:
    """Main effects and interaction of two factors of two levels each, from contrasts within a seed.

    Args:
        values: (level of the first factor, level of the second) to the values over the same seeds. The level
            that comes first in the mapping is the baseline.
        confidence: of the intervals.

    Raises:
        UserError: other than two levels each, a missing combination, or unequal numbers of seeds.
    """
    first, second = (list(dict.fromkeys(key[i] for key in values)) for i in (0, 1))
    if (len(first), len(second), len(values)) != (2, 2, 4):
        raise UserError(
            f"a 2 x 2 design needs the four combinations of two and two levels, got {list(values)}"
        )
    (a0, a1), (b0, b1) = first, second
    y00, y01, y10, y11 = values[a0, b0], values[a0, b1], values[a1, b0], values[a1, b1]
    return TwoByTwo(
        _contrast([(0.5, y10), (0.5, y11), (-0.5, y00), (-0.5, y01)], confidence),
        _contrast([(0.5, y01), (0.5, y11), (-0.5, y00), (-0.5, y10)], confidence),
        _contrast([(1, y11), (-1, y01), (-1, y10), (1, y00)], confidence),
    )


def p_value(values: Sequence[float], null: float = 0.0) -> float:
    """Student's two-sided test that independent values have this mean.

    Args:
        values: at least two, one per seed or text.
        null: the mean that is tested.

    Raises:
        UserError: as `mean_interval` does.
    """
    found = mean_interval(values)
    deviation = math.sqrt(math.fsum((value - found.mean) ** 2 for value in values) / (found.n - 1))
    if deviation == 0:
        return 1.0 if found.mean == null else 0.0
    return float(2 * stdtr(found.n - 1, -abs(found.mean - null) * math.sqrt(found.n) / deviation))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for being several (Holm 1979): below .05, all that is said at once holds at 95 %.

    Args:
        p_values: by name, one for each thing that is said.

    Returns:
        The corrected ones, by name in the same order.

    Raises:
        UserError: a value outside 0 to 1.
    """
    if not all(0 <= value <= 1 for value in p_values.values()):
        raise UserError(f"p-values are {dict(p_values)}, expected numbers from 0 to 1")
    corrected: dict[str, float] = {}
    least = 0.0
    for rank, (name, value) in enumerate(sorted(p_values.items(), key=lambda pair: pair[1])):
        least = max(least, min(1.0, (len(p_values) - rank) * value))
        corrected[name] = least
    return {name: corrected[name] for name in p_values}


def _contrast(terms: list[tuple[float, Sequence[float]]], confidence: float) -> Interval:
    """Interval of a weighted sum taken seed by seed."""
    sizes = [len(values) for _, values in terms]
    if len(set(sizes)) > 1:
        raise UserError(f"paired values need the same seeds on every side, got {sizes} of them")
    for _, values in terms:
        _check_finite(values)
    weights, columns = zip(*terms, strict=True)
    return mean_interval(
        [
            math.fsum(weight * value for weight, value in zip(weights, row, strict=True))
            for row in zip(*columns, strict=True)
        ],
        confidence,
    )


def _check_finite(values: Sequence[float]) -> None:
    if not all(value is not None and math.isfinite(value) for value in values):
        raise UserError(
            f"expected finite numbers, got {list(values)}: a seed without a value cannot be averaged"
        )
