"""Intervals over seeds: right against scipy, cover as often as they say, refuse what cannot be averaged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from supertf.analysis.intervals import (
    Interval,
    holm,
    mean_interval,
    p_value,
    paired_difference,
    two_by_two,
)

numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 6))
samples = st.lists(numbers, min_size=2, max_size=8)
confidences = st.floats(0.5, 0.999)


def close(found: Interval, mean: float, low: float, high: float) -> None:
    assert (found.mean, found.low, found.high) == pytest.approx((mean, low, high), rel=1e-9, abs=1e-9)


@given(samples.filter(lambda values: np.std(values) > 1e-3), confidences)
def test_it_is_the_interval_of_scipy_s_t_test(values, confidence):
    low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    found = mean_interval(values, confidence)
    close(found, np.mean(values), low, high)
    assert found.n == len(values)


@given(samples, numbers, st.floats(0.1, 10))
def test_it_moves_and_stretches_with_the_values(values, shift, scale):
    before = mean_interval(values)
    after = mean_interval([scale * value + shift for value in values])
    close(after, *(scale * part + shift for part in (before.mean, before.low, before.high)))


@given(samples, confidences)
def test_more_confidence_is_wider(values, confidence):
    narrow, wide = mean_interval(values, confidence), mean_interval(values, (1 + confidence) / 2)
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


def test_95_percent_of_intervals_over_five_normal_values_hold_the_mean():
    draws = np.random.default_rng(0).normal(3, 2, (4000, 5))
    covered = sum(found.low <= 3 <= found.high for found in map(mean_interval, draws))
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_a_paired_difference_is_the_interval_of_differences_and_antisymmetric(pairs):
    a, b = zip(*pairs, strict=True)
    difference = paired_difference(a, b)
    expected = mean_interval([x - y for x, y in pairs])
    close(difference, expected.mean, expected.low, expected.high)
    back = paired_difference(b, a)
    close(back, -difference.mean, -difference.high, -difference.low)


def test_pairing_removes_what_seeds_share():
    seeds = [0.0, 10.0, -5.0, 3.0, 7.0]
    better = [value + 1 + wobble for value, wobble in zip(seeds, [0.1, -0.1, 0, 0.05, -0.05], strict=True)]
    assert paired_difference(better, seeds).excludes_zero
    assert not mean_interval(better).excludes_zero


@given(numbers, numbers, numbers, numbers, st.lists(numbers, min_size=2, max_size=6))
def test_a_two_by_two_finds_the_effects_that_were_put_in(base, first, second, interaction, seeds):
    """Effects coded -1/2 and +1/2, so that the main effects are averages over the other factor."""
    values = {
        (a, b): [
            base + seed + first * x + second * y + interaction * x * y
            for seed in seeds  # what a seed shares cancels within it
        ]
        for a, x in (("softmax", -0.5), ("ssmax", 0.5))
        for b, y in (("rope", -0.5), ("none", 0.5))
    }
    found = two_by_two(values)
    assert (found.first.mean, found.second.mean, found.interaction.mean) == pytest.approx(
        (first, second, interaction), abs=1e-8
    )
    assert all(effect.high - effect.low < 1e-8 and effect.n == len(seeds) for effect in found)


def test_a_difference_is_called_only_outside_zero():
    assert Interval(1, 0.1, 1.9, 5).excludes_zero and Interval(-1, -1.9, -0.1, 5).excludes_zero
    assert not Interval(1, -0.1, 2.1, 5).excludes_zero
    assert not Interval(0, 0, 0, 5).excludes_zero


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.1234, 0.1014, 0.1454, 5), "0.123 [0.101, 0.145] (n=5)"),
        (Interval(24022.4, 23000.0, 25044.8, 3), "24022 [23000, 25045] (n=3)"),
        (Interval(-0.000912, -0.00098, -0.00084, 5), "-0.000912 [-0.000980, -0.000840] (n=5)"),
        (Interval(0.1, 0.1 - 1e-17, 0.1 + 1e-17, 5), "0.100 [0.100, 0.100] (n=5)"),
        (Interval(1.0, 1.0, 1.0, 5), "1.000 [1.000, 1.000] (n=5)"),
    ],
)
def test_it_prints_the_digits_that_its_width_supports(interval, text):
    assert str(interval) == text


@given(samples.filter(lambda values: np.std(values) > 1e-3), numbers)
def test_the_p_value_is_scipy_s(values, null):
    assert p_value(values, null) == pytest.approx(stats.ttest_1samp(values, null).pvalue, rel=1e-6, abs=1e-12)


@given(samples.filter(lambda values: np.std(values) > 1e-3), confidences)
def test_a_p_value_and_an_interval_say_the_same(values, confidence):
    found = mean_interval(values, confidence)
    p = p_value(values)
    if abs(p - (1 - confidence)) > 1e-9:
        assert (p < 1 - confidence) == found.excludes_zero


def test_equal_values_are_certain_of_their_mean():
    assert (p_value([2.0, 2.0], 2.0), p_value([2.0, 2.0])) == (1.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_holm_s_steps_reject(values):
    """The steps themselves: the smallest against .05 / m, the next against .05 / (m - 1), until one fails."""
    names = [str(i) for i in range(len(values))]
    corrected = holm(dict(zip(names, values, strict=True)))
    assert list(corrected) == names
    rejected, left = set(), sorted(names, key=lambda name: values[int(name)])
    while left and values[int(left[0])] * len(left) < 0.05:
        rejected.add(left.pop(0))
    assert {name for name, value in corrected.items() if value < 0.05} == rejected
    assert all(corrected[name] >= value for name, value in zip(names, values, strict=True))


def test_holm_on_nothing_special_errs_once_in_twenty():
    draws = np.random.default_rng(0).uniform(size=(4000, 6))
    wrong = sum(min(holm(dict(enumerate(row))).values()) < 0.05 for row in draws)
    assert wrong / 4000 == pytest.approx(0.05, abs=0.012)
