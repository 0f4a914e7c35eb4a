"""Figures about quantization: levels of blocks, where blocks lie, weights held out, schemes side by side."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from supertf.lab.plots import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    label_rows,
    legend_of_all,
    new_figure,
    plain_ticks,
)

Point = tuple[float, float]  # bits per weight and perplexity


def level_panels(
    panels: Mapping[str, tuple[Tensor, Tensor]], what: str = "weight", xlabel: str = "place in the block"
) -> Figure:
    """A panel per block: its weights before and after rounding, (size,) each, and lines for its levels."""
    figure, axes = new_figure(height=3.1, columns=len(panels))
    for ax, (title, pair) in zip(axes, panels.items(), strict=True):
        before, after = (one.detach().float().cpu().numpy() for one in pair)
        for level in np.unique(after):
            ax.axhline(level, color=GREY, linewidth=0.6)
        ax.vlines(range(len(before)), before, after, color=ORANGE, linewidth=1)
        ax.plot(before, "o", color=BLUE, markersize=4, label=what)
        ax.plot(after, "_", color=ORANGE, markersize=7, markeredgewidth=2, label="read back")
        ax.grid(False)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(xlabel)
    legend_of_all(figure, axes[:1], fontsize=9)
    return figure


def block_maps(panels: Mapping[str, Tensor], weight: tuple[int, int]) -> Figure:
    """Which weights (out, in) share the block of one, marked: a map per way to cut a matrix into blocks."""
    figure, axes = new_figure(height=2.6, columns=len(panels))
    for ax, (title, inside) in zip(axes, panels.items(), strict=True):
        shown = inside.detach().float().cpu().numpy()
        ax.imshow(shown, cmap="Blues", vmin=0, vmax=1.3, aspect="auto", interpolation="nearest")
        ax.plot(weight[1], weight[0], "o", color=RED, markersize=4)
        ax.grid(False)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("in")
    axes[0].set_ylabel("out")
    return figure


def scheme_map(
    points: Mapping[str, Point],
    chosen: str,
    dense: float,
    fates: Mapping[str, tuple[float, float]],
    title: str = "weights",
) -> Figure:
    """All schemes as dots, bits per weight against perplexity, the chosen one marked; and its weights' fates.

    Args:
        points: bits per weight and perplexity by scheme.
        chosen: the scheme to mark.
        dense: the perplexity of the model as it is, a line.
        fates: by weight, its value before and after.
        title: of the fates.
    """
    places = {"left": 0.12, "right": 0.98, "bottom": 0.15, "top": 0.91, "wspace": 0.38}
    figure, (ax, side) = new_figure(columns=2, width_ratios=(3, 2), **places)
    ax.scatter(*zip(*points.values(), strict=True), s=22, color=BLUE, alpha=0.4)
    ax.plot(*points[chosen], "o", markersize=12, color=ORANGE)
    ax.axhline(dense, color=GREY, linestyle="--", linewidth=1)
    ax.set(yscale="log", xlabel="bits per weight", ylabel="perplexity")
    plain_ticks(ax, "y")
    before, after = zip(*fates.values(), strict=True) if fates else ((), ())
    rows = range(len(fates))
    side.hlines(rows, before, after, color=GREY, linewidth=2, zorder=1)
    side.plot(before, rows, "o", color=BLUE, markersize=6, label="before")
    side.plot(after, rows, "|", color=ORANGE, markersize=14, markeredgewidth=3, label="after")
    side.axvline(0, color=GREY, linewidth=1)
    most = 1.25 * max(map(abs, before), default=1.0)  # the same for every scheme
    side.set(xlim=(-most, most), xlabel=title)
    label_rows(side, list(fates))
    side.legend(frameon=False, fontsize=8, loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    for one in (ax, side):
        one.locator_params(axis="x", nbins=4)
    return figure
