"""Synthetic tasks whose answers are known exactly and whose length is free: recall, presence, majority.

An item is a key and a value in one token (the embeddings of the two ids add up), so a single attention
layer can look a key up. A sequence is `length` items, then the queries: a key each, with a question mark
where the value would be. The answer is due at the query's own token. No order has to be learned.

A new family is a function here, its rule, and its line in `FAMILIES`.

Recall needs attention sharp enough to find one item among `length`. Majority needs that too, and also
attention even enough to count: a scale made large once and for all picks a single vote.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.errors import UserError


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


@dataclass
class Items:
    """The items of sequences as they are drawn, which the family's rule then changes.

    Attributes:
        keys: (B, length) int64, none of those that are asked for.
        values: (B, length) int64, counted from 0.
        queried: (B, Q) int64, the keys that are asked for.
        part: the first item, and the one behind the last, in which the needles lie.
        votes: items that carry each queried key, where one does.
        generator: drawn from.
    """

    keys: Tensor
    values: Tensor
    queried: Tensor
    part: tuple[int, int]
    votes: int
    generator: torch.Generator

    def give_keys(self) -> Tensor:
        """Give each queried key to `votes` items of the part, all different: (B, Q, votes), their indices."""
        size, queries = self.queried.shape
        first, end = self.part
        order = torch.rand(size, end - first, generator=self.generator).argsort(dim=1)
        place = order[:, : queries * self.votes] + first
        self.keys.scatter_(1, place, self.queried.repeat_interleave(self.votes, dim=1))
        return place.view(size, queries, self.votes)


def recall(task: "Task", items: Items) -> tuple[Tensor, Tensor]:
    """One item has the key; the answer is its value."""
    needles = items.give_keys()[..., 0]
    return task.keys + items.values.gather(1, needles), needles


def presence(task: "Task", items: Items) -> tuple[Tensor, Tensor]:
    """For half of the queries no item has the key, and the answer is "none"; else as in recall."""
    others = items.keys.clone()
    answers, needles = recall(task, items)
    absent = torch.rand(needles.shape, generator=items.generator) < 0.5
    carried = torch.where(absent, others.gather(1, needles), items.queried)  # those items keep another key
    items.keys.scatter_(1, needles, carried)
    return torch.where(absent, task.none, answers), torch.where(absent, -1, needles)


def majority(task: "Task", items: Items) -> tuple[Tensor, Tensor]:
    """length^exponent items have the key; the answer is the value that most of them carry.

    Half of all other items carry one value of their own.
    """
    size, length = items.values.shape
    common = torch.randint(task.values, (size, 1), generator=items.generator)
    agree = torch.rand(size, length, generator=items.generator) < 0.5
    items.values = torch.where(agree, common, items.values)
    place = items.give_keys()
    ballot, winner = task.ballots(size, items.votes, items.generator)
    items.values.scatter_(1, place.flatten(1), ballot.flatten(1))
    return task.keys + winner, place[..., 0]


def whole_power(length: int, exponent: float) -> int:
    """The whole part of a power; of an exact one that number, whatever floats make of it."""
    return math.floor(length**exponent + 1e-9)


@dataclass(frozen=True)
class Family:
    """One kind of sequences.

    Attributes:
        rule: gives the queried keys to items, and values where it needs to; returns the answers (B, Q) and
            the needles (B, Q), as in `Batch`.
        votes: of a task and a number of items, how many carry each queried key, where one does.
        chance: accuracy of the best answer that does not look at the items; None is 1 / values.
    """

    rule: Callable[["Task", Items], tuple[Tensor, Tensor]]
    votes: Callable[["Task", int], int] = lambda task, length: 1
    chance: float | None = None


FAMILIES = {
    "recall": Family(recall),
    "presence": Family(presence, chance=0.5),
    "majority": Family(majority, votes=lambda task, length: max(whole_power(length, task.exponent), 3)),
}


@dataclass(frozen=True)
class Task:
    """A family of sequences.

    Attributes:
        family: one of `FAMILIES`.
        keys, values: how many there are of each.
        queries: Q, the questions at the end of a sequence.
        exponent: of majority, the power of the number of items that carry a queried key.

    Raises:
        UserError: an unknown family, or sizes that do not fit together.
    """

    family: str = "recall"
    keys: int = 64
    values: int = 32
    queries: int = 8
    exponent: float = 0.5

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UserError(f"unknown task {self.family!r}; choose from {', '.join(FAMILIES)}")
        if not 1 <= self.queries < self.keys:
            raise UserError(f"{self.queries} queries need at least one key more than that, not {self.keys}")
        if self.values < 2:
            raise UserError(f"values is {self.values}, expected at least 2")
        if not 0 < self.exponent < 1:
            raise UserError(f"exponent is {self.exponent}, expected a number between 0 and 1")

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
        chance = FAMILIES[self.family].chance
        return 1 / self.values if chance is None else chance

    def votes(self, length: int) -> int:
        """Items that carry each queried key, where one does."""
        return FAMILIES[self.family].votes(self, length)

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
        drawn = Items(keys, values, queried, (first, end), votes, generator)
        answers, needles = FAMILIES[self.family].rule(self, drawn)
        items = torch.stack([drawn.keys, self.keys + drawn.values], dim=-1)  # (B, length, 2)
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
