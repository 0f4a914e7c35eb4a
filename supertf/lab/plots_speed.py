"""Figures about how fast models train."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from supertf.lab.plots import COLORS, label_rows, new_figure


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
