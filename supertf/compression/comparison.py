"""Models side by side: what pruning, quantizing or anything else makes of one, on the same text."""

import contextlib
import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from rich.console import Group, RenderableType
from tqdm.auto import tqdm

from supertf.analysis import perplexity
from supertf.compression.fate import Fate, untouched
from supertf.compression.pruning.dynamic import DynamicPruning, Skipped
from supertf.compression.pruning.static import Pruning
from supertf.compression.quantization.plan import Quantization
from supertf.compression.verbs import Read, in_windows, pruned, quantized
from supertf.data import Text, unused_ids
from supertf.errors import UserError
from supertf.model import (
    Coordinate,
    LanguageModel,
    Projection,
    generate,
    matrices,
    output_projections,
    show,
)
from supertf.superweights import coordinates, measured, ratio
from supertf.tables import Tabular, number

PROMPT = "The capital of France is"
Plan: TypeAlias = Pruning | DynamicPruning | Quantization
Variant: TypeAlias = LanguageModel | Plan | tuple[LanguageModel, AbstractContextManager[Any]]


@dataclass(frozen=True)
class Row:
    """One model on the text.

    Attributes:
        name: the variant's.
        loss: nats per token.
        perplexity: its exponential.
        ratio: times the perplexity of the model that all are compared with.
        sparsity: share that is zero of the weights of its layers' matrices, or of their inputs that were
            dropped.
        bytes: what its parameters take, in few bits where they are quantized for a while.
        text: how it continues the prompt, greedily; None without a tokenizer.
        fates: of the watched weights.
        skipped: what a dynamic plan dropped.
        seconds: that the "loss" and the "text" took.
    """

    name: str
    loss: float
    perplexity: float
    ratio: float
    sparsity: float
    bytes: float
    text: str | None
    fates: tuple[Fate, ...]
    skipped: Skipped | None
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        fates = [{**vars(fate), "coordinate": show(fate.coordinate)} for fate in self.fates]
        fields = {name: value for name, value in vars(self).items() if name != "skipped"}
        return {**fields, "fates": fates}


@dataclass(frozen=True)
class Comparison(Tabular):
    """What `compare` found: a table where it is printed, rows by name (`found["wanda"]`).

    Attributes:
        text: the name of what was read.
        tokens: of it that were scored.
        length: tokens of a window.
        prompt: that was continued; None without a tokenizer.
        found: the rows, that of the model that all are compared with first.
    """

    text: str
    tokens: int
    length: int
    prompt: str | None
    found: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.found if row.name == name)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.found)

    def columns(self) -> list[str]:
        """The table's head."""
        texts = [f"{self.prompt!r} goes on"] if self.prompt is not None else []
        return ["model", "perplexity", "ratio", "zero, %", "MB", *texts]

    def rows(self) -> Iterable[Sequence[Any]]:
        """A line for each model."""
        for row in self.found:
            texts = [repr(row.text)] if self.prompt is not None else []
            figures = [number(row.perplexity), number(row.ratio), f"{100 * row.sparsity:.1f}"]
            yield [row.name, *figures, f"{row.bytes / 1e6:.1f}", *texts]

    def caption(self) -> str:
        """What was measured on."""
        return f"{self.tokens} tokens of {self.text}, in windows of {self.length}"

    @property
    def fates(self) -> "Fates":
        """A table of the watched weights, with a column for each model."""
        return Fates(self.found)

    def __rich__(self) -> Group:
        """For `rich.print`: the watched weights below."""
        below: list[RenderableType] = ["", self.fates] if self.found[0].fates else []
        return Group(super().__rich__(), *below)

    def _repr_html_(self) -> str:
        """For notebooks: the watched weights below."""
        return super()._repr_html_() + (self.fates._repr_html_() if self.found[0].fates else "")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        fields = {name: getattr(self, name) for name in ("text", "tokens", "length", "prompt")}
        return {**fields, "models": [row.to_dict() for row in self.found]}


@dataclass(frozen=True)
class Fates(Tabular):
    """What became of the watched weights in each model."""

    found: tuple[Row, ...]

    def columns(self) -> list[str]:
        """The table's head."""
        return ["weight", *(row.name for row in self.found)]

    def rows(self) -> Iterable[Sequence[Any]]:
        """A line for each weight."""
        for same in zip(*(row.fates for row in self.found), strict=True):
            yield [show(same[0].coordinate), *map(in_a_word, same)]


def in_a_word(fate: Fate) -> str:
    """What became of a weight, in a word."""
    if fate.dropped is not None:
        return f"input dropped, {100 * fate.dropped:.1f} % of tokens"
    if fate.after is None:
        return "no column like its own"
    return number(fate.after)


def compare(
    model: LanguageModel,
    others: Mapping[str, Variant],
    text: Read,
    *,
    watch: Any = (),
    tokenizer: Any = None,
    prompt: str = PROMPT,
    max_new_tokens: int = 20,
    batch_size: int = 4,
    progress: bool = True,
) -> Comparison:
    """Losses, texts, sparsity, bytes and the fates of single weights, of a model and of what others it
    became.

    Args:
        model: what all are compared with, the row "dense".
        others: by name: models; plans of `plan_pruning` and `plan_quantization`, which the model runs under
            for a while; or a model and a context that it runs in, such as `packed_weights(model, "int8")`.
        text: that none of them was made from: a `Text`, or token ids (N,) in windows of 512.
        watch: single weights of the MLPs' output projections, as `find_super_weights` gives them.
        tokenizer: to continue `prompt` by `max_new_tokens` tokens, greedily; None: no texts.
        batch_size: windows at a time.
        progress: show a bar.

    Returns:
        A `Comparison`: a table where it is printed, rows by name, `to_dict()`;
        `plots_pruning.compared_models` of `supertf.lab` draws it.

    Raises:
        UserError: a loss that is no finite number, a weight outside the model, a plan for other matrices.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> held_out, calibration = read_tokens("library-docs", tokenizer, windows=(1, 2))
        >>> small = prune(model, "wanda", sparsity=0.5, calibration=calibration)
        >>> found = compare(model, {"wanda": small}, held_out, watch="11[507, 1229]")
        >>> found["wanda"].ratio > 1, found["wanda"].fates[0].removed
        (True, False)
    """
    text = as_text(model, text)
    rows: list[Row] = []
    bar = tqdm({"dense": model, **others}.items(), disable=not progress, leave=False)
    for name, variant in bar:
        bar.set_description(name)
        row = measure_variant(
            model,
            variant,
            text,
            name=name,
            base=rows[0].loss if rows else None,
            watch=watch,
            batch_size=batch_size,
            tokenizer=tokenizer,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
        )
        rows.append(row)
    tokens = len(text) - (text.bos_id is None)
    return Comparison(text.name, tokens, text.length, None if tokenizer is None else prompt, tuple(rows))


def measure_variant(
    model: LanguageModel,
    variant: Variant,
    text: Read,
    *,
    name: str = "variant",
    base: float | None = None,
    watch: Any = (),
    batch_size: int = 4,
    tokenizer: Any = None,
    prompt: str = PROMPT,
    max_new_tokens: int = 20,
) -> Row:
    """Measure one row of `compare`.

    Args:
        model, variant, text, watch, batch_size, tokenizer, prompt, max_new_tokens: as `compare` takes them.
        name: of the row.
        base: the model's own loss, in nats; None where this is it.

    Raises:
        UserError: as `compare` does.
    """
    text, watch = as_text(model, text), coordinates(watch)
    whole, watched = output_projections(model), untouched(model, watch)
    other, context = running(model, variant, watch)

    def loss(of: LanguageModel) -> float:
        return perplexity(of, text.ids, text.length, batch_size=batch_size, bos_id=text.bos_id).loss

    with context as found:
        started = time.perf_counter()
        value = measured(other, loss, f"of the {name} model")
        measuring = time.perf_counter() - started
        skipped = copy.deepcopy(found) if isinstance(found, Skipped) else None  # of this text alone
        zero = sparsity_of(other) if skipped is None else share(skipped)
        now = output_projections(other)
        fates = tuple(fate_of(fate, whole, now, skipped) for fate, _ in watched)
        started = time.perf_counter()
        said = None if tokenizer is None else continued(other, tokenizer, prompt, max_new_tokens)
        seconds = {"loss": measuring, "text": time.perf_counter() - started}
    times = ratio(value, value if base is None else base)
    size = bytes_of(other, variant)
    return Row(name, value, ratio(value, 0.0), times, zero, size, said, fates, skipped, seconds)


def as_text(model: LanguageModel, text: Read) -> Text:
    """Plain token ids as a text."""
    if isinstance(text, Text):
        return text
    ids, length = in_windows(model, text)
    return Text(torch.as_tensor(ids), length)


def running(
    model: LanguageModel, variant: Variant, watch: list[Coordinate]
) -> tuple[LanguageModel, AbstractContextManager[Any]]:
    """The model of a variant, and the context in which it runs."""
    if isinstance(variant, LanguageModel):
        return variant, contextlib.nullcontext()
    if isinstance(variant, tuple):
        return variant
    if isinstance(variant, Quantization):
        return model, quantized(model, variant)
    if isinstance(variant, Pruning | DynamicPruning):
        inside = [one for one in watch if isinstance(variant, Pruning) or is_cut(model, variant, one)]
        return model, pruned(model, variant, watch=inside)
    raise UserError(
        f"{type(variant).__name__} cannot be compared: give a model, a plan, or a model and a context"
    )


def is_cut(model: LanguageModel, plan: DynamicPruning, weight: Coordinate) -> bool:
    """Whether the plan drops inputs of a weight's matrix, channel by channel."""
    cut = plan.cuts.get(output_projections(model)[weight[0]].name)
    return plan.method == "gate" or (cut is not None and cut.axes is None)


def fate_of(fate: Fate, whole: list[Projection], now: list[Projection], skipped: Skipped | None) -> Fate:
    """What became of one weight, whose fate was to stay, in the variant that runs now."""
    layer, out, into = fate.coordinate
    if skipped is not None:
        dropped, tokens = skipped.watched.get(fate.coordinate, (0, 0))
        return replace(fate, dropped=dropped / tokens if tokens else None)
    old, after = whole[layer].weight, now[layer].weight
    if after.shape != old.shape:  # a smaller model: the weight is there if its whole column is, as it was
        there = bool((after == old[:, into, None].to(after)).all(0).any())
        return replace(fate, after=fate.before if there else None, removed=not there)
    value = after[out, into].item()
    return replace(fate, after=value, removed=value == 0 and fate.before != 0)


def sparsity_of(model: LanguageModel) -> float:
    """Share of the weights of the layers' matrices that are zero."""
    found = matrices(model).values()
    zeros = sum(int((matrix.weight == 0).sum()) for matrix in found)
    return zeros / sum(matrix.weight.numel() for matrix in found)


def share(skipped: Skipped) -> float:
    """Share of the inputs that were dropped."""
    return sum(skipped.dropped.values()) / max(1, sum(skipped.seen.values()))


def bytes_of(model: LanguageModel, variant: Variant) -> float:
    """What the parameters take; those that a plan rounds, in its few bits."""
    size: float = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if isinstance(variant, Quantization):
        size += variant.bytes - sum(value.numel() * value.element_size() for value in variant.values.values())
    return size


def continued(model: LanguageModel, tokenizer: Any, prompt: str, tokens: int) -> str:
    """How a model continues a prompt, greedily."""
    ids = tokenizer.encode_prompt(prompt)
    new = generate(model, ids, tokens, exclude=unused_ids(tokenizer, model.config.vocab_size))
    return tokenizer.decode([*ids, *new])[len(tokenizer.decode(ids)) :]
