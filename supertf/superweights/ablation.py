"""Prove a super weight: remove it beside controls that are as large, as random or as near.

Yu et al. 2024 (arXiv 2411.07191), Table 1, compares one weight with thousands of larger ones. A spike alone
proves nothing: some weights spike and are inert, and a large weight may matter little.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.analysis import Interval, paired_difference, perplexity
from supertf.data import Text
from supertf.device import check_finite
from supertf.errors import UserError
from supertf.model import Coordinate, LanguageModel, check_coordinate, output_projections, show
from supertf.superweights.edit import check_editable, coordinates, scaled_weights
from supertf.tables import Tabular, number

Loss = Callable[[LanguageModel], float]  # nats per token, the same for the same model
Measure: TypeAlias = Text | Sequence[int] | Tensor | Loss  # what a model is measured on
SUPER = 2.0  # at least this many times the perplexity
HARMFUL = 1.01


def text_loss(
    ids: Sequence[int] | Tensor, length: int = 256, batch_size: int = 8, bos_id: int | None = None
) -> Loss:
    """A measure of models: mean loss in nats per token on one text's windows.

    Args:
        ids: token ids of the text, (N,).
        length, batch_size, bos_id: as `supertf.perplexity` takes them.

    Returns:
        A function of a model.
    """
    return lambda model: perplexity(model, ids, length, batch_size=batch_size, bos_id=bos_id).loss


def losses_on(text: Measure | Sequence[Measure]) -> list[Loss]:
    """The loss on a text, or on each of several."""
    several: list[Any] = [text]
    if isinstance(text, Sequence) and len(text) and not isinstance(text[0], Integral):  # no token ids
        several = list(text)
    return [one if callable(one) else text_loss_of(one) for one in several]


def text_loss_of(text: Text | Sequence[int] | Tensor) -> Loss:
    """`text_loss` of a `Text` as it is to be read, or of plain token ids."""
    return text_loss(text.ids, text.length, bos_id=text.bos_id) if isinstance(text, Text) else text_loss(text)


@dataclass(frozen=True)
class Removal:
    """Weights removed together, on one or several texts.

    Attributes:
        label: says which, for people.
        coordinates: of the weights, (layer, out, in).
        losses: without them, nats per token, text by text.
        bases: with them.
    """

    label: str
    coordinates: tuple[Coordinate, ...]
    losses: tuple[float, ...]
    bases: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean over the texts, without the weights."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def ratios(self) -> list[float]:
        """Perplexity without the weights over perplexity with them, text by text; 1 is no effect."""
        return list(map(ratio, self.losses, self.bases))

    @property
    def ratio(self) -> float:
        """The geometric mean of `ratios`."""
        return ratio(self.loss, math.fsum(self.bases) / len(self.bases))

    @property
    def interval(self) -> Interval | None:
        """The ratio with its 95 % t-interval over texts, made of logarithms; None with a single text."""
        if len(self.losses) < 2:
            return None
        logs = paired_difference(self.losses, self.bases)
        return Interval(self.ratio, ratio(logs.low, 0.0), ratio(logs.high, 0.0), logs.n)

    @property
    def at_least(self) -> float:
        """The ratio's lower end; with a single text, where nothing is known of others, the ratio."""
        return self.ratio if self.interval is None else self.interval.low


def removal(
    model: LanguageModel,
    coordinates: Sequence[Coordinate],
    loss: Loss | Sequence[Loss],
    base: float | Sequence[float],
    label: str | None = None,
) -> Removal:
    """Remove weights together, measure, and put them back.

    Args:
        model: whose weights they are.
        coordinates: of the weights, (layer, out, in).
        loss: a measure of the model, such as `text_loss(ids)`, or several.
        base: the loss of the model as it is, one for each.
        label: of the result; default the coordinates.

    Raises:
        UserError: what `scaled_weights` refuses, and a loss that is not finite.
    """
    losses = [loss] if callable(loss) else loss
    bases = base if isinstance(base, Sequence) else [base]
    with scaled_weights(model, coordinates):
        label = label or ", ".join(map(show, coordinates))
        values = [measured(model, one, f"without {label}") for one in losses]
    return Removal(label, tuple(coordinates), tuple(values), tuple(bases))


def measured(model: LanguageModel, loss: Loss, state: str = "of the unchanged model") -> float:
    """loss(model); `UserError` when it is not a number, which no ratio could compare."""
    value = loss(model)
    check_finite(value, f"the loss {state}")
    return value


def ratio(loss: float, base: float) -> float:
    """How many times the perplexity, from two losses in nats."""
    return math.exp(min(loss - base, 700.0))  # exp(710) is beyond a float


@dataclass(frozen=True)
class Ablation(Tabular):
    """One weight removed, beside its controls; prints itself as a table.

    Attributes:
        coordinate: of the weight, (layer, out, in).
        weight: its value.
        candidate: the removal of the weight alone.
        random: of random weights of the same matrix, together.
        each: of the same random weights one by one, if asked for.
        largest: of the largest weights of the model's output projections that write to other channels,
            together.
        row_largest: of the largest other weight of the candidate's row.
        row: of the whole row with the candidate. It and `row_largest` may hold further super weights, so the
            verdict leaves them out.
    """

    coordinate: Coordinate
    weight: float
    candidate: Removal
    random: Removal
    each: list[Removal]
    largest: Removal
    row_largest: Removal
    row: Removal

    @property
    def base(self) -> float:
        """The loss of the whole model, nats per token, mean over the texts."""
        return math.fsum(self.candidate.bases) / len(self.candidate.bases)

    @property
    def verdict(self) -> str:
        """What the weight is, on these texts: the lower end of its ratio's interval decides.

        "super": removing it at least doubles the perplexity, and does more than removing all the random
        controls, or all the largest. "harmful": the same with 1 % in place of twice. Else "inert".
        """
        lowest = self.candidate.at_least
        above = lowest > max(self.random.ratio, self.largest.ratio)
        if not above or lowest < HARMFUL:
            return "inert"
        return "super" if lowest >= SUPER else "harmful"

    def columns(self) -> list[str]:
        """The table's head."""
        return ["removed", "perplexity", "ratio", *(["95 %"] if self.candidate.interval else [])]

    def rows(self) -> Iterable[Sequence[Any]]:
        """Nothing, the weight, and every control."""
        controls = (self.random, self.largest, self.row_largest, self.row, *self.each)
        yield "nothing", number(ratio(self.base, 0.0)), "1", *([""] if self.candidate.interval else [])
        for one in (self.candidate, *controls):
            found = one.interval
            ends = [f"{number(found.low)} to {number(found.high)}"] if found else []
            yield one.label, number(ratio(one.loss, 0.0)), number(one.ratio), *ends

    def caption(self) -> str:
        """The verdict."""
        times, found = f"{self.candidate.ratio:.4g} times the perplexity", self.candidate.interval
        texts = f" ({found.low:.4g} to {found.high:.4g}, {found.n} texts)" if found else ", on one text"
        return f"{show(self.coordinate)} = {number(self.weight)} is {self.verdict}: {times}{texts}"


@torch.no_grad()
def ablate(
    model: LanguageModel,
    weight: Any,
    text: Measure | Sequence[Measure],
    controls: int = 20,
    seed: int = 0,
    each: bool = False,
    progress: bool = True,
) -> Ablation:
    """Remove one weight, then its controls, and measure each time; the model comes back as it was.

    The ratio holds for these texts and this length of windows: where the damage sits at a window's beginning,
    short windows show more of it. One text says nothing of others: give several, such as `held_out_texts`.

    Args:
        model: whose weight it is.
        weight: a spike, (layer, out, in), or text such as "11[507, 1229]".
        text: that the loss is measured on, or several: a `Text`, token ids (N,) in windows of 256, or a
            function of the model that gives its loss in nats, such as `text_loss(ids)`.
        controls: how many random weights of the same matrix, and how many of the largest of the model.
        seed: of the random ones.
        each: also remove the random ones one by one, to see their spread.
        progress: show a bar.

    Returns:
        An `Ablation`; a table where it is printed. Its `verdict` is "super" where the ratio of perplexities
        is at least 2 and above that of the random and of the largest controls, "harmful" where it is at least
        1.01 and above them, else "inert". Over several texts the lower end of its 95 % interval has to pass.

    Raises:
        UserError: a weight outside the model, too few weights for the controls, a matrix that cannot be
            edited, and a loss that is not finite.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> from supertf.data import held_out_texts
        >>> texts = held_out_texts("prose", tokenizer, count=3, windows=1, length=256)
        >>> found = ablate(model, "11[507, 1229]", texts, controls=5, progress=False)
        >>> found.verdict, found.candidate.ratio > 2
        ('super', True)
    """
    (coordinate,) = coordinates(weight)
    losses = losses_on(text)
    layer, out, into = coordinate
    projections = output_projections(model)
    check_coordinate(projections, coordinate)
    check_editable(model, projections)
    chosen = random_weights(model, coordinate, controls, seed)
    rival = largest_of_row(model, coordinate)
    steps: list[tuple[list[Coordinate], str | None]] = [
        ([coordinate], show(coordinate)),
        (chosen, f"{controls} random weights of layer {layer}"),
        (largest_elsewhere(model, out, controls), f"{controls} largest weights outside row {out}"),
        ([rival], f"{show(rival)}, the largest other of the row"),
        (whole_row(model, coordinate), f"row {layer}[{out}, :]"),
    ]
    steps += [([one], None) for one in chosen] if each else []
    bases = [measured(model, loss) for loss in losses]
    bar = tqdm(steps, desc=f"removing {show(coordinate)} and controls", disable=not progress, leave=False)
    candidate, random, largest, row_largest, row, *single = (
        removal(model, removed, losses, bases, label) for removed, label in bar
    )
    value = float(projections[layer].row(out)[into])
    return Ablation(coordinate, value, candidate, random, single, largest, row_largest, row)


def random_weights(
    model: LanguageModel, coordinate: Coordinate, count: int, seed: int = 0
) -> list[Coordinate]:
    """`count` different weights of a candidate's matrix, drawn evenly and without the candidate.

    Raises:
        UserError: the matrix has fewer than `count` others.
    """
    layer, out, into = coordinate
    rows, columns = output_projections(model)[layer].weight.shape
    if not 1 <= count < rows * columns:
        raise UserError(f"{count} random controls asked for, expected 1 to {rows * columns - 1}")
    generator = torch.Generator().manual_seed(seed)
    found: dict[int, None] = {}  # in the order drawn
    while len(found) < count:
        index = int(torch.randint(rows * columns, (), generator=generator))
        if index != out * columns + into:
            found[index] = None
    return [(layer, *divmod(index, columns)) for index in found]


def random_beside(model: LanguageModel, weights: Sequence[Coordinate], seed: int = 0) -> list[Coordinate]:
    """A random weight of each weight's matrix, none of them itself: the control of a set; see
    `random_weights`."""
    return [random_weights(model, weight, 1, seed + number)[0] for number, weight in enumerate(weights)]


@torch.no_grad()
def largest_elsewhere(model: LanguageModel, out: int, count: int) -> list[Coordinate]:
    """The largest weights, by magnitude, of all output projections but those that write to channel `out`.

    Row `out` is left out in every layer: the rows feed the same channel of the residual stream.

    Raises:
        UserError: there are fewer than `count`.
    """
    found: list[tuple[float, Coordinate]] = []
    for projection in output_projections(model):
        sizes = projection.weight.detach().abs().float()  # (out, in), a copy
        sizes[out] = -1.0
        columns = sizes.shape[1]
        values, indices = sizes.flatten().topk(min(count, sizes.numel() - columns))
        found += [
            (value, (projection.layer, *divmod(index, columns)))
            for value, index in zip(values.tolist(), indices.tolist(), strict=True)
        ]
    if not 1 <= count <= len(found):
        raise UserError(f"{count} largest controls asked for, expected 1 to {len(found)}")
    return [coordinate for _, coordinate in sorted(found, key=lambda pair: -pair[0])[:count]]


@torch.no_grad()
def largest_of_row(model: LanguageModel, coordinate: Coordinate) -> Coordinate:
    """The largest other weight, by magnitude, of the candidate's row."""
    layer, out, into = coordinate
    sizes = output_projections(model)[layer].row(out).abs().float()
    sizes[into] = -1.0
    return layer, out, int(sizes.argmax())


def whole_row(model: LanguageModel, coordinate: Coordinate) -> list[Coordinate]:
    """Every weight of the candidate's row, the candidate included."""
    layer, out, _ = coordinate
    return [(layer, out, into) for into in range(output_projections(model)[layer].weight.shape[1])]
