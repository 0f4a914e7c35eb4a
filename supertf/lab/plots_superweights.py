"""Figures about super weights: spikes by layer, a weight's dial, before and after, what removals cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor

from supertf.lab.plots import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    colors_of,
    label_rows,
    legend_beside,
    legend_of_all,
    mark_chosen,
    new_figure,
    plain_ticks,
)
from supertf.model import Coordinate
from supertf.superweights import Spike


def spike_bars(spikes: Sequence[Spike], threshold: float = 50.0) -> Figure:
    """Largest input and output of every layer's down projection, on a logarithmic scale.

    Where a norm follows the projection, what the residual stream takes of the output stands in its place.
    Layers where both pass the threshold are coloured and labelled with the channel.

    Args:
        spikes: one per layer.
        threshold: a dashed line.
    """
    sides = ("input", "added" if any(spike.added != spike.output for spike in spikes) else "output")
    figure, axes = new_figure(columns=2, left=0.12, right=0.99, bottom=0.15, top=0.9, wspace=0.25)
    layers = [spike.layer for spike in spikes]
    both = [spike.size > threshold for spike in spikes]
    colors = [ORANGE if hit else BLUE for hit in both]
    for ax, side in zip(axes, sides, strict=True):
        peaks = [getattr(spike, side) for spike in spikes]
        heights = [abs(peak.value) for peak in peaks]
        ax.bar(layers, heights, color=colors)
        ax.axhline(threshold, color=GREY, linestyle="--", linewidth=1)
        for i in np.flatnonzero(both).tolist():
            ax.annotate(
                f"{peaks[i].channel}",
                (layers[i], heights[i]),
                (0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        ax.set(yscale="log", xlabel="layer", ylabel=f"largest |{side}|", title=f"down projection, {side}")
        low, high = ax.get_ylim()
        ax.set_ylim(top=high * (high / low) ** 0.1)  # room for the labels
        plain_ticks(ax, "y")
    return figure


def mechanism(
    inputs: Tensor,
    outputs: Tensor,
    streams: Mapping[str, Sequence[float]],
    weight: Coordinate,
    most: int = 12,
) -> Figure:
    """What a super weight makes: the largest inputs and outputs of its matrix at one token, and its channel.

    Args:
        inputs, outputs: magnitudes before and after the down projection, (in,) and (out,).
        streams: by state, the channel of the residual stream behind every block.
        weight: (layer, out, in).
        most: how many inputs and outputs are shown.
    """
    layer, out, into = weight
    figure, axes = new_figure(height=3.0, columns=3, left=0.08, right=0.99, bottom=0.24, top=0.88, wspace=0.5)
    sides = ((inputs, into, "what goes into the matrix"), (outputs, out, "what comes out"))
    for ax, (values, chosen, what) in zip(axes, sides, strict=False):
        heights, channels = values.float().cpu().topk(min(most, len(values)))
        names = channels.tolist()
        ax.bar(
            range(len(names)), heights.tolist(), color=[ORANGE if name == chosen else BLUE for name in names]
        )
        ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        ax.set(xlabel="channel", ylabel="magnitude", title=f"layer {layer}, {what}")
        ax.title.set_fontsize(9)
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax = axes[2]
    for (state, heights_behind), color in zip(streams.items(), (BLUE, ORANGE), strict=False):
        ax.plot(heights_behind, color=color, marker=".", markersize=4, label=state)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set(xlabel="behind layer", ylabel=f"channel {out}", title="the residual stream at that token")
    ax.title.set_fontsize(9)
    ax.legend(frameon=False, fontsize=8)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def scale_curve(
    factors: Sequence[float],
    perplexities: Sequence[float],
    chosen: float,
    text: str,
    words: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Perplexity against the factor on one weight, the chosen factor marked, and its text above.

    Args:
        factors, perplexities: the curve.
        chosen: one of the factors.
        text: that the model wrote at it.
        words: in a second panel, the probability of each word at every factor.
    """
    places = {"left": 0.08, "right": 0.99, "bottom": 0.14, "top": 0.89, "wspace": 0.2}
    figure, axes = new_figure(height=3.6, columns=1 if words is None else 2, **places)
    ax, index = axes[0], list(factors).index(chosen)
    ax.plot(factors, perplexities, color=BLUE, marker="o", markersize=4)
    mark_chosen(ax, chosen, perplexities[index], f"{perplexities[index]:.1f}")
    ax.set(yscale="log", xlabel="factor on the weight", ylabel="perplexity")
    ax.margins(x=0.08, y=0.15)
    plain_ticks(ax, "y")
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


def before_after_rows(rows: Mapping[str, Sequence[float]], names: Sequence[str], xlabel: str) -> Figure:
    """A row per quantity on a logarithmic axis: a dot before and one after, joined, and a third to compare.

    Args:
        rows: name to the values, in the order of `names`.
        names: of the two or three values of a row.
        xlabel: of the axis.
    """
    figure, (ax,) = new_figure(height=0.9 + 0.28 * len(rows))
    columns, at = list(zip(*rows.values(), strict=True)), range(len(rows))
    ax.hlines(at, *columns[:2], color=GREY, linewidth=2, alpha=0.6)
    looks = ((BLUE, "o"), (ORANGE, "o"), ("black", "|"))[: len(names)]
    for values, (color, marker), name in zip(columns, looks, names, strict=True):
        ax.scatter(values, at, color=color, marker=marker, s=45, label=name, zorder=3)
    ax.set(xscale="log", xlabel=xlabel)
    label_rows(ax, list(rows))
    plain_ticks(ax)
    legend_beside(ax, fontsize=9)
    return figure


Dots = tuple[Sequence[float], Sequence[float]]  # x, and the perplexity's multiple
NAMED = 1.5  # times the perplexity from which on a dot of `harm_dots` is named


def harm_dots(
    panels: Mapping[str, Mapping[str, Dots]], names: Mapping[str, Sequence[str]] | None = None
) -> Figure:
    """What changes of a model cost, as a multiple of its perplexity, against something about each change.

    Args:
        panels: name of the x axis to groups of dots; a group has the same colour in every panel.
        names: by group, what each of its dots is; those that cost `NAMED` times and more say so.
    """
    figure, axes = new_figure(height=3.3, columns=len(panels))
    colors = colors_of(name for groups in panels.values() for name in groups)
    for ax, (xlabel, groups) in zip(axes, panels.items(), strict=True):
        for name, (x, multiples) in groups.items():
            ax.scatter(x, multiples, s=36, alpha=0.6, color=colors[name], label=name)
            for what, *place in zip((names or {}).get(name, ()), x, multiples, strict=False):
                if place[1] >= NAMED:
                    ax.annotate(what, place, (6, 0), textcoords="offset points", va="center", fontsize=7)
        ax.axhline(1, color=GREY, linewidth=1)
        ax.set(xscale="log", yscale="log", xlabel=xlabel)
        plain_ticks(ax)
        plain_ticks(ax, "y")
    axes[0].set_ylabel("perplexity, as a multiple")
    legend_of_all(figure, axes, fontsize=9)
    return figure
