"""Dynamic pruning: for every token, the inputs of a matrix that are small do not count.

y = W x is a sum over input channels, x_j times a column of W. Where x_j is dropped, the column need not be
read, and a token that is generated alone costs what is read. Which channels go differs from token to token.

inputs  |x_j| below a threshold, one per matrix (TEAL, arXiv 2408.14690)
gate    |silu(gate)_j| below a threshold: then row j of the up projection is not needed, nor is column j of
        the down projection (CATS, arXiv 2404.08763)
top     all but the largest |x_j| of each token

Here the small inputs are set to zero and the products stay dense, for any number of tokens: what it does to
the model. `skipping` is the same with the work left out.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.compression.methods import of_family
from supertf.compression.pruning.groups import check_sparsity, how_many
from supertf.compression.pruning.input_quantiles import InputSizes, gates
from supertf.errors import UserError
from supertf.model import (
    INPUTS,
    Coordinate,
    Hook,
    LanguageModel,
    Projection,
    changed,
    changes,
    check_coordinate,
    kind,
    output_projections,
)
from supertf.model import matrices as find_matrices


@dataclass(frozen=True)
class Cut:
    """Which inputs of one matrix count for a token.

    Attributes:
        size: how many there are.
        sparsity: the share that is to go.
        threshold: sizes below go (inputs, gate); None where the smallest of each token go (top).
        held: channels that never go, (size,) bool.
        axes: R (size, size), where R^T x is cut in place of x.
    """

    size: int
    sparsity: float
    threshold: float | None = None
    held: Tensor | None = None
    axes: Tensor | None = None

    def counts(self, x: Tensor) -> Tensor:
        """Whether each of x (..., size), in the cut's axes, counts: bool like x; NaN always does."""
        if self.threshold is None:
            kept = self.size - how_many(self.sparsity, self.size)
            largest = x.abs().topk(kept, dim=-1, sorted=False).indices
            counts = torch.zeros_like(x, dtype=torch.bool).scatter_(-1, largest, True)
        else:
            counts = (x.abs() < self.threshold).logical_not_()
        return counts if self.held is None else counts | self.held.to(x.device)


@dataclass(frozen=True)
class DynamicPruning:
    """A plan: what of every matrix's inputs is dropped. `pruned` and `skipping` apply it.

    Attributes:
        method: "inputs", "gate" or "top".
        settings: what was asked for.
        cuts: by matrix name; of the gate, by the name of c_fc.
    """

    method: str
    settings: dict[str, Any]
    cuts: dict[str, Cut]


@dataclass
class Skipped:
    """What was dropped while a context lasted, all by matrix name but `watched`.

    Attributes:
        weights: how many weights an input meets.
        spared: how many of them need not be read if it is dropped.
        seen: inputs, over all tokens.
        dropped: those of them that did not count.
        watched: by weight, the tokens whose input was dropped, and all tokens; 0 of 0 where the matrix is not
            pruned.
    """

    weights: dict[str, int]
    spared: dict[str, int]
    seen: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    watched: dict[Coordinate, tuple[int, int]] = field(default_factory=dict)

    @property
    def sparsities(self) -> dict[str, float]:
        """Share of the inputs dropped, by matrix."""
        return {name: self.dropped[name] / seen for name, seen in self.seen.items()}

    @property
    def work(self) -> float:
        """Share of the weights, of the matrices that were pruned, that need not have been read; 0 before any
        token. What turning the inputs to other axes costs is not in it."""
        spared = sum(count * self.spared[name] for name, count in self.dropped.items())
        return spared / max(1, sum(count * self.weights[name] for name, count in self.seen.items()))

    def note(self, name: str, counts: Tensor, watched: list[tuple[Coordinate, int]]) -> None:
        """Count what was dropped of one matrix's inputs; watched: weights, and their input channels."""
        self.seen[name] = self.seen.get(name, 0) + counts.numel()
        self.dropped[name] = self.dropped.get(name, 0) + counts.numel() - int(counts.sum())
        for coordinate, into in watched:
            dropped, tokens = self.watched[coordinate]
            here = counts[..., into]
            self.watched[coordinate] = (dropped + int((~here).sum()), tokens + here.numel())


def plan_dynamic(
    model: LanguageModel,
    method: str,
    sparsity: float | Mapping[str, float],
    sizes: InputSizes | None = None,
    *,
    protect: Iterable[Coordinate] = (),
    matrices: Iterable[str] | None = None,
) -> DynamicPruning:
    """Choose what is dropped of the inputs of each matrix; the model is not touched.

    Args:
        model: any causal language model that `load` reads; the gate is for this package's SwiGLU models.
        method: "inputs", "gate" or "top" (what each compares: at the head of this file).
        sparsity: the share that goes, one for all matrices, or by name or kind: then only those are pruned.
        sizes: of the same model, from `input_sizes`; top needs them only for their axes.
        protect: (layer, out, in) of the MLPs' output projections: their input channels always count.
        matrices: kinds such as ["mlp.c_proj"]; None is all but the head. The gate has none.

    Raises:
        UserError: an unknown method, kind or name, a sparsity outside 0 to 1, a coordinate outside the model
            or in other axes, and sizes that are missing, of something else or of other matrices.
    """
    if method not in of_family("dynamic"):
        raise UserError(f"unknown dynamic method {method!r}; choose from {', '.join(of_family('dynamic'))}")
    shares = shares_of(model, method, sparsity, matrices)
    widths = {name: size_of(method, model.get_submodule(name)) for name in shares}
    if method != "top" or sizes is not None:
        check_sizes(method, widths, sizes)
    protect = list(protect)
    held: dict[str, Tensor] = {}
    for name, channel in cuts_of(model, method, protect):
        if name in widths:
            none = torch.zeros(widths[name], dtype=torch.bool, device=model.device)
            held.setdefault(name, none)[channel] = True
    cuts = {}
    for name, share in shares.items():
        threshold = sizes.threshold(name, share) if sizes and method != "top" else None
        axes = sizes.axes.get(name) if sizes else None
        cuts[name] = Cut(widths[name], share, threshold, held.get(name), axes)
        if name in held:
            check_channels(name, cuts[name], "protected")
    settings = {
        "sparsity": dict(sparsity) if isinstance(sparsity, Mapping) else sparsity,
        "matrices": list(dict.fromkeys(map(kind, shares))),
        "axes": list(dict.fromkeys(kind(name) for name, cut in cuts.items() if cut.axes is not None)),
        "protect": protect,
        "calibration_tokens": sizes.tokens if sizes else None,
    }
    return DynamicPruning(method, settings, cuts)


def shares_of(
    model: LanguageModel, method: str, sparsity: float | Mapping[str, float], matrices: Iterable[str] | None
) -> dict[str, float]:
    """The share to drop of the inputs of every matrix that is pruned, or `UserError`."""
    if method == "gate" and matrices is not None:
        raise UserError("the gate decides over c_fc and c_proj together: leave matrices out")
    known = list(gates(model) if method == "gate" else find_matrices(model, matrices))
    if not isinstance(sparsity, Mapping):
        sparsity = dict.fromkeys(known, sparsity)
    if unknown := set(sparsity) - set(known) - set(map(kind, known)):
        raise UserError(f"no matrix {min(unknown)} among those to prune, {known[0]} to {known[-1]}")
    for share in sparsity.values():
        check_sparsity(share)
    shares = {name: sparsity.get(name, sparsity.get(kind(name))) for name in known}
    return {name: share for name, share in shares.items() if share is not None}


def check_sizes(method: str, widths: Mapping[str, int], sizes: InputSizes | None) -> None:
    """`UserError` unless the sizes are those that the method compares, of all matrices of these widths."""
    of = "gate" if method == "gate" else "inputs"
    if sizes is None or sizes.of != of:
        given = "none" if sizes is None else f"those of the {sizes.of}"
        raise UserError(
            f"{method} needs the sizes of the {of} on a short text and was given {given}: "
            f'`input_sizes(model, ids, of="{of}")`'
        )
    for name, width in widths.items():
        measured = sizes.widths.get(name, 0)
        if measured != width:
            raise UserError(
                f"the sizes given are of {measured} {of} of {name}, which has {width}: measure this model, "
                "with the same kinds of matrices"
            )


def check_channels(name: str, cut: Cut, what: str) -> None:
    """`UserError` where a matrix's own channels are not what is cut."""
    if cut.axes is not None:
        raise UserError(f"{name} is cut along axes other than its channels: none of these can be {what}")


def cuts_of(model: LanguageModel, method: str, coordinates: Iterable[Coordinate]) -> list[tuple[str, int]]:
    """The name of the cut that decides over each weight's input, if there is one, and the channel."""
    projections, found = output_projections(model), []
    for coordinate in coordinates:
        check_coordinate(projections, coordinate)
        layer, _, into = coordinate
        name = list(gates(model))[layer] if method == "gate" else projections[layer].name
        found.append((name, into))
    return found


def size_of(method: str, module: nn.Module) -> int:
    """Inputs of a matrix, or gates of a c_fc."""
    rows, columns = weight_of(module).shape
    return rows // 2 if method == "gate" else columns


def weight_of(module: nn.Module) -> Tensor:
    """W[out, in]."""
    return Projection(0, type(module).__name__, module).weight


@contextlib.contextmanager
def dynamically_pruned(
    model: LanguageModel, pruning: DynamicPruning, watch: Iterable[Coordinate] = ()
) -> Iterator[Skipped]:
    """Run the model with the small inputs of its matrices at zero while the context lasts, and count them.

    Nothing is changed but what the matrices are given.

    Args:
        pruning: a plan for this model.
        watch: weights (layer, out, in) of the MLPs' output projections whose inputs are counted one by one.

    Yields:
        What was dropped, up to now.

    Raises:
        UserError: a plan for another model, another such context around this one, and a weight to watch that
            is outside the model or whose matrix is cut in other axes.
    """
    with claimed(model, pruning) as modules, contextlib.ExitStack() as hooks:
        watch = list(dict.fromkeys(watch))
        watched: dict[str, list[tuple[Coordinate, int]]] = {}
        for coordinate, (name, channel) in zip(watch, cuts_of(model, pruning.method, watch), strict=True):
            watched.setdefault(name, []).append((coordinate, channel))
            if name in pruning.cuts:
                check_channels(name, pruning.cuts[name], "watched")
        skipped = Skipped(*weights_met(model, pruning), watched=dict.fromkeys(watch, (0, 0)))
        for name, module in modules.items():
            cut, noted = pruning.cuts[name], watched.get(name, [])
            if pruning.method == "gate":
                handle = module.register_forward_hook(Hook(gate_cutter(skipped, name, cut, noted)))
            else:
                handle = module.register_forward_pre_hook(Hook(input_cutter(skipped, name, cut, noted)))
            hooks.callback(handle.remove)
        yield skipped


@contextlib.contextmanager
def claimed(model: LanguageModel, pruning: DynamicPruning) -> Iterator[dict[str, nn.Module]]:
    """The modules of a plan by name, which no other plan can have meanwhile."""
    known = gates(model) if pruning.method == "gate" else dict(model.named_modules())
    for name, cut in pruning.cuts.items():
        if name not in known or (size := size_of(pruning.method, known[name])) != cut.size:
            here = "no such matrix" if name not in known else f"{size}"
            raise UserError(f"the plan is for {cut.size} inputs of {name}, here {here}: plan for this model")
        if changes(known[name], INPUTS):
            raise UserError(f"{name} is pruned dynamically already: leave that context before pruning again")
    modules = {name: known[name] for name in pruning.cuts}
    with changed(INPUTS, "pruned dynamically", modules):
        yield modules


def weights_met(model: LanguageModel, pruning: DynamicPruning) -> tuple[dict[str, int], dict[str, int]]:
    """How many weights an input of each matrix meets, and how many of them are spared where it is dropped."""
    if pruning.method == "gate":  # a gate's own row is always read; those of the up and down projections not
        width = model.config.n_embd
        return dict.fromkeys(pruning.cuts, 3 * width), dict.fromkeys(pruning.cuts, 2 * width)
    outputs = {name: weight_of(model.get_submodule(name)).shape[0] for name in pruning.cuts}
    return outputs, outputs


def input_cutter(
    skipped: Skipped, name: str, cut: Cut, watched: list[tuple[Coordinate, int]]
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """A hook before a matrix's forward that sets the inputs that do not count to zero."""

    def cut_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x, counts = cut_to(inputs[0], cut)
        skipped.note(name, counts, watched)
        return (x, *inputs[1:])

    return cut_inputs


def cut_to(x: Tensor, cut: Cut) -> tuple[Tensor, Tensor]:
    """x (..., size) without what does not count, in the model's axes; and what does, in the cut's axes."""
    if cut.axes is None:
        counts = cut.counts(x)
        return x * counts, counts
    axes = cut.axes.to(x)
    along = x @ axes
    counts = cut.counts(along)
    return (along * counts) @ axes.T, counts


def gate_cutter(
    skipped: Skipped, name: str, cut: Cut, watched: list[tuple[Coordinate, int]]
) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    """A hook after c_fc's forward that sets the gates that do not count to zero, where silu is zero too."""

    def cut_gates(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        gate, up = output.chunk(2, dim=-1)
        counts = cut.counts(F.silu(gate))
        skipped.note(name, counts, watched)
        return torch.cat([gate * counts, up], dim=-1)

    return cut_gates
