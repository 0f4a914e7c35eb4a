"""Static pruning: which weights a method removes, the same for all tokens.

They are the lowest of its `scores`, in groups that are compared; SparseGPT scores by the error left after the
weights to the right have made up for it: see `sparsegpt`. A `Pruning` is a plan, which `plan_pruning` makes;
`pruned` applies it and puts every weight back bit for bit; `prune` gives a pruned model.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.compression.calibration import Calibration, needed_calibration
from supertf.compression.fate import Fate, untouched
from supertf.compression.methods import METHODS, of_family
from supertf.compression.pruning import scores
from supertf.compression.pruning.groups import (
    check_sparsity,
    how_many,
    lowest,
    lowest_of,
    parse_pattern,
    turn_of,
)
from supertf.compression.pruning.sparsegpt import BLOCK, sparsegpt
from supertf.compression.replaced_weights import Replacement, check_matrices
from supertf.errors import UserError
from supertf.model import Coordinate, LanguageModel, kind, marks
from supertf.model import matrices as find_matrices


@dataclass(frozen=True)
class Pruning:
    """A plan: which weights become zero, and what the others become. `pruned` and `prune` apply it.

    Attributes:
        method: its name, or "channels" or "heads".
        settings: what was asked for.
        removed: by matrix name, (out, in) bool, True where removed.
        changed: by matrix name, new values of the whole matrix (out, in), of methods that also change the
            weights they keep.
        fates: of the weights that were watched.
    """

    method: str
    settings: dict[str, Any]
    removed: dict[str, Tensor]
    changed: dict[str, Tensor] = field(default_factory=dict)
    fates: tuple[Fate, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Weights removed, by matrix."""
        return {name: int(mask.sum()) for name, mask in self.removed.items()}

    @property
    def sparsities(self) -> dict[str, float]:
        """Share of the weights removed, by matrix."""
        return {name: count / self.removed[name].numel() for name, count in self.counts.items()}

    @property
    def sparsity(self) -> float:
        """Share of the weights removed, of all matrices that were pruned."""
        return sum(self.counts.values()) / sum(mask.numel() for mask in self.removed.values())

    def replacement(self) -> Replacement:
        """The plan as new weights of the matrices that it prunes."""

        def write(name: str, weight: Tensor) -> None:
            if name in self.changed:
                weight.copy_(self.changed[name])
            weight.masked_fill_(self.removed[name].to(weight.device), 0.0)

        shapes = {name: tuple(mask.shape) for name, mask in self.removed.items()}
        return Replacement("prune", shapes, write)


@torch.no_grad()
def plan_static(
    model: LanguageModel,
    method: str,
    sparsity: float | None = None,
    calibration: Calibration | None = None,
    *,
    protect: Iterable[Coordinate] = (),
    watch: Iterable[Coordinate] = (),
    scope: str | None = None,
    pattern: str | None = None,
    seed: int = 0,
    matrices: Iterable[str] | None = None,
    progress: bool = True,
) -> Pruning:
    """Choose the weights that a static method removes; the model is not touched.

    Args:
        model: any causal language model that `load` reads.
        method: "random", "magnitude", "wanda" or "sparsegpt".
        sparsity: the share that goes of every group of weights that are compared, to the nearest whole
            number, halves upwards; of equal scores the first go.
        calibration: of the same model; wanda and sparsegpt need one, sparsegpt with products.
        protect: (layer, out, in) of the MLPs' output projections: weights that keep their values; the next of
            their groups go in their place.
        watch: weights whose `Fate` is wanted.
        scope: the group, a "matrix", a "row" or all of them ("global"); None is the method's own, see
            `METHODS`. SparseGPT's is a block of 128 columns.
        pattern: in place of sparsity and scope, "n:m" keeps n of every m consecutive inputs of a row.
        seed: of "random".
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head.

    Raises:
        UserError: an unknown method, scope or kind, a sparsity outside 0 to 1, a pattern that does not divide
            a matrix, a coordinate outside the model, a calibration that is missing or of other matrices, and
            weights that are not finite, not in memory or shared with another part of the model.
    """
    found = find_matrices(model, matrices)
    scope, sparsity, m = resolve_scope(method, sparsity, scope, pattern)
    check_matrices(model, found, m)
    needs = METHODS[method].needs
    known = needed_calibration(method, needs, found, calibration) if needs else None
    products = known.products if known else {}
    protect, watch = list(protect), list(watch)
    protected, watched = marks(model, protect), untouched(model, watch, protect)

    removed: dict[str, Tensor] = {}
    changed: dict[str, Tensor] = {}
    scored: dict[str, Tensor] = {}
    wanted = found if scope == "global" else {name for _, name in watched}
    generator = torch.Generator().manual_seed(seed)
    for name, matrix in tqdm(found.items(), desc=f"planning {method}", disable=not progress, leave=False):
        weight, held = matrix.weight.detach(), protected.get(name)
        if method == "sparsegpt":
            result = sparsegpt(weight, products[name], sparsity, m, held)
            score, removed[name], changed[name] = result.scores, result.removed, result.weight
        else:
            score = getattr(scores, method)(weight, known.norms(name) if known else None, generator)
            if scope != "global":
                removed[name] = lowest_of(score, group_size(scope, m, weight), sparsity, held)
        if name in wanted:
            scored[name] = score
    if scope == "global":
        removed = lowest_of_all(scored, sparsity, protected)
    fates = []
    for fate, name in watched:
        if name in found:
            _, out, into = fate.coordinate
            group, index = group_of(scored, name, out, into, scope, m)
            kept = changed[name][out, into].item() if name in changed else fate.before
            going, gone = how_many(sparsity, len(group)), bool(removed[name][out, into])
            fate = turn_of(fate, group, index, going, gone, kept)
        fates.append(fate)
    settings = {
        "sparsity": sparsity,
        "scope": scope,
        "pattern": pattern,
        "seed": seed if method == "random" else None,
        "matrices": list(dict.fromkeys(map(kind, found))),
        "protect": protect,
        "calibration_tokens": known.tokens if known else None,
    }
    return Pruning(method, settings, removed, changed, tuple(fates))


def resolve_scope(
    method: str, sparsity: float | None, scope: str | None, pattern: str | None
) -> tuple[str | None, float, int | None]:
    """Fill in what a static method leaves to be chosen.

    Args:
        method, sparsity, scope, pattern: as `plan_static` takes them.

    Returns:
        The scope, the sparsity, and m of an n:m pattern: either the first or the last is None.

    Raises:
        UserError: they do not go together, or are out of range.
    """
    if method not in of_family("static"):
        raise UserError(f"unknown pruning method {method!r}; choose from {', '.join(of_family('static'))}")
    scopes = METHODS[method].scopes
    if scope is not None and scope not in scopes:
        raise UserError(f"scope {scope!r}; {method} compares weights by {' or '.join(scopes)}")
    if pattern is None:
        if sparsity is None:
            raise UserError("give a sparsity, such as 0.5, or a pattern, such as 2:4")
        check_sparsity(sparsity)
        return scope or scopes[0], sparsity, None
    kept, m = parse_pattern(pattern)
    if scope is not None or sparsity not in (None, 1 - kept / m):
        raise UserError(
            f"pattern {pattern} with sparsity {sparsity} and scope {scope}: a pattern is both, leave them out"
        )
    return None, 1 - kept / m, m


def group_size(scope: str | None, m: int | None, weight: Tensor) -> int:
    """Weights that are compared with one another, within a matrix: m of an N:M pattern, a row, or all."""
    return m or (weight.shape[1] if scope == "row" else weight.numel())


def lowest_of_all(
    scores: dict[str, Tensor], sparsity: float, protected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The masks of weights to remove when those of all matrices are compared."""
    held = torch.cat(
        [
            protected.get(name, torch.zeros_like(one, dtype=torch.bool)).flatten()
            for name, one in scores.items()
        ]
    )
    together = torch.cat([one.flatten() for one in scores.values()])
    mask = lowest(together[None], how_many(sparsity, len(together)), held[None])[0]
    parts = mask.split([one.numel() for one in scores.values()])
    return {name: part.view(one.shape) for (name, one), part in zip(scores.items(), parts, strict=True)}


def group_of(
    scores: dict[str, Tensor], name: str, out: int, into: int, scope: str | None, m: int | None
) -> tuple[Tensor, int]:
    """The scores of the group that one weight is compared in, (size,), and the weight's index among them."""
    score = scores[name]
    index = out * score.shape[1] + into
    if scope == "global":
        before = sum(one.numel() for one in list(scores.values())[: list(scores).index(name)])
        return torch.cat([one.flatten() for one in scores.values()]), before + index
    if scope == "columns":
        block = score.split(BLOCK, dim=1)[into // BLOCK]
        return block.flatten(), out * block.shape[1] + into % BLOCK
    size = group_size(scope, m, score)
    return score.flatten().split(size)[index // size], index % size
