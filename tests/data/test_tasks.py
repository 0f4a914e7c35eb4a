"""The synthetic tasks: one answer each, found in the items, and nothing that gives it away."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data.tasks import FAMILIES, Task, whole_power
from supertf.errors import UserError

families = st.sampled_from(list(FAMILIES))


def made(family: str, length: int = 128, size: int = 4, seed: int = 0, queries: int = 4):
    task = Task(family, queries=queries)
    return task, task.batch(size, length, torch.Generator().manual_seed(seed))


def items_of(batch):
    """Keys and values of the items (B, L), and the queried keys (B, Q)."""
    length = batch.tokens.shape[1] - batch.answers.shape[1]
    return batch.tokens[:, :length, 0], batch.tokens[:, :length, 1], batch.tokens[:, length:, 0]


@settings(deadline=None)
@given(family=families, length=st.integers(36, 300), seed=st.integers(0, 2**31))
def test_every_answer_follows_from_the_items_and_from_no_other_reading_of_them(family, length, seed):
    task, batch = made(family, length, seed=seed)
    keys, values, queried = items_of(batch)
    for row in range(len(keys)):
        for query in range(task.queries):
            found = values[row][keys[row] == queried[row, query]].tolist()
            answer, needle = int(batch.answers[row, query]), int(batch.needles[row, query])
            if not found:
                assert (task.family, answer, needle) == ("presence", task.none, -1)
                continue
            assert len(found) == task.votes(length)
            counts = sorted((found.count(value) for value in set(found)), reverse=True)
            assert found.count(answer) == counts[0]
            assert len(counts) == 1 or counts[0] > counts[1]
            assert keys[row, needle] == queried[row, query]


@settings(deadline=None)
@given(family=families, length=st.integers(36, 300), seed=st.integers(0, 2**31))
def test_ids_stay_in_the_vocabulary_and_queries_carry_no_value(family, length, seed):
    task, batch = made(family, length, seed=seed)
    keys, values, queried = items_of(batch)
    assert int(batch.tokens.min()) >= 0 and int(batch.tokens.max()) < task.vocab_size
    assert int(keys.max()) < task.keys <= int(values.min()) and int(values.max()) < task.mark
    assert (batch.tokens[:, length:, 1] == task.mark).all()
    assert (queried.sort(dim=1).values.diff(dim=1) > 0).all()  # no key is asked for twice
    assert batch.targets.shape == batch.tokens.shape[:2]
    assert (batch.targets[:, :length] == -100).all()
    assert torch.equal(batch.targets[:, length:], batch.answers)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_without_the_items_are_right_at_chance_only(family):
    """The best guess from the query alone: the most frequent answer to that key in other sequences."""
    task, batch = made(family, size=4000)
    _, _, queried = items_of(batch)
    half = len(queried) // 2
    right = 0
    for key in range(task.keys):
        before = batch.answers[:half][queried[:half] == key]
        after = batch.answers[half:][queried[half:] == key]
        right += int((after == before.mode().values).sum())
    share = right / (half * task.queries)
    assert share == pytest.approx(task.chance, abs=0.015)


def test_the_most_common_value_of_all_items_is_not_the_majoritys_answer():
    task, batch = made("majority", length=400, size=200)
    _, values, _ = items_of(batch)
    common = values.mode(dim=1).values
    assert (batch.answers == common[:, None]).double().mean() < 3 / task.values


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_sequences_again(family):
    first, again, other = (made(family, seed=seed)[1].tokens for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@settings(deadline=None)
@given(part=st.integers(0, 3), family=families)
def test_needles_lie_at_the_depth_asked_for(part, family):
    task = Task(family, queries=2)
    batch = task.batch(3, 400, torch.Generator().manual_seed(part), depth=(part / 4, (part + 1) / 4))
    placed = batch.needles[batch.needles >= 0]
    assert ((placed >= 100 * part) & (placed < 100 * (part + 1))).all()
    keys, _, queried = items_of(batch)
    at = (keys[:, None] == queried[..., None]).nonzero()[:, 2]
    assert ((at >= 100 * part) & (at < 100 * (part + 1))).all()


def test_needles_are_spread_over_the_whole_sequence():
    _, batch = made("recall", length=64, size=2000)
    mean = batch.needles.double().mean()
    assert mean == pytest.approx(31.5, abs=4 * 64 / math.sqrt(12 * batch.needles.numel()))


@given(st.integers(1, 10**6))
def test_voters_are_the_whole_root_of_the_items_or_another_power(length):
    assert Task("majority").votes(length) == max(math.isqrt(length), 3)
    assert whole_power(length**2, 0.5) == length
    votes = [Task("majority", exponent=power).votes(length) for power in (0.2, 0.5, 0.8)]
    assert votes == sorted(votes)


@pytest.mark.parametrize("exponent", [0, 1, -1])
def test_an_exponent_out_of_range_is_refused(exponent):
    with pytest.raises(UserError, match="expected a number between 0 and 1"):
        Task("majority", exponent=exponent)
