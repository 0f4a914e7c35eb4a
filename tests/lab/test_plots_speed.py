"""Figures about speed show the numbers given."""

from supertf.lab.plots_speed import rates_and_losses


def test_bars_and_curves_are_the_numbers_given():
    figure = rates_and_losses({"softmax": 900.0, "ssmax": 850.0}, {"softmax": [5, 4, 3], "ssmax": [5, 4, 2]})
    bars, curves = figure.axes
    assert [bar.get_width() for bar in bars.patches] == [900, 850]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["softmax", "ssmax"]
    assert [list(line.get_ydata()) for line in curves.lines] == [[5, 4, 3], [5, 4, 2]]
    assert list(curves.lines[0].get_xdata())[-1] == 1


def test_a_run_that_was_cut_off_has_a_figure_too():
    assert len(rates_and_losses({}, {}).axes) == 2
