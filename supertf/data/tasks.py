"""Synthetic tasks whose answers are known exactly and whose length is free: recall, presence, majority.

An item is a key and a value in one token (the embeddings of the two ids add up), so a single attention
layer can look a key up. A sequence is `length` items, then the queries: a key each, with a question mark
where the value would be. The answer is due at the query's own token. No order has to be learned.

    recall      one item has the key; the answer is its value
    presence    for half of the queries no item has the key, and the answer is "none"
    majority    sqrt(length) items have the key; the answer is the value that most of them carry, while half
                of all other items carry one value of their own

Recall needs attention sharp enough to find one item among `length`. Majority needs that too, and also
attention even enough to count: a scale made large once and for all picks a single vote.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.errors import UserError

FAMILIES = ("recall", "presence", "majority")


@dataclass(frozen=True)
class Batch:
    """Questions and answers.

    Attributes:
        tokens: (B, T, 2) int64, T = length + Q, the ids of key and value.
        answers: (B, Q) int64, the id due at each of the last Q tokens.
        needles: (B, Q) int64, the index of an item that carries the query's key, -1 where none does.
    """

    tokens: Tensor
    answers: Tensor
    needles: Tensor

    @property
    def targets(self) -> Tensor:
        """Answers at the queries, -100 before them: (B, T) int64, as `GPT.forward` takes them."""
        items = self.tokens.shape[1] - self.answers.shape[1]
        ignored = self.answers.new_full((len(self.answers), items), -100)
        return torch.cat([ignored, self.answers], dim=1)


@dataclass(frozen=True)
class Task:
    """A family of sequences.

    Attributes:
        family: "recall", "presence" or "majority".
        keys, values: how many there are of each.
        queries: Q, the questions at the end of a sequence.

    Raises:
        UserError: an unknown family, or sizes that do not fit together.
    """

    family: str = "recall"
    keys: int = 64
    values: int = 32
    queries: int = 8

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"unknown task {self.family!r}; choose from {', '.join(FAMILIES)}")
        if not 1 <= self.queries < self.keys:
            raise UserError(f"{self.queries} queries need at least one key more than that, not {self.keys}")
        if self.values < 2:
            raise UserError(f"values is {self.values}, expected at least 2")

    @property
    def vocab_size(self) -> int:
        """Ids: the keys, the values, the question mark, the answer "none"."""
        return self.keys + self.values + 2

    @property
    def mark(self) -> int:
        """Id that stands in a query where an item has its value."""
        return self.keys + self.values

    @property
    def none(self) -> int:
        """Id of the answer to a query whose key no item has."""
        return self.mark + 1

    @property
    def chance(self) -> float:
        """Accuracy of the best answer that does not look at the items."""
        return 0.5 if self.family == "presence" else 1 / self.values

    def votes(self, length: int) -> int:
        """Items that carry each queried key, where one does."""
        return max(math.isqrt(length), 3) if self.family == "majority" else 1

    def batch(
        self, size: int, length: int, generator: torch.Generator, depth: tuple[float, float] = (0.0, 1.0)
    ) -> Batch:
        """Draw sequences.

        Args:
            size: B, the number of sequences.
            length: items in each.
            generator: drawn from.
            depth: the part of the items, 0 the first and 1 the last, in which the needles lie.

        Raises:
            UserError: the needles do not fit into that part.
        """
        votes = self.votes(length)
        first, end = round(depth[0] * length), round(depth[1] * length)
        if not 0 <= first < end <= length or end - first < self.queries * votes:
            raise UserError(
                f"{self.queries} queries with {votes} items each do not fit into items {first} to {end} of "
                f"{length}: use a longer sequence or fewer queries"
            )
        rand = torch.rand(size, self.keys, generator=generator)
        shuffled = rand.argsort(dim=1)  # the first keys are asked for, the others fill the sequence
        queried, others = shuffled[:, : self.queries], shuffled[:, self.queries :]
        pick = torch.randint(others.shape[1], (size, length), generator=generator)
        keys = others.gather(1, pick)
        values = torch.randint(self.values, (size, length), generator=generator)
        if self.family == "majority":  # half of the other items agree on one value
            common = torch.randint(self.values, (size, 1), generator=generator)
            values = torch.where(torch.rand(size, length, generator=generator) < 0.5, common, values)
        place = torch.rand(size, end - first, generator=generator).argsort(dim=1)[:, : self.queries * votes]
        place = place + first  # (B, Q * votes)
        carried = queried.repeat_interleave(votes, dim=1)
        needles = place[:, ::votes]
        if self.family == "majority":
            ballot, winner = self.ballots(size, votes, generator)
            values = values.scatter(1, place, ballot.flatten(1))
        else:
            winner = values.gather(1, needles)
        answers = self.keys + winner
        if self.family == "presence":
            absent = torch.rand(size, self.queries, generator=generator) < 0.5
            carried = torch.where(absent, keys.gather(1, place), carried)  # those items keep another key
            answers = torch.where(absent, self.none, answers)
            needles = torch.where(absent, -1, needles)
        keys = keys.scatter(1, place, carried)
        items = torch.stack([keys, self.keys + values], dim=-1)  # (B, length, 2)
        queries = torch.stack([queried, torch.full_like(queried, self.mark)], dim=-1)
        return Batch(torch.cat([items, queries], dim=1), answers, needles)

    def ballots(self, size: int, votes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Values of each query's items (B, Q, votes), and the one that most of them carry (B, Q).

        A quarter of the votes and at least 2 agree; the others go round all other values, so that none gets
        more than its share.
        """
        draw = torch.rand(size, self.queries, self.values, generator=generator)
        shuffled = draw.argsort(dim=-1)  # (B, Q, values): the winner, then its rivals
        winning = max(votes // 4, 2)
        rivals = 1 + torch.arange(votes - winning) % (self.values - 1)
        index = torch.cat([torch.zeros(winning, dtype=torch.int64), rivals])
        return shuffled[..., index], shuffled[..., 0]
