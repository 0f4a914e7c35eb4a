"""Exact counts of the lowest scores in every group, whatever the ties, and protected weights stay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.compression.pruning.groups import how_many, lowest, parse_pattern, rank

# Few different values, so that nearly every group has ties at its limit.
groups = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 3), min_size=size, max_size=size), min_size=1, max_size=5
    ).map(lambda rows: torch.tensor(rows, dtype=torch.float32))
)


@settings(deadline=None, max_examples=100)
@given(groups, st.data())
def test_the_lowest_go_the_first_of_equals_and_protected_ones_never(scores, data):
    count = data.draw(st.integers(0, scores.shape[1]))
    flags = st.lists(st.booleans(), min_size=scores.numel(), max_size=scores.numel())
    protected = torch.tensor(data.draw(flags)).view_as(scores)
    removed = lowest(scores, count, protected)
    for row, held, gone in zip(scores.tolist(), protected, removed, strict=True):
        order = sorted((score, i) for i, score in enumerate(row) if not held[i])  # by hand
        assert gone.nonzero()[:, 0].tolist() == sorted(i for _, i in order[:count])
    assert torch.equal(lowest(scores, count), lowest(scores, count, torch.zeros_like(protected)))


@settings(deadline=None, max_examples=50)
@given(groups)
def test_a_weight_goes_exactly_when_its_rank_is_below_the_count(scores):
    for count in range(scores.shape[1] + 1):
        removed = lowest(scores, count)
        for row, gone in zip(scores, removed, strict=True):
            assert [rank(row, i) < count for i in range(len(row))] == gone.tolist()


@given(st.floats(0, 1), st.integers(1, 10**6))
def test_counts_are_the_nearest_whole_number(sparsity, size):
    assert 0 <= how_many(sparsity, size) <= size
    assert abs(how_many(sparsity, size) - sparsity * size) <= 0.5


@pytest.mark.parametrize("sparsity, size, count", [(0.29, 100, 29), (0.5, 5, 3), (0.5, 4, 2), (0.1, 4, 0)])
def test_counts_do_not_fall_for_binary_fractions_and_halves_go_up(sparsity, size, count):
    assert how_many(sparsity, size) == count


def test_a_pattern_says_how_many_are_kept():
    assert parse_pattern("2:4") == (2, 4)
    assert parse_pattern(" 1 : 4 ") == (1, 4)
