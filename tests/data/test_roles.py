"""Roles: nothing is scored that was seen in another role, whatever documents repeat of each other."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data.roles import PART, PARTS, ROLES, RUN, SIZES, assign_roles, overlap, runs


def ids(text):
    """A token for each word."""
    return [int(word) for word in text.split()]


def numbered(first, count):
    """A document of words that no other start within reach has."""
    return " ".join(map(str, range(first, first + count)))


ENOUGH = [numbered(10_000 * i, 2100) for i in range(PARTS + 50)]


def by_role(assigned):
    """The documents of each role, and of each text to score."""
    found = {}
    for one in assigned:
        found.setdefault((one.role, one.part), []).append(one.text)
    return found


def test_every_role_gets_what_it_needs_in_the_same_way_every_time():
    assigned = assign_roles(ENOUGH, ids)
    found = by_role(assigned)
    assert {role for role, _ in found} == set(ROLES)
    sizes = {key: sum(len(ids(text)) for text in texts) for key, texts in found.items()}
    assert all(sizes["evaluate", part] >= PART for part in range(PARTS))
    assert all(sizes[role, 0] >= size for role, size in SIZES.items())
    assert sorted(one.text for one in assigned) == sorted(ENOUGH)
    assert assigned == assign_roles(ENOUGH, ids)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), min_size=30, max_size=60))
def test_no_two_roles_share_a_run_of_tokens_whatever_documents_repeat(copied):
    """Documents that begin with a part of one of a few others."""
    pool = [numbered(10_000 * i, 300) for i in range(41)]
    documents = [
        " ".join(pool[i].split()[:length]) + " " + numbered(1_000_000 + 5_000 * at, 900)
        for at, (i, length) in enumerate(copied)
    ]
    found = by_role(assign_roles(documents, ids))
    for (a, first), (b, second) in itertools.combinations(found.items(), 2):
        if a != b:
            assert all(overlap(ids(x), ids(y)) == 0 for x in first for y in second), (a, b)


def test_copies_of_a_document_are_trained_on_once():
    extra = [numbered(10_000_000 + 10_000 * i, 500) for i in range(5)]
    nearly = [text + " " + numbered(20_000_000 + 10_000 * i, 50) for i, text in enumerate(extra)]
    assigned = assign_roles([*ENOUGH, *extra, *extra, *nearly], ids)
    starts = [one.text.split()[0] for one in assigned]
    assert len(starts) == len(set(starts))


def test_overlap_counts_runs_of_the_second_that_the_first_has():
    first = list(range(100))
    assert overlap(first, first) == 100 - RUN + 1
    assert overlap(first, [*range(50, 50 + RUN), 7, 7]) == 1
    assert overlap(first, [*range(50, 50 + RUN - 1), 7, *range(80, 99)]) == 0
    assert overlap(first, first[::-1]) == 0 and overlap([], first) == overlap(first, []) == 0


def test_hashes_of_runs_tell_order_and_position_apart():
    base = list(range(RUN))
    others = [[*base[:i], base[i] + 1, *base[i + 1 :]] for i in range(RUN)]
    others += [[*base[:i], base[i + 1], base[i], *base[i + 2 :]] for i in range(RUN - 1)]
    hashes = [runs(one)[0] for one in [base, *others]]
    assert len(set(hashes)) == len(hashes)
