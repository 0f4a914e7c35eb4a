"""Figures about how fast models train, and in how much memory."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from supertf.lab.plots import COLORS, GREY, label_rows, legend_beside, new_figure


def rates_and_losses(rates: Mapping[str, float], losses: Mapping[str, Sequence[float]]) -> Figure:
    """Bars of tokens per second, and beside them a loss curve for each training.

    Args:
        rates: tokens per second, by what was timed.
        losses: by training, evenly spaced over its steps, in nats per token.
    """
    figure, (bars, curves) = new_figure(width=11, height=1.2 + 0.3 * max(len(rates), 6), columns=2)
    bars.barh(range(len(rates)), list(rates.values()), color=COLORS[0])
    for row, value in enumerate(rates.values()):
        bars.text(value, row, f" {value:,.0f}", va="center", fontsize=8)
    bars.set(xlabel="tokens per second in a training step")
    bars.margins(x=0.2)
    label_rows(bars, list(rates))
    for color, (name, values) in zip(COLORS, losses.items(), strict=False):
        ends = [(i + 1) / len(values) for i in range(len(values))]
        curves.plot(ends, values, label=name, color=color)
    curves.set(xlabel="share of the training", ylabel="loss (nats per token)")
    if losses:
        curves.legend(frameon=False)
    return figure


def memory_bars(rows: Mapping[str, Mapping[str, float]], limits: Mapping[str, float]) -> Figure:
    """What trainings need, a bar for each with its parts behind one another, and what devices have.

    Args:
        rows: gigabytes by part, by training; all have the same parts.
        limits: gigabytes, by name, each a dashed line.
    """
    figure, (ax,) = new_figure(height=1.2 + 0.4 * len(rows))
    parts = list(next(iter(rows.values())))
    for color, part in zip(COLORS, parts, strict=False):
        before = [sum(row[other] for other in parts[: parts.index(part)]) for row in rows.values()]
        ax.barh(range(len(rows)), [row[part] for row in rows.values()], left=before, color=color, label=part)
    for name, value in limits.items():
        ax.axvline(value, color=GREY, linestyle="--", linewidth=1.2)
        ax.text(value, -0.55, f" {name}", fontsize=8)
    ax.set(xlabel="gigabytes")
    label_rows(ax, list(rows))
    legend_beside(ax)
    return figure
