"""Figures about pruning and quantizing: what stays, what it costs, what is gained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from supertf.lab.plots import (
    BLUE,
    COLORS,
    GREY,
    label_rows,
    legend_beside,
    new_figure,
    plain_ticks,
)


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


def speed_and_quality(groups: Mapping[str, Sequence[tuple[float, float, str]]], worst: float = 4.0) -> Figure:
    """Perplexity against speed, both as multiples of the dense model's; the dense model is at (1, 1).

    Args:
        groups: method to its points (speed, perplexity, label).
        worst: points beyond it sit on the upper edge.
    """
    figure, (ax,) = new_figure(height=3.8)
    for number, (name, points) in enumerate(groups.items()):
        color, shape = COLORS[number % len(COLORS)], "os^"[number // len(COLORS) % 3]
        at = [(speed, min(cost, worst)) for speed, cost, _ in points]
        ax.scatter(*zip(*at, strict=True), s=55, color=color, label=name, alpha=0.8, marker=shape)
        for speed, cost, text in points:
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


def cut_histogram(sizes: np.ndarray, threshold: float, title: str, xlabel: str) -> Figure:
    """Magnitudes by their size, on a logarithmic axis; those below the threshold are dark.

    Args:
        sizes: magnitudes; zeros are counted with the smallest.
        threshold: where the cut is; 0 cuts nothing.
        title: of one or two lines.
        xlabel: of the axis.
    """
    figure, (ax,) = new_figure(width=6, height=3, left=0.12, right=0.98, bottom=0.18, top=0.82)
    ax.set_title(title, loc="left", fontsize=10, parse_math=False)
    positive = sizes[sizes > 0]
    edges = np.geomspace(max(np.quantile(positive, 0.001), 1e-6), positive.max(), 61)
    for chosen, color, label in (
        (sizes < threshold, BLUE, "dropped"),
        (sizes >= threshold, GREY, "kept"),
    ):
        counts, _ = np.histogram(np.maximum(sizes[chosen], edges[0]), edges)
        shares = counts / len(sizes)
        ax.bar(edges[:-1], shares, np.diff(edges), align="edge", color=color, label=label)
    if threshold:
        ax.axvline(threshold, color="black", linewidth=1)
    ax.set(xscale="log", xlabel=xlabel, ylabel="share of them")
    plain_ticks(ax)
    ax.legend(frameon=False, fontsize=8)
    return figure
