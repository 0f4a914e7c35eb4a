"""Figures about pruning and quantizing: what stays, what it costs, what is gained."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from supertf.lab.plots import (
    BLUE,
    COLORS,
    GREY,
    label_rows,
    legend_beside,
    mark_chosen,
    new_figure,
    plain_ticks,
)

MARKERS = ("o", "s", "|", "x")


def compared_rows(
    rows: Mapping[str, Mapping[str, float]], xlabel: str, limit: float | None = None, height: float = 0.42
) -> Figure:
    """A row per case on a logarithmic axis, a marker for each of its values; a line at 1.

    Args:
        rows: by case, its values by name; the same name has the same marker in every row.
        xlabel: of the axis.
        limit: values beyond it are drawn at it, with the number beside them.
        height: of a row, in inches.
    """
    figure, (ax,) = new_figure(height=1.0 + height * len(rows))
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    for number, name in enumerate(names):
        at = [(row, values[name]) for row, values in enumerate(rows.values()) if name in values]
        drawn = [min(value, limit or value) for _, value in at]
        marker, color = MARKERS[number % len(MARKERS)], (*COLORS[:2], "black", COLORS[3])[number % 4]
        size = 110 if marker == "|" else 50
        ax.scatter(drawn, [row for row, _ in at], marker=marker, s=size, color=color, label=name, alpha=0.8)
        for (row, value), x in zip(at, drawn, strict=True):
            if value > x:
                shown = f"{value:,.0f} >"
                ax.annotate(shown, (x, row), (-6, 0), textcoords="offset points", ha="right", va="center")
    ax.axvline(1, color=GREY, linewidth=1)
    ax.set(xscale="log", xlabel=xlabel)
    label_rows(ax, list(rows))
    plain_ticks(ax)
    legend_beside(ax, fontsize=9)
    return figure


def compared_models(models: Sequence[Mapping[str, Any]]) -> Figure:
    """Models side by side: times the perplexity of the first, on a logarithmic axis, and megabytes.

    Args:
        models: with name, ratio, bytes and sparsity, as `Comparison.to_dict()["models"]` has them.
    """
    figure, axes = new_figure(height=1.0 + 0.42 * len(models), columns=2)
    rows, colors = range(len(models)), [GREY, *[BLUE] * (len(models) - 1)]
    axes[0].scatter([one["ratio"] for one in models], rows, s=60, color=colors)
    axes[0].axvline(1, color=GREY, linewidth=1)
    axes[0].set(xscale="log", xlabel="times the perplexity")
    plain_ticks(axes[0])
    axes[1].barh(rows, [one["bytes"] / 1e6 for one in models], color=colors, height=0.5)
    axes[1].set(xlabel="MB of weights")
    for row, one in enumerate(models):
        if one["sparsity"] > 0.001:
            zeros = f"{one['sparsity']:.0%} zero"
            axes[1].annotate(zeros, (0, row), (6, 0), textcoords="offset points", va="center", color="white")
    for ax in axes:
        label_rows(ax, [one["name"] for one in models])
    return figure


def speed_and_quality(
    groups: Mapping[str, Sequence[tuple[float, float, bool, str]]], worst: float = 4.0
) -> Figure:
    """Perplexity against speed, both as multiples of the dense model's; the dense model is at (1, 1).

    Args:
        groups: method to its points (speed, perplexity, whether the super weights stay, label); a cross
            marks a point whose super weights are gone.
        worst: points beyond it sit on the upper edge.
    """
    figure, (ax,) = new_figure(height=3.8)
    for number, (name, points) in enumerate(groups.items()):
        color, shape = COLORS[number % len(COLORS)], "os^"[number // len(COLORS) % 3]
        for stays in (True, False):
            chosen = [(speed, min(cost, worst)) for speed, cost, kept, _ in points if kept is stays]
            if chosen:
                label = name if stays or all(not kept for *_, kept, _ in points) else None
                marker = {"marker": shape if stays else "x"}
                ax.scatter(*zip(*chosen, strict=True), s=55, color=color, label=label, alpha=0.8, **marker)
        for speed, cost, _, text in points:
            if cost <= worst:  # beyond it labels would lie on one another
                beside = (5, 3 if number % 2 else -9)  # neighbours are often of two methods
                ax.annotate(text, (speed, cost), beside, textcoords="offset points", fontsize=7, color=color)
    for place in (ax.axhline, ax.axvline):
        place(1, color=GREY, linewidth=1)
    ax.set(yscale="log", ylim=(0.85, worst * 1.1), ylabel="perplexity / dense")
    ax.set_xlabel("tokens per second / dense (generation, one token at a time)")
    plain_ticks(ax, "y")
    legend_beside(ax, fontsize=8)
    return figure


def cost_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    chosen: tuple[float, float],
    worst: float = 100.0,
) -> Figure:
    """What a method costs, with the chosen point marked.

    Args:
        curves: by name, x and the perplexity's multiple.
        chosen: the point, likewise.
        worst: values beyond it sit on the upper edge.
    """
    figure, (ax,) = new_figure(width=6, left=0.1, right=0.99, bottom=0.15, top=0.97)
    for (name, (x, y)), color in zip(curves.items(), (GREY, BLUE, *COLORS[2:]), strict=False):
        ax.plot(x, [min(value, worst) for value in y], color=color, marker="o", markersize=4, label=name)
    at, cost = chosen
    mark_chosen(ax, at, min(cost, worst), f"{cost:.2f}" if cost < 100 else f"{cost:,.0f}", clip_on=False)
    ax.axhline(1, color=GREY, linewidth=1)
    ax.set(yscale="log", ylim=(0.9, worst * 4), xlabel="share", ylabel="perplexity / dense")
    plain_ticks(ax, "y")
    ax.locator_params(axis="x", nbins=4)
    if curves:
        ax.legend(frameon=False, fontsize=8, loc="upper left")
    return figure
