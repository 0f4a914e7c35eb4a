"""Figures about super weights: they show the numbers given, and the chosen one."""

import matplotlib
import pytest
import torch

from supertf.analysis.peak_entries import Peak
from supertf.lab import plots_superweights as plots
from supertf.superweights.find import Spike

SPIKES = [
    Spike(3, Peak(3.0, 0, 1), Peak(-90.0, 0, 2), Peak(-90.0, 0, 2), into=1, weight=0.1, share=0.1),
    Spike(4, Peak(-300.0, 0, 21), Peak(900.0, 0, 7), Peak(900.0, 0, 7), into=21, weight=3.0, share=1.0),
]


def test_spike_bars_colour_and_label_only_layers_where_both_sides_pass():
    figure = plots.spike_bars(SPIKES, threshold=50)
    figure.canvas.draw()
    for ax, label, heights in zip(figure.axes, ("21", "7"), ([3, 300], [90, 900]), strict=True):
        assert [bar.get_height() for bar in ax.patches] == heights
        assert ax.patches[0].get_facecolor() != ax.patches[1].get_facecolor()
        assert [text.get_text() for text in ax.texts] == [label]


def test_spike_bars_show_what_is_added_where_it_is_not_the_output():
    behind_a_norm = Spike(5, Peak(9.0, 0, 3), Peak(8.0, 0, 2), Peak(800.0, 0, 6), 3, 0.9, 1.0, gain=100.0)
    figure = plots.spike_bars([*SPIKES, behind_a_norm], threshold=50)
    assert [bar.get_height() for bar in figure.axes[1].patches] == [90, 900, 800]
    assert [text.get_text() for text in figure.axes[1].texts] == ["7", "6"]


@pytest.mark.parametrize("chosen", [0.0, 1.0, 3.0])
def test_scale_curve_marks_the_chosen_factor(chosen):
    figure = plots.scale_curve([0.0, 1.0, 3.0], [80.0, 16.0, 17.0], chosen, "costs $5 and $6\nmore")
    figure.canvas.draw()
    marked = figure.axes[0].lines[1]
    assert list(marked.get_xdata()) == [chosen]
    assert "$5" in figure.axes[0].get_title(loc="left").replace("\\", "")


def test_scale_curve_shows_the_probability_of_every_word_beside_it():
    words = {" Paris": [0.0, 0.6, 0.7], " the": [0.1, 0.0, 0.0]}
    figure = plots.scale_curve([0.0, 1.0, 3.0], [80.0, 16.0, 17.0], 1.0, "a $5 text", words)
    figure.canvas.draw()
    *lines, chosen = figure.axes[1].lines
    assert [list(line.get_ydata()) for line in lines] == list(words.values())
    assert list(chosen.get_xdata()) == [1.0, 1.0]
    assert "$5" in figure.texts[0].get_text().replace("\\", "")


def test_before_after_rows_have_a_dot_each_side_joined_in_the_order_given():
    rows = {"a": (0.1, 0.2, 0.4), "b": (0.3, 0.003, 0.5)}
    figure = plots.before_after_rows(rows, ("with", "without", "unigram"), "probability")
    figure.canvas.draw()
    (ax,) = figure.axes
    joined, *dots = ax.collections
    for column, drawn in enumerate(dots):
        assert drawn.get_offsets().tolist() == [[values[column], y] for y, values in enumerate(rows.values())]
    assert [line.tolist() for line in joined.get_segments()] == [
        [[0.1, 0], [0.2, 0]],
        [[0.3, 1], [0.003, 1]],
    ]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first row is on top"
    assert len(plots.before_after_rows({"a": (1.0, 2.0)}, ("with", "without"), "").axes[0].collections) == 3


def test_harm_dots_draw_every_change_with_one_colour_per_group_and_one_legend():
    small, real = ([4.0, 5.0], [1.0, 1.001]), ([500.0], [7.0])
    figure = plots.harm_dots({"spike": {"small": small, "real": real}, "height": {"real": real}})
    figure.canvas.draw()
    left, right = figure.axes
    assert left.collections[0].get_offsets().tolist() == [[4.0, 1.0], [5.0, 1.001]]
    assert right.collections[0].get_offsets().tolist() == [[500.0, 7.0]]
    colors = [ax.collections[-1].get_facecolor().tolist() for ax in figure.axes]
    assert colors[0] == colors[1] != left.collections[0].get_facecolor().tolist()
    assert (left.get_xlabel(), right.get_xlabel()) == ("spike", "height")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["small", "real"]


def test_harm_dots_name_those_that_cost_much():
    names = {"one": ["11[507, 1229]", "28[507, 678]"]}
    figure = plots.harm_dots({"spike": {"one": ([4.0, 5.0], [7.0, 1.001])}}, names)
    assert [(text.get_text(), text.xy) for text in figure.axes[0].texts] == [("11[507, 1229]", (4.0, 7.0))]


def test_mechanism_shows_the_largest_and_marks_the_weights_channels():
    inputs, outputs = torch.tensor([1.0, 90.0, 3.0, 7.0]), torch.tensor([5.0, 2.0, 800.0])
    streams = {"as it is": [1.0, 800.0], "without": [1.0, 90.0]}
    figure = plots.mechanism(inputs, outputs, streams, (11, 2, 1), most=2)
    figure.canvas.draw()
    for ax, heights, names in zip(figure.axes, ([90, 7], [800, 5]), (["1", "3"], ["2", "0"]), strict=False):
        assert [bar.get_height() for bar in ax.patches] == heights
        assert [tick.get_text() for tick in ax.get_xticklabels()] == names
        colors = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in ax.patches]
        assert colors == [plots.ORANGE, plots.BLUE]
    assert [list(line.get_ydata()) for line in figure.axes[2].lines[:2]] == list(streams.values())
