"""Figures of the notebooks. Every function returns a new matplotlib `Figure` and shows nothing."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor

from supertf.analysis import Interval

BLUE, ORANGE, GREY, RED, GREEN = "#3366aa", "#dd7722", "#9aa0a6", "#b3261e", "#2e7d32"
COLORS = (BLUE, ORANGE, GREEN, RED, "#7b4fa3", "black", "#b59a00")


def new_figure(
    width: float = 9, height: float = 3.2, columns: int = 1, **placed: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and an array of its axes, with the house style: no box, light grid.

    Args:
        width, height: in inches.
        columns: axes side by side.
        placed: left, right, bottom, top, wspace and width_ratios, as `GridSpec` takes them, for figures that
            a slider draws: without them matplotlib lays out by drawing everything once more.
    """
    figure, axes = plt.subplots(
        1,
        columns,
        figsize=(width, height),
        dpi=90,
        squeeze=False,
        layout=None if placed else "constrained",
        gridspec_kw=placed,
    )
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, axes[0]


def plain_ticks(ax: Axes, axis: str = "x") -> None:
    """Label a logarithmic axis in plain numbers such as 10, 100, 1,000, with others between for small spans.

    There are no unlabelled ticks: each is drawn and laid out like a labelled one, and sliders wait for it.
    """
    low, high = ax.get_xlim() if axis == "x" else ax.get_ylim()
    ticks = ax.xaxis if axis == "x" else ax.yaxis
    if high / low < 3:
        ticks.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    else:
        subs = (1, 2, 3, 5) if high / low < 30 else (1, 2, 5) if high / low < 200 else (1,)
        ticks.set_major_locator(LogLocator(subs=subs, numticks=20))
    ticks.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:,.15g}"))
    ticks.set_minor_locator(NullLocator())


def plain_log_ticks(ax: Axes, axis: Mapping[str, Any]) -> None:
    """`plain_ticks` of those axes that `xscale` and `yscale` make logarithmic."""
    for which in "xy":
        if axis.get(f"{which}scale") == "log":
            plain_ticks(ax, which)


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name rows 0, 1, ... of the axes, the first on top."""
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))


def colors_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in the order in which they first come."""
    return dict(zip(dict.fromkeys(names), COLORS * 9, strict=False))


def legend_beside(ax: Axes, **options: Any) -> None:
    """A legend on the right of the axes."""
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), **options)


def legend_of_all(figure: Figure, axes: Iterable[Axes], fontsize: float) -> None:
    """One legend for all axes, with each name once."""
    handles = {
        label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=fontsize)


def mark_chosen(ax: Axes, x: float, y: float, text: str, **looks: Any) -> None:
    """A large dot for the chosen point, with a text above."""
    ax.plot(x, y, "o", markersize=12, color=ORANGE, **looks)
    ax.annotate(text, (x, y), (0, 9), textcoords="offset points", ha="center", color=ORANGE)


def ratio_dots(
    groups: Mapping[str, Sequence[float]], xlabel: str = "perplexity, as a multiple of the intact model's"
) -> Figure:
    """One row of dots per group of measurements, on a logarithmic axis with a line at 1."""
    figure, (ax,) = new_figure(height=0.9 + 0.45 * len(groups))
    for row, values in enumerate(groups.values()):
        ax.scatter(values, np.full(len(values), row), s=45, alpha=0.6, color=COLORS[row % len(COLORS)])
    ax.axvline(1, color=GREY, linewidth=1)
    ax.set(xscale="log", xlabel=xlabel)
    label_rows(ax, list(groups))
    plain_ticks(ax)
    return figure


def dot_rows(
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    line: float = 1.0,
    xlabel: str = "perplexity, as a multiple of the intact model's",
    title: str = "",
) -> Figure:
    """A row per case on a logarithmic axis, with dots of several groups, such as texts of several domains.

    Args:
        rows: by case, values by group; the same group has the same colour in every row.
        line: where a vertical line stands.
        xlabel: of the axis.
        title: of the legend, what the groups are.
    """
    figure, (ax,) = new_figure(height=1.0 + 0.27 * len(rows))
    names = list(dict.fromkeys(name for groups in rows.values() for name in groups))
    for row, groups in enumerate(rows.values()):
        for number, name in enumerate(names):
            values = groups.get(name, [])
            at = np.full(len(values), row + 0.2 * (number - (len(names) - 1) / 2))
            label = name if row == 0 else None
            ax.scatter(values, at, s=26, color=COLORS[number], alpha=0.8, label=label, zorder=3)
    ax.axvline(line, color=GREY, linestyle="--", linewidth=1)
    ax.set(xscale="log", xlabel=xlabel)
    label_rows(ax, list(rows))
    plain_ticks(ax)
    legend_beside(ax, title=title, fontsize=9)
    return figure


def loss_curves(
    runs: Mapping[str, tuple[Sequence[float], Sequence[float]]], references: Mapping[str, float] | None = None
) -> Figure:
    """Loss in nats against training steps, one line per run; dashed lines for reference values."""
    figure, (ax,) = new_figure()
    for color, (name, (steps, losses)) in zip(COLORS * 9, runs.items(), strict=False):
        ax.plot(steps, losses, label=name, color=color, linewidth=1.5)
    for name, value in (references or {}).items():
        ax.axhline(value, color=GREY, linestyle="--", linewidth=1)
        ax.text(1, value, f"{name} ", transform=ax.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    ax.set(xlabel="step", ylabel="loss (nats per token)")
    ax.legend(frameon=False)
    return figure


class LiveLoss:
    """A loss curve that redraws itself in the notebook while training: pass it to `train` as `on_metrics`.

    It redraws every so many steps and at each validation, hence also at the last step, which validates.
    Where several trainings follow one another, `finish` makes room for the next in the same picture.
    """

    def __init__(self, every: int = 25, references: Mapping[str, float] | None = None):
        self.every = every  # steps between redraws, each of which takes about a tenth of a second
        self.references = references  # dashed lines, as in `loss_curves`
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.validation: dict[int, float] = {}
        self.finished: dict[str, tuple[list[int], list[float]]] = {}  # validation of the runs before
        self.handle = None

    def __call__(self, metrics: Mapping[str, Any]) -> None:
        self.steps.append(metrics["step"])
        self.losses.append(metrics["loss"])
        validated = "validation_loss" in metrics
        if validated:
            self.validation[metrics["step"]] = metrics["validation_loss"]
        if validated or metrics["step"] % self.every == 0:
            self.draw()

    def draw(self) -> None:
        """Show the curve, or redraw it where it was shown."""
        from IPython.display import display

        runs = dict(self.finished)
        if self.steps:
            runs["training"] = self.steps, self.losses
        if self.validation:
            runs["validation"] = (list(self.validation), list(self.validation.values()))
        figure = loss_curves(runs, self.references)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
        plt.close(figure)  # or the cell would show it once more at its end

    def finish(self, name: str, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Keep a training's validation losses under its name, and begin with the next one."""
        found = [(one["step"], one["validation_loss"]) for one in metrics if "validation_loss" in one]
        self.finished[name] = [step for step, _ in found], [loss for _, loss in found]
        self.steps, self.losses, self.validation = [], [], {}
        self.draw()


def attention_maps(weights: Tensor, labels: Sequence[str], titles: Sequence[str]) -> Figure:
    """Attention probabilities (panels, T, T) as heat maps with token labels: rows look at columns."""
    panels, T, _ = weights.shape
    figure, axes = new_figure(width=3 * panels, height=3.2, columns=panels)
    for ax, panel, title in zip(axes, weights, titles, strict=True):
        ax.imshow(panel.detach().float().cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
        ax.grid(False)
        ax.set_title(title, fontsize=9)
        ax.set_xticks(range(T), labels, rotation=90, fontsize=6)
        ax.set_yticks(range(T), labels, fontsize=6)
    return figure


def entropy_lines(entropies: Mapping[str, Sequence[float]]) -> Figure:
    """Attention entropy in nats against the number of visible keys n, under its ceiling log n."""
    figure, (ax,) = new_figure()
    longest = max(len(values) for values in entropies.values())
    n = np.arange(1, longest + 1)
    ax.plot(n, np.log(n), color=GREY, linestyle="--", label="uniform attention")
    for color, (name, values) in zip(COLORS * 9, entropies.items(), strict=False):
        ax.plot(n[: len(values)], values, label=name, color=color, linewidth=1.5)
    ax.set(xlabel="visible keys n", ylabel="attention entropy H (nats)", xscale="log")
    ax.legend(frameon=False, fontsize=8)
    return figure


def seed_bands(
    groups: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]],
    live: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    **axis: Any,
) -> Figure:
    """A line per group, the mean over its seeds, in a band from the lowest seed to the highest.

    Args:
        groups: name to (x, values), values of shape (seeds, len(x)).
        live: name to (x, y) of one run, dashed, in the colour of the group of that name.
        axis: labels, scales and limits, as `Axes.set` takes them.
    """
    figure, (ax,) = new_figure(height=3.1)
    colors = colors_of([*groups, *(live or {})])
    for name, (x, seeds) in groups.items():
        values = np.asarray(seeds, dtype=float)
        ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=colors[name], alpha=0.2, linewidth=0)
        ax.plot(x, values.mean(axis=0), color=colors[name], label=name)
    for name, (x, y) in (live or {}).items():
        label = f"{name}, this run"
        ax.plot(x, y, color=colors[name], linestyle="--", marker=".", linewidth=1, label=label)
    ax.set(**axis)
    plain_log_ticks(ax, axis)
    legend_beside(ax, fontsize=8)
    return figure


def layer_maps(panels: Mapping[str, Sequence[Sequence[float]]], least: float = 1e-6) -> Figure:
    """Magnitudes (layers, T) of each panel as a map on a logarithmic scale, white up to `least`."""
    figure, axes = new_figure(height=2.6, columns=len(panels))
    maps = {title: np.asarray(values, dtype=float) for title, values in panels.items()}
    largest = max(values.max() for values in maps.values())
    for ax, (title, values) in zip(axes, maps.items(), strict=True):
        shown = np.log10(np.clip(values, least, None))
        image = ax.imshow(shown, cmap="Blues", vmin=np.log10(least), vmax=max(np.log10(largest), 0))
        ax.set_aspect("auto")
        ax.grid(False)
        ax.set(xlabel="position", ylabel="after layer", title=title, yticks=range(len(shown)))
    bar = figure.colorbar(image, ax=axes, label="difference", shrink=0.9)
    bar.ax.yaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"$10^{{{value:g}}}$"))
    return figure


def interval_rows(rows: Mapping[str, Interval], xlabel: str) -> Figure:
    """One row per interval, its mean as a dot, with a line at zero; grey where zero is inside."""
    figure, (ax,) = new_figure(height=0.9 + 0.42 * len(rows))
    for row, interval in enumerate(rows.values()):
        color = BLUE if interval.excludes_zero else GREY
        ax.plot([interval.low, interval.high], [row, row], color=color, linewidth=4, alpha=0.4)
        ax.plot(interval.mean, row, "o", color=color)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set(xlabel=xlabel)
    label_rows(ax, list(rows))
    return figure


Line = tuple[Sequence[float], Sequence[float]]  # x and y


def line_panels(
    panels: Mapping[str, Mapping[str, Line]],
    dots: Mapping[str, Line] | None = None,
    marks: Mapping[str, float] | None = None,
    height: float = 3.1,
    **axis: Any,
) -> Figure:
    """Panels side by side with lines; the same name has the same colour in all.

    Args:
        panels: by title, each with its lines by name; one named "log n" is the grey ceiling of entropy.
        dots: points by name, drawn in every panel behind the lines.
        marks: by name, the x of a dashed vertical line in every panel.
        height: in inches.
        axis: labels, scales and limits of all, as `Axes.set` takes them.
    """
    figure, axes = new_figure(height=height, columns=len(panels))
    colors = colors_of(name for lines in panels.values() for name in lines)
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        for name, (x, y) in (dots or {}).items():
            ax.plot(x, y, ".", label=name, color=GREY, markersize=4)
        for name, (x, y) in lines.items():
            ceiling = {"color": GREY, "linestyle": "--"} if name == "log n" else {"color": colors[name]}
            ax.plot(x, y, label=name, linewidth=1.6, **ceiling)
        for name, at in (marks or {}).items():
            ax.axvline(at, color=GREY, linestyle=":", linewidth=1.5)
            ax.text(at, 1, f" {name}", transform=ax.get_xaxis_transform(), va="top", fontsize=8)
        ax.set(title=title, **axis)
        plain_log_ticks(ax, axis)
    legend_of_all(figure, axes, fontsize=8)
    return figure


def number_grid(
    values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str
) -> Figure:
    """Shares from 0 to 1 as a coloured table with the numbers in it; a dash where there is none (nan)."""
    figure, (ax,) = new_figure(height=1.2 + 0.4 * len(rows))
    shown = np.asarray(values, dtype=float)
    ax.imshow(shown, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(shown):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        ax.text(column, row, text, ha="center", va="center", color="white" if value > 0.6 else "black")
    ax.grid(False)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_title(title, loc="left")
    return figure


def depth_maps(panels: Mapping[str, Sequence[Sequence[float]]], lengths: Sequence[int]) -> Figure:
    """Accuracy by length (rows) and depth of the needle (columns, first to last), one map per panel."""
    figure, axes = new_figure(width=2.6 * len(panels), height=2.8, columns=len(panels))
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        image = ax.imshow(np.asarray(values, dtype=float), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.grid(False)
        ax.set(title=title, xlabel="depth", yticks=[])
        ax.set_xticks([-0.5, len(values[0]) - 0.5], ["first", "last"])
    axes[0].set_yticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    axes[0].set_ylabel("items")
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.9)
    return figure
