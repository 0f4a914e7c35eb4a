"""Figures about super weights: spikes by layer, a weight's dial, before and after, spikes against harm."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from supertf.plots import BLUE, COLORS, GREY, ORANGE, RED, new_figure
from supertf.projections import Coordinate, show
from supertf.superweights import Spike


def spike_bars(
    spikes: Sequence[Spike],
    threshold: float = 50.0,
    sides: Sequence[str] = ("input", "output"),
    chosen: Coordinate | None = None,
) -> Figure:
    """Largest input and output of every layer's down projection, on a logarithmic scale.

    Layers where both pass the threshold are coloured and labelled: with the channel, or, where one side has
    the figure for itself, with the weight's coordinate. The bar of the chosen weight is red.
    """
    figure, axes = new_figure(columns=len(sides))
    layers = [spike.layer for spike in spikes]
    both = [spike.size > threshold for spike in spikes]
    colors = [
        RED if spike.coordinate == chosen else ORANGE if hit else BLUE
        for spike, hit in zip(spikes, both, strict=True)
    ]
    for ax, side in zip(axes, sides, strict=True):
        peaks = [getattr(spike, side) for spike in spikes]
        heights = [abs(peak.value) for peak in peaks]
        ax.bar(layers, heights, color=colors)
        ax.axhline(threshold, color=GREY, linestyle="--", linewidth=1)
        for i in np.flatnonzero(both):
            alone = len(sides) == 1
            ax.annotate(
                show(spikes[i].coordinate) if alone else f"{peaks[i].channel}",
                (layers[i], heights[i]),
                (0, 3),
                textcoords="offset points",
                ha="center",
                rotation=90 if alone else 0,
                fontsize=8 if alone else 7,
            )
        ax.set(yscale="log", xlabel="layer", ylabel=f"largest |{side}|", title=f"down projection, {side}")
        ax.margins(y=0.35 if len(sides) == 1 else 0.15)
    return figure


def scale_curve(
    factors: Sequence[float],
    perplexities: Sequence[float],
    chosen: float,
    text: str,
    words: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Perplexity against the factor on one weight, the chosen factor marked, and its text above.

    words: in a second panel, the probability of each word at every factor.
    """
    figure, axes = new_figure(height=3.6, columns=1 if words is None else 2)
    ax, index = axes[0], list(factors).index(chosen)
    ax.plot(factors, perplexities, color=BLUE, marker="o", markersize=4)
    ax.plot(chosen, perplexities[index], "o", markersize=12, color=ORANGE)
    ax.annotate(
        f"{perplexities[index]:.1f}",
        (chosen, perplexities[index]),
        (10, 6),
        textcoords="offset points",
        color=ORANGE,
    )
    ax.set(yscale="log", xlabel="factor on the weight", ylabel="perplexity")
    ax.margins(x=0.08, y=0.15)
    plain_numbers(ax, "y")
    if words is not None:
        for color, (word, values) in zip(COLORS * 9, words.items(), strict=False):
            axes[1].plot(factors, values, color=color, marker="o", markersize=4, label=repr(word))
        axes[1].axvline(chosen, color=ORANGE, linewidth=6, alpha=0.25)
        axes[1].set(xlabel="factor on the weight", ylabel="probability of the next token", ylim=(0, None))
        axes[1].legend(frameon=False, fontsize=9)
    shown = " ".join(text.split()).replace("$", r"\$")  # a dollar would start a formula
    title = {"fontsize": 9, "family": "monospace"}
    if words is None:
        ax.set_title(f"× {chosen:g}: {shown[:100]}", loc="left", **title)
    else:
        figure.suptitle(f"× {chosen:g}: {shown[:100]}", x=0.01, ha="left", **title)
    return figure


def before_after_rows(rows: Mapping[str, tuple[float, float]], names: tuple[str, str], xlabel: str) -> Figure:
    """A row per quantity, with a dot before and one after, on a logarithmic axis; `names` of the two."""
    figure, (ax,) = new_figure(height=0.9 + 0.28 * len(rows))
    before, after = zip(*rows.values(), strict=True)
    at = range(len(rows))
    ax.hlines(at, before, after, color=GREY, linewidth=2, alpha=0.6)
    for values, color, name in zip((before, after), (BLUE, ORANGE), names, strict=True):
        ax.scatter(values, at, color=color, s=45, label=name, zorder=3)
    ax.set(xscale="log", xlabel=xlabel, yticks=at, yticklabels=list(rows), ylim=(len(rows) - 0.4, -0.6))
    plain_numbers(ax, "x")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def spike_harm_dots(groups: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Weights as dots: how far their spike exceeds the median channel, and the perplexity's multiple
    without them. groups: name to (ratios, multiples)."""
    figure, (ax,) = new_figure(height=3.3)
    for color, (name, (ratios, multiples)) in zip(COLORS * 9, groups.items(), strict=False):
        ax.scatter(ratios, multiples, s=36, alpha=0.6, color=color, label=name)
    ax.axhline(1, color=GREY, linewidth=1)
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="spike: largest activation over the median channel's",
        ylabel="harm: perplexity without, as a multiple",
    )
    plain_numbers(ax, "x")
    plain_numbers(ax, "y")
    ax.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plain_numbers(ax: Axes, axis: str) -> None:
    """Label a logarithmic axis with plain numbers, between the powers of ten only where it spans few."""
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    ticks = ax.xaxis if axis == "x" else ax.yaxis
    ticks.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
    few = high / low < 30
    ticks.set_minor_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}" if few else ""))
