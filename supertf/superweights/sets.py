"""Super weights in company: which few weights of a row do the most damage together, and do pairs interact.

A greedy search takes, again and again, the weight whose removal hurts most next to those taken before.
Beside it stand random sets of the same size, and each pair's excess over the sum of its two.
"""

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
from supertf.superweights.ablation import Ablation, Loss, measured, without
from supertf.superweights.find import check_prompt


@torch.inference_mode()
def row_pool(
    model: LanguageModel, layer: int, out: int, prompt: list[int], size: int = 16
) -> list[Coordinate]:
    """The weights of W[out, :] with the largest contributions |W[out, k] x_k|, largest first.

    x is the projection's input at the token of the prompt where most is added to channel `out` of the
    residual stream. Raises `UserError` on a row outside the model, a size out of range, and a prompt that the
    model cannot read.
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
        model(torch.tensor([prompt], device=model.device), last_only=True)
    return [(layer, out, int(into)) for into in found[0].abs().topk(size).indices]


def greedy_set(
    model: LanguageModel, pool: Sequence[Coordinate], loss: Loss, size: int = 3, progress: bool = True
) -> list[Ablation]:
    """Grow a set from a pool by the weight that raises the loss most, `size` times.

    Step i of the list is the removal of the first i + 1 chosen, the new one last. Greedy need not find the
    best set: weights that hurt only together are missed when neither hurts alone. It takes about
    size x len(pool) measures of the loss. Raises `UserError` on a size out of range and as `ablation.without`
    does.
    """
    pool = list(dict.fromkeys(pool))
    check_size(size, pool)
    base = measured(model, loss)
    steps: list[Ablation] = []
    chosen: list[Coordinate] = []
    trials = size * len(pool) - size * (size - 1) // 2
    with tqdm(total=trials, desc="greedy search", disable=not progress, leave=False) as bar:
        for _ in range(size):
            best = None
            for coordinate in pool:
                if coordinate not in chosen:
                    tried = without(model, [*chosen, coordinate], loss, base)
                    best = max(best or tried, tried, key=lambda one: one.loss)
                    bar.update()
            steps.append(best)
            chosen = list(best.coordinates)
    return steps


def random_sets(
    model: LanguageModel,
    pool: Sequence[Coordinate],
    loss: Loss,
    size: int = 3,
    sets: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> list[Ablation]:
    """Remove `sets` random sets of `size` weights of a pool: what a greedy set has to exceed."""
    pool = list(dict.fromkeys(pool))
    check_size(size, pool)
    if sets < 1:
        raise UserError(f"{sets} random sets asked for, expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    base = measured(model, loss)
    orders = [torch.randperm(len(pool), generator=generator)[:size].tolist() for _ in range(sets)]
    bar = tqdm(orders, desc="random sets", disable=not progress, leave=False)
    return [without(model, [pool[i] for i in order], loss, base) for order in bar]


def check_size(size: int, pool: Sequence[Coordinate]) -> None:
    """`UserError` unless a set of so many weights can be taken from the pool."""
    if not 1 <= size <= len(pool):
        raise UserError(f"a set of {size} weights asked for, expected 1 to the pool's {len(pool)}")


@dataclass(frozen=True)
class Pair:
    """Two weights removed alone and together.

    interaction: log ratio of both minus the sum of the two log ratios. 0: they act independently; above, the
    loss of both is more than the sum; below, one makes up for part of the other, or the damage is done.
    """

    first: Ablation
    second: Ablation
    both: Ablation
    interaction: float


def pair_interactions(
    model: LanguageModel, coordinates: Iterable[Coordinate], loss: Loss, progress: bool = True
) -> list[Pair]:
    """Every pair of the weights, in order. Raises `UserError` on fewer than two different weights."""
    coordinates = list(dict.fromkeys(coordinates))
    if len(coordinates) < 2:
        raise UserError(f"{len(coordinates)} different weights given, expected two or more to pair")
    base = measured(model, loss)
    alone = {one: without(model, [one], loss, base) for one in coordinates}
    pairs = []
    couples = list(combinations(coordinates, 2))
    for a, b in tqdm(couples, desc="pairs", disable=not progress, leave=False):
        both = without(model, [a, b], loss, base)
        excess = both.loss - alone[a].loss - alone[b].loss + base
        pairs.append(Pair(alone[a], alone[b], both, excess))
    return pairs
