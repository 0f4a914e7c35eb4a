"""Figures about speed show the numbers given."""

from supertf.lab.plots_speed import memory_bars, rates_and_losses


def test_bars_and_curves_are_the_numbers_given():
    figure = rates_and_losses({"softmax": 900.0, "ssmax": 850.0}, {"softmax": [5, 4, 3], "ssmax": [5, 4, 2]})
    bars, curves = figure.axes
    assert [bar.get_width() for bar in bars.patches] == [900, 850]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["softmax", "ssmax"]
    assert [list(line.get_ydata()) for line in curves.lines] == [[5, 4, 3], [5, 4, 2]]
    assert list(curves.lines[0].get_xdata())[-1] == 1


def test_a_run_that_was_cut_off_has_a_figure_too():
    assert len(rates_and_losses({}, {}).axes) == 2


def test_memory_is_stacked_by_part_beside_what_a_device_has():
    rows = {"4 windows": {"weights": 0.5, "activations": 2.0}, "16": {"weights": 0.5, "activations": 8.0}}
    (ax,) = memory_bars(rows, {"a card": 7.0}).axes
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 0.5), (0, 0.5), (0.5, 2), (0.5, 8)]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    assert ax.lines[0].get_xdata()[0] == 7.0 and ax.texts[0].get_text() == " a card"
