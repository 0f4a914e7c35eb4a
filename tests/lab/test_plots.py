"""Figures: what a reader looks at is drawn from the numbers given, at extremes too."""

import matplotlib.pyplot as plt
import pytest
import torch

from supertf.analysis.intervals import Interval
from supertf.lab import plots


def test_ratio_dots_has_a_named_row_per_group():
    figure = plots.ratio_dots({"the weight": [5.0], "random": [1.0, 1.001]})
    figure.canvas.draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["the weight", "random"]


def test_attention_maps_and_curves_draw_every_panel_and_line():
    weights = torch.full((3, 4, 4), 0.25).tril()
    assert len(plots.attention_maps(weights, list("abcd"), ["1", "2", "3"]).axes) == 3
    figure = plots.entropy_lines({"a": [0.0, 0.5], "b": [0.0, 0.6, 0.7]})
    assert len(figure.axes[0].lines) == 3
    figure = plots.loss_curves({"a": ([1, 2], [3.0, 2.0])}, {"unigram": 2.5})
    assert [text.get_text().strip() for text in figure.axes[0].texts] == ["unigram"]


def test_a_live_curve_is_shown_once_and_then_updated(monkeypatch):
    shown, updated = [], []

    class Handle:
        def update(self, figure):
            updated.append(figure)

    monkeypatch.setattr(
        "IPython.display.display", lambda figure, display_id: shown.append(figure) or Handle()
    )
    live = plots.LiveLoss(every=3)
    for step in range(1, 6):
        live({"step": step, "loss": 5.0 / step} | ({"validation_loss": 4.0} if step == 5 else {}))
    assert (len(shown), len(updated)) == (1, 1)
    training, validation = updated[-1].axes[0].lines  # the last step, which validates, is drawn as well
    assert list(training.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(validation.get_ydata()) == [4.0]
    live.finish("first", [{"step": 5, "loss": 1.0, "validation_loss": 4.0}, {"step": 6, "loss": 1.0}])
    live({"step": 3, "loss": 2.0})  # of the next training, in the same picture
    assert len(shown) == 1
    first, training = updated[-1].axes[0].lines
    assert (first.get_label(), list(first.get_xdata())) == ("first", [5])
    assert list(training.get_xdata()) == [3]
    assert plt.get_fignums() == []


def test_seed_bands_draw_the_mean_in_the_band_of_all_seeds_and_a_live_run_in_its_colour():
    figure = plots.seed_bands(
        {"a": ([1, 2], [[1.0, 2.0], [3.0, 6.0]])}, {"a": ([1, 2], [0.0, 1.0])}, xlabel="x"
    )
    mean, live = figure.axes[0].lines
    assert list(mean.get_ydata()) == [2.0, 4.0]
    assert mean.get_color() == live.get_color() and live.get_linestyle() == "--"
    heights = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 6.0)
    assert figure.axes[0].get_xlabel() == "x"


def test_layer_maps_leave_white_what_is_below_the_least():
    figure = plots.layer_maps(
        {"a": torch.tensor([[0.0, 1e-12], [1.0, 1e-3]]), "b": [[0.0, 0.0], [0.0, 0.0]]}, least=1e-6
    )
    figure.canvas.draw()
    (first, second) = (ax.images[0] for ax in figure.axes[:2])
    assert [round(float(x)) for x in first.get_array().flatten()] == [-6, -6, 0, -3]
    assert first.get_clim() == second.get_clim() == (-6, 0)


def test_interval_rows_are_grey_where_zero_is_inside():
    rows = {"differs": Interval(1.0, 0.5, 1.5, 5), "may be none": Interval(0.1, -0.1, 0.3, 5)}
    figure = plots.interval_rows(rows, "difference")
    colors = [line.get_color() for line in figure.axes[0].lines[1:4:2]]
    assert colors == [plots.BLUE, plots.GREY]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(rows)


def test_line_panels_share_colours_and_one_legend_and_mark_every_panel():
    lines = {"a": ([1, 2], [3.0, 4.0]), "log n": ([1, 2], [0.0, 0.7])}
    figure = plots.line_panels(
        {"left": lines, "right": {"b": ([1], [1.0]), "a": ([1], [2.0])}},
        dots={"seen": ([1, 2], [1.0, 1.0])},
        marks={"here": 2},
        xscale="log",
    )
    figure.canvas.draw()
    left, right = (
        {line.get_label(): line for line in ax.lines if line.get_label() != "_child3"} for ax in figure.axes
    )
    assert left["a"].get_color() == right["a"].get_color() != right["b"].get_color()
    assert left["log n"].get_linestyle() == "--"
    assert sorted(text.get_text() for text in figure.legends[0].get_texts()) == ["a", "b", "log n", "seen"]
    assert [ax.texts[0].get_text().strip() for ax in figure.axes] == ["here", "here"]
    assert [ax.get_xscale() for ax in figure.axes] == ["log", "log"]


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ((14, 21), ["14", "16", "18", "20"]),
        ((0.8, 12), ["1", "2", "3", "5", "10"]),
        ((16, 600), ["20", "50", "100", "200", "500"]),
        ((8, 2e6), ["10", "100", "1,000", "10,000", "100,000", "1,000,000"]),
    ],
)
def test_logarithmic_axes_are_labelled_in_plain_numbers(axis, limits, shown):
    figure, ax = plt.subplots()
    ax.set(**{f"{axis}scale": "log", f"{axis}lim": limits})
    plots.plain_ticks(ax, axis)
    figure.canvas.draw()
    ticks = getattr(ax, f"{axis}axis").get_major_ticks()
    places = [tick.get_loc() for tick in ticks]
    labels = [tick.label1.get_text() for tick in ticks]
    low, high = limits
    assert [text for x, text in zip(places, labels, strict=True) if low <= x <= high] == shown


def test_a_number_grid_writes_every_share_and_a_dash_where_there_is_none():
    figure = plots.number_grid([[0.5, float("nan")], [1.0, 0.0]], ["a", "b"], ["x", "y"], "shares")
    figure.canvas.draw()
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.50", "–", "1.00", "0.00"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x", "y"]


def test_depth_maps_share_one_scale_from_0_to_1():
    figure = plots.depth_maps({"a": [[0.2, 0.4]], "b": [[1.0, float("nan")]]}, [2048])
    figure.canvas.draw()
    assert [ax.images[0].get_clim() for ax in figure.axes[:2]] == [(0, 1), (0, 1)]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "2,048"


def test_dot_rows_have_a_dot_per_value_in_the_order_of_the_cases():
    rows = {"a": {"none": [20.0, 30.0], "set": [16.0]}, "b": {"none": [50.0]}}
    figure = plots.dot_rows(rows, 15.0)
    figure.canvas.draw()
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["none", "set"]
    x = [list(dots.get_offsets()[:, 0]) for dots in ax.collections]
    assert x[:3] == [[20.0, 30.0], [16.0], [50.0]]
