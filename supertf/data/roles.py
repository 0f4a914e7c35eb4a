"""Roles of a text's documents: what is trained on, calibrated with, fitted to and scored never meets.

Documents are assigned whole, and no two roles, nor two of the evaluation's texts, share a run of 20 tokens: a
document that repeats a passage of another role's is left out. What is scored comes first, so that it is the
same however much is asked of the other roles.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RUN = 20  # tokens: as many in a row, and two passages are the same
SEED = 0  # of the order in which documents are assigned
PARTS = 12  # disjoint texts to score
PART = 4 * 512 + 1  # tokens of one: four windows, and the last target
SIZES = {"live": 4096, "calibrate": 16384, "fit": 32768}  # tokens
ROLES = ("evaluate", *SIZES, "train")  # train: all that is left
FACTORS = np.random.default_rng(0).integers(0, 2**63, RUN, dtype=np.uint64) * 2 + 1  # of the hashes of runs


@dataclass(frozen=True)
class Assigned:
    """A document and what it is for; part: which of the evaluation's texts it is in."""

    text: str
    role: str
    part: int = 0


def assign_roles(documents: Sequence[str], encode: Callable[[str], list[int]]) -> list[Assigned]:
    """Give documents their roles, in an order of chance that is always the same.

    Args:
        documents: those shorter than a run are left out, and those that repeat what another role has.
        encode: a document's token ids.

    Returns:
        Role by role, as far as the documents go: see `SIZES`, `PARTS` and `PART`.
    """
    order = list(documents)
    random.Random(SEED).shuffle(order)
    found: list[Assigned] = []
    seen: set[int] = set()  # runs of the roles that are full, or of the evaluation's other texts
    plan = [("evaluate", part, PART) for part in range(PARTS)]
    plan += [(role, 0, size) for role, size in SIZES.items()]
    waiting = [(text, runs(encode(text))) for text in order]
    for role, part, size in plan:
        own: set[int] = set()
        tokens, later = 0, []
        for text, its_runs in waiting:
            if tokens < size and len(its_runs) and seen.isdisjoint(its_runs):
                found.append(Assigned(text, role, part))
                own.update(its_runs)
                tokens += len(its_runs) + RUN - 1
            else:
                later.append((text, its_runs))
        seen |= own
        waiting = later
    trained: set[int] = set()
    for text, its_runs in waiting:
        copied = sum(one in trained for one in its_runs)  # of another document, wholly or in part
        if its_runs and seen.isdisjoint(its_runs) and 2 * copied < len(its_runs):
            found.append(Assigned(text, "train"))
            trained.update(its_runs)
    return found


def runs(ids: Sequence[int] | np.ndarray) -> list[int]:
    """A 64-bit hash of every run of `RUN` tokens, in order."""
    tokens = np.asarray(ids, dtype=np.uint64)
    if len(tokens) < RUN:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(tokens, RUN)  # (N - RUN + 1, RUN)
    mixed = (windows + np.uint64(1)) * FACTORS  # of distinct odd factors, modulo 2^64
    mixed ^= mixed >> np.uint64(29)
    return (mixed * FACTORS[::-1]).sum(axis=1, dtype=np.uint64).tolist()


def overlap(first: Sequence[int] | np.ndarray, second: Sequence[int] | np.ndarray) -> int:
    """How many runs of 20 tokens of `second` are also in `first`; token ids (N,), (M,) of one tokenizer."""
    known = set(runs(first))
    return sum(one in known for one in runs(second))
