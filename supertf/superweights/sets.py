"""Super weights in company: which few weights of a row do the most damage together, and do pairs interact.

A greedy search takes, again and again, the weight whose removal hurts most next to those taken before.
Beside it stand random sets of the same size, and each pair's excess over the sum of its two.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.errors import UserError
from supertf.model import (
    Coordinate,
    LanguageModel,
    Projection,
    additions,
    check_coordinate,
    output_projections,
)
from supertf.superweights.ablation import Loss, Removal, measured, removal
from supertf.superweights.find import check_prompt


@torch.inference_mode()
def row_pool(
    model: LanguageModel, layer: int, out: int, prompt: Sequence[int], size: int = 16
) -> list[Coordinate]:
    """The weights of W[out, :] with the largest contributions |W[out, k] x_k|, largest first.

    x is the projection's input at the token of the prompt where most is added to channel `out` of the
    residual stream.

    Args:
        model: whose row it is.
        layer, out: which row.
        prompt: token ids.
        size: weights wanted.

    Raises:
        UserError: a row outside the model, a size out of range, and a prompt that the model cannot read.
    """
    projections = output_projections(model)
    check_coordinate(projections, (layer, out, 0))
    check_prompt(model, prompt)
    projection = projections[layer]
    row = projection.row(out)  # (K,)
    if not 1 <= size <= len(row):
        raise UserError(f"a pool of {size} weights asked for, expected 1 to the row's {len(row)}")
    found: list[Tensor] = []

    def heard(_: Projection, x: Tensor, y: Tensor, added: Tensor | None) -> None:
        added = (y if added is None else added).flatten(0, -2)  # (T, C)
        found.append(x.flatten(0, -2)[added[:, out].abs().argmax()].float() * row.float())  # of (T, K)

    with additions(model, [projection], heard):
        model(torch.tensor([list(prompt)], device=model.device), last_only=True)
    return [(layer, out, int(into)) for into in found[0].abs().topk(size).indices]


def greedy_set(
    model: LanguageModel, pool: Sequence[Coordinate], loss: Loss, size: int = 3, progress: bool = True
) -> list[Removal]:
    """Grow a set from a pool by the weight that raises the loss most, `size` times.

    Greedy need not find the best set: weights that hurt only together are missed when neither hurts alone.
    It takes about size x len(pool) measures of the loss.

    Args:
        model: whose weights they are.
        pool: to choose from, such as `row_pool` gives it.
        loss: a measure of the model, such as `text_loss(ids)`.
        size: weights of the last set.
        progress: show a bar.

    Returns:
        `size` removals; number i is that of the first i + 1 chosen, the new one last.

    Raises:
        UserError: a size out of range, and what `removal` refuses.
    """
    pool = list(dict.fromkeys(pool))
    check_size(size, pool)
    base = measured(model, loss)
    steps: list[Removal] = []
    chosen: list[Coordinate] = []
    trials = size * len(pool) - size * (size - 1) // 2
    with tqdm(total=trials, desc="greedy search", disable=not progress, leave=False) as bar:
        for _ in range(size):
            tried = []
            for coordinate in pool:
                if coordinate not in chosen:
                    tried.append(removal(model, [*chosen, coordinate], loss, base))
                    bar.update()
            steps.append(max(tried, key=lambda one: one.loss))
            chosen = list(steps[-1].coordinates)
    return steps


def random_sets(
    model: LanguageModel,
    pool: Sequence[Coordinate],
    loss: Loss,
    size: int = 3,
    sets: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> list[Removal]:
    """Remove `sets` different random sets of `size` weights of a pool: what a greedy set has to exceed.

    Args:
        model, pool, loss, progress: as for `greedy_set`.
        size: weights of a set.
        sets: how many, or all there are if these are fewer.
        seed: of the draws.

    Raises:
        UserError: a size or number out of range, and what `removal` refuses.
    """
    pool = list(dict.fromkeys(pool))
    check_size(size, pool)
    if sets < 1:
        raise UserError(f"{sets} random sets asked for, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    base = measured(model, loss)
    drawn: dict[frozenset[int], list[int]] = {}
    while len(drawn) < min(sets, math.comb(len(pool), size)):
        order = torch.randperm(len(pool), generator=generator)[:size].tolist()
        drawn.setdefault(frozenset(order), order)
    bar = tqdm(drawn.values(), desc="random sets", disable=not progress, leave=False)
    return [removal(model, [pool[i] for i in order], loss, base) for order in bar]


def check_size(size: int, pool: Sequence[Coordinate]) -> None:
    """`UserError` unless a set of so many weights can be taken from the pool."""
    if not 1 <= size <= len(pool):
        raise UserError(f"a set of {size} weights asked for, expected 1 to the pool's {len(pool)}")


@dataclass(frozen=True)
class Pair:
    """Two weights removed alone and together.

    Attributes:
        first, second: each alone.
        both: together.
        interaction: log ratio of both minus the sum of the two log ratios. 0: they act independently; above,
            the loss of both is more than the sum; below, one makes up for part of the other, or the damage
            is done.
    """

    first: Removal
    second: Removal
    both: Removal
    interaction: float


def pair_interactions(
    model: LanguageModel, coordinates: Iterable[Coordinate], loss: Loss, progress: bool = True
) -> list[Pair]:
    """Every pair of the weights, in order.

    Args:
        model: whose weights they are.
        coordinates: two or more, (layer, out, in).
        loss: a measure of the model, such as `text_loss(ids)`.
        progress: show a bar.

    Raises:
        UserError: fewer than two different weights, and what `removal` refuses.
    """
    coordinates = list(dict.fromkeys(coordinates))
    if len(coordinates) < 2:
        raise UserError(f"{len(coordinates)} different weights given, expected two or more to pair")
    base = measured(model, loss)
    alone = {one: removal(model, [one], loss, base) for one in coordinates}
    pairs = []
    couples = list(combinations(coordinates, 2))
    for a, b in tqdm(couples, desc="pairs", disable=not progress, leave=False):
        both = removal(model, [a, b], loss, base)
        excess = both.loss - alone[a].loss - alone[b].loss + base
        pairs.append(Pair(alone[a], alone[b], both, excess))
    return pairs
