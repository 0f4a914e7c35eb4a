"""Structured pruning: whole channels of the MLPs or whole attention heads go, and matrices shrink with them.

`plan_structured` chooses them. Its `Pruning` can be tried out with `pruned`, which puts zeros in their place;
`smaller` gives a model without them, which plain dense code runs faster. Scores, of which the lowest go:

activation  ||X_j||_2 * ||W[:, j]||_2, W the output projection and X its inputs on a calibration text: the
            norm of all that channel j adds to the residual stream, and the root of the sum of squares of the
            scores that Wanda gives the column's weights, |W_ij| * ||X_j||_2 (Sun et al. 2023, arXiv
            2306.11695); for a head, the root of the sum of squares over its channels
magnitude   the root of the sum of squares of all weights that would go
random      a random number: the control
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.compression.calibration import Calibration, needed_calibration
from supertf.compression.fate import untouched
from supertf.compression.own_model import as_gpt
from supertf.compression.pruning.groups import check_sparsity, how_many, lowest, turn_of
from supertf.compression.pruning.static import Pruning
from supertf.compression.replaced_weights import check_matrices, replaced_copy
from supertf.errors import UserError
from supertf.model import (
    GPT,
    Coordinate,
    GPTConfig,
    LanguageModel,
    Projection,
    alibi_slopes,
    build,
    matrices,
    places,
    show,
)

UNITS = {"channels": ("mlp.c_fc", "mlp.c_proj"), "heads": ("attn.c_attn", "attn.c_proj")}  # into, out of
SCORES = ("activation", "magnitude", "random")


@torch.no_grad()
def plan_structured(
    model: LanguageModel,
    what: str,
    sparsity: float,
    calibration: Calibration | None = None,
    *,
    protect: Iterable[Coordinate] = (),
    watch: Iterable[Coordinate] = (),
    score: str = "activation",
    multiple: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Pruning:
    """Choose channels or heads to remove, as many in every layer; the model is not touched.

    Args:
        model: this package's `GPT`.
        what: "channels" of the MLPs, each a row of c_fc (SwiGLU: of gate and of up) and a column of c_proj;
            or "heads": query heads, as many of every key and value head, which stay; where every query head
            has its own, that goes with it.
        sparsity: the share of them that goes, to the nearest whole number, halves upwards.
        calibration: of the same model, for score "activation".
        protect: (layer, out, in) of the MLPs' output projections, whose channels `in` stay; others go in
            their place.
        watch: weights of them whose `Fate` is wanted, in terms of their channel.
        score: "activation", "magnitude" or "random"; the lowest go (formulas at the head of this file).
        multiple: what stays is rounded to the nearest multiple of this (or all stays), as kernels like it.
        seed: of "random".

    Raises:
        UserError: a model of another class, unknown units and scores, a sparsity outside 0 to 1, a multiple
            that is too large, more protected channels than may stay, and otherwise as `plan_static` does.
    """
    model = structured_model(model)
    if what not in UNITS:
        raise UserError(f"structured pruning of {what!r}; choose from {', '.join(UNITS)}")
    if score not in SCORES:
        raise UserError(f"unknown score {score!r}; choose from {', '.join(SCORES)}")
    check_sparsity(sparsity)
    groups, size = units(model.config, what)
    going = size - rounded(size - how_many(sparsity, size), multiple, size)
    found = matrices(model, UNITS[what])
    check_matrices(model, found, None)
    outputs = {name: matrix for name, matrix in found.items() if name.endswith(UNITS[what][1])}
    known = needed_calibration(score, "squares", outputs, calibration) if score == "activation" else None
    protect, watch = list(protect), list(watch)
    places(model, protect)  # all inside the model
    watched = untouched(model, watch, protect)
    kept_units = protected_units(model.config, protect, size - going) if what == "channels" else {}

    owned = owners(model.config, what)
    generator = torch.Generator().manual_seed(seed)
    removed: dict[str, Tensor] = {}
    scores: list[Tensor] = []  # of each layer, (groups, size)
    for layer in tqdm(range(model.config.n_layer), f"planning {what}", disable=not progress, leave=False):
        pair = {kind: found[f"h.{layer}.{kind}"] for kind in UNITS[what]}
        scores.append(score_of(score, pair, owned, known, generator).view(groups, size))
        gone = lowest(scores[-1], going, kept_units.get(layer)).flatten()
        removed |= {matrix.name: mask_of(matrix, owned, kind, gone) for kind, matrix in pair.items()}
    fates = []
    for fate, name in watched:
        if name in removed:
            layer, out, into = fate.coordinate
            lost = bool(removed[name][out, into])
            fate = turn_of(fate, scores[layer][0], into, going, lost, fate.before)
        fates.append(fate)
    settings = {
        "sparsity": sparsity,
        "score": score,
        "multiple": multiple,
        "kept": groups * (size - going),  # of every layer
        "of": groups * size,
        "seed": seed if score == "random" else None,
        "protect": protect,
        "calibration_tokens": known.tokens if known else None,
    }
    return Pruning(what, settings, removed, fates=tuple(fates))


def structured_model(model: LanguageModel) -> GPT:
    """The model, or `UserError` if its matrices cannot be made smaller."""
    return as_gpt(model, "channels and heads are removed from")


def smaller(model: LanguageModel, pruning: Pruning) -> GPT:
    """A copy of the model that lacks the removed channels or heads: what `pruned` computes, up to rounding.

    Args:
        model: this package's `GPT`; it is not changed.
        pruning: a plan of `plan_structured` for it.

    Returns:
        A `GPT` like others, whose config says n_inner, or n_head with n_head_dim: it is saved, loaded,
        trained and pruned again like them.

    Raises:
        UserError: a plan that does not remove whole channels or heads, as many in every layer (and of every
            key and value head), or removes all of them, and otherwise as `prune` does.
    """
    if not isinstance(model, GPT) or (what := units_of(model, pruning)) is None:
        raise UserError(
            f"the plan, of {pruning.method}, is not for both matrices of every MLP or every attention of "
            "this model: give one that `plan_structured` made for it"
        )
    shrunk = replaced_copy(model, pruning.replacement())
    owned = owners(model.config, what)
    groups, size = units(model.config, what)
    state = shrunk.state_dict()
    counts = set()
    for layer in range(model.config.n_layer):
        if what == "heads" and model.config.position == "alibi":  # which each head keeps from now on
            state.setdefault(f"h.{layer}.attn.slopes", alibi_slopes(model.config.n_head).to(model.device))
        gone = removed_units(matrices(shrunk, UNITS[what]), pruning, what, owned, layer)
        counts |= set(gone.view(groups, size).sum(1).tolist())
        for suffix, (dim, index) in owned.items():
            name = f"h.{layer}.{suffix}"
            if name in state:
                kept = torch.ones(state[name].shape[dim], dtype=torch.bool)
                kept[index[gone].flatten()] = False
                state[name] = state[name].index_select(dim, kept.nonzero()[:, 0].to(state[name].device))
    if len(counts) > 1:
        raise UserError(
            f"the plan removes {min(counts)} to {max(counts)} of {size} {what}: a smaller model needs as "
            "many in every layer, and of every key and value head"
        )
    left = groups * (size - counts.pop())
    if left == 0:
        raise UserError(f"the plan removes all {what}: a smaller model needs some, choose a lower sparsity")
    config = smaller_config(model.config, what, left)
    return build(config, state).train(model.training)


def in_smaller(pruning: Pruning, weight: Coordinate) -> Coordinate | None:
    """Where a weight is in the `smaller` model.

    Args:
        pruning: the plan that the model was made with.
        weight: (layer, out, in) of an MLP's output projection in the whole model.

    Returns:
        Its coordinate there; None if it is gone with its channel.
    """
    layer, out, into = weight
    if pruning.method == "heads":
        return weight
    gone = pruning.removed[f"h.{layer}.mlp.c_proj"].all(0)  # (in,)
    return None if gone[into] else (layer, out, into - int(gone[:into].sum()))


def units(config: GPTConfig, what: str) -> tuple[int, int]:
    """Into how many groups a layer's channels or heads fall, and how many each has: its smaller model takes
    as many from each."""
    if what == "channels":
        return 1, config.inner
    if config.kv_heads == config.n_head:
        return 1, config.n_head
    return config.kv_heads, config.n_head // config.kv_heads


def owners(config: GPTConfig, what: str) -> dict[str, tuple[int, Tensor]]:
    """What belongs to each channel or head of a layer: by parameter, a dimension and the indices along it
    (units, indices of one unit)."""
    if what == "channels":
        channels = torch.arange(config.inner)[:, None]
        into = torch.cat([channels, channels + config.inner], 1) if config.mlp == "swiglu" else channels
        return {"mlp.c_fc.weight": (0, into), "mlp.c_fc.bias": (0, into), "mlp.c_proj.weight": (1, channels)}
    heads, D = torch.arange(config.n_head)[:, None], config.head_dim
    channels = heads * D + torch.arange(D)  # (H, D)
    width = config.n_head * D
    own = config.kv_heads == config.n_head  # its key and value heads too
    into = torch.cat([channels, channels + width, channels + 2 * width], 1) if own else channels
    return {
        "attn.c_attn.weight": (0, into),
        "attn.c_attn.bias": (0, into),
        "attn.c_proj.weight": (1, channels),
        "attn.scale.s": (0, heads),
        "attn.scale.b": (0, heads),
        "attn.slopes": (0, heads),
    }


def smaller_config(config: GPTConfig, what: str, left: int) -> GPTConfig:
    """The config of the smaller model, `left` of each layer's channels or heads being kept."""
    if what == "channels":
        return dataclasses.replace(config, n_inner=left)
    kv_heads = None if config.kv_heads == config.n_head else config.kv_heads
    return dataclasses.replace(config, n_head=left, n_kv_head=kv_heads, n_head_dim=config.head_dim)


def score_of(
    score: str,
    pair: dict[str, Projection],
    owned: dict[str, tuple[int, Tensor]],
    calibration: Calibration | None,
    generator: torch.Generator,
) -> Tensor:
    """The scores of a layer's channels or heads, (units,) float32, by activation with a calibration: the
    lowest go."""
    (first, into), (second, out) = pair.items()  # the matrices into and out of them
    _, rows = owned[f"{first}.weight"]
    _, columns = owned[f"{second}.weight"]
    if score == "random":
        return torch.rand(len(columns), generator=generator)
    squares = out.weight.float().square().sum(0).cpu()  # of each column, (in,)
    if calibration is not None:
        squares = squares.double() * calibration.squares[out.name].cpu()
        return squares[columns].sum(1).sqrt().float()
    return (squares[columns].sum(1) + into.weight.float().square().sum(1).cpu()[rows].sum(1)).sqrt()


def mask_of(matrix: Projection, owned: dict[str, tuple[int, Tensor]], kind: str, gone: Tensor) -> Tensor:
    """The weights of a matrix that go with the units marked in `gone` (units,), True in an (out, in) mask."""
    dim, index = owned[f"{kind}.weight"]
    mask = torch.zeros(matrix.weight.shape, dtype=torch.bool)
    return mask.index_fill_(dim, index[gone].flatten(), True)


def removed_units(
    found: dict[str, Projection],
    pruning: Pruning,
    what: str,
    owned: dict[str, tuple[int, Tensor]],
    layer: int,
) -> Tensor:
    """Which channels or heads of a layer a plan removes, (units,) bool; `UserError` unless whole ones."""
    pair = {kind: found[f"h.{layer}.{kind}"] for kind in UNITS[what]}
    _, columns = owned[f"{UNITS[what][1]}.weight"]
    columns_gone = pruning.removed[pair[UNITS[what][1]].name].cpu().all(0)
    gone = columns_gone[columns].all(1)
    for kind, matrix in pair.items():
        if not torch.equal(mask_of(matrix, owned, kind, gone), pruning.removed[matrix.name].cpu()):
            raise UserError(
                f"the plan removes single weights of {matrix.name}, not whole {what}: give a plan of "
                "`plan_structured`"
            )
    return gone


def protected_units(config: GPTConfig, protect: list[Coordinate], kept: int) -> dict[int, Tensor]:
    """The channels that stay, by layer (1, inner) bool; `UserError` on more in a layer than are kept."""
    held: dict[int, Tensor] = {}
    for layer, _, into in protect:
        held.setdefault(layer, torch.zeros(1, config.inner, dtype=torch.bool))[0, into] = True
    for layer, mask in held.items():
        if mask.sum() > kept:
            first = next(one for one in protect if one[0] == layer)
            raise UserError(
                f"{int(mask.sum())} channels of layer {layer} are protected ({show(first)} and others), and "
                f"{kept} are to stay: choose a lower sparsity, or protect fewer"
            )
    return held


def rounded(kept: int, multiple: int, size: int) -> int:
    """`kept` of `size` to the nearest multiple, halves upwards, or all."""
    if not 1 <= multiple <= size:
        raise UserError(f"multiple is {multiple}, expected 1 to {size}, which there are in all")
    return min(size, multiple * int(kept / multiple + 0.5))


def units_of(model: GPT, pruning: Pruning) -> str | None:
    """What a plan removes, as a name in UNITS, if its matrices are all those of channels or of heads."""
    layers = range(model.config.n_layer)
    for what, kinds in UNITS.items():
        if set(pruning.removed) == {f"h.{layer}.{kind}" for layer in layers for kind in kinds}:
            return what
    return None
