"""Figures about pruning and quantizing: they show the numbers given, and the chosen one."""

import pytest

from supertf.lab import plots_pruning as plots


def test_compared_rows_put_every_value_in_its_row_and_say_what_is_beyond_the_limit():
    rows = {"magnitude": {"kept": 1.5, "lost": 6.0}, "random": {"kept": 2.0, "lost": 5000.0}}
    figure = plots.compared_rows(rows, "perplexity", limit=100)
    figure.canvas.draw()
    kept, lost = (points.get_offsets().tolist() for points in figure.axes[0].collections)
    assert kept == [[1.5, 0], [2.0, 1]] and lost == [[6.0, 0], [100.0, 1]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["5,000 >"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(rows)


def test_compared_models_show_every_ratio_and_size():
    models = [
        {"name": "dense", "ratio": 1.0, "bytes": 5e8, "sparsity": 0.0},
        {"name": "wanda", "ratio": 1.9, "bytes": 5e8, "sparsity": 0.5},
        {"name": "int4", "ratio": 1.3, "bytes": 1e8, "sparsity": 0.0},
    ]
    figure = plots.compared_models(models)
    figure.canvas.draw()
    ratios, sizes = figure.axes
    assert ratios.collections[0].get_offsets().tolist() == [[1.0, 0], [1.9, 1], [1.3, 2]]
    assert [bar.get_width() for bar in sizes.patches] == [500, 500, 100]
    assert [text.get_text() for text in sizes.texts] == ["50% zero"]
    assert [label.get_text() for label in sizes.get_yticklabels()] == ["dense", "wanda", "int4"]


def test_speed_and_quality_crosses_out_points_without_their_super_weights():
    groups = {"a": [(1.2, 1.1, True, "20 %"), (1.4, 9.0, False, "50 %")], "b": [(1.0, 2.0, False, "10 %")]}
    figure = plots.speed_and_quality(groups, worst=4)
    figure.canvas.draw()
    ax = figure.axes[0]
    drawn = [points.get_offsets().tolist() for points in ax.collections]
    assert drawn == [[[1.2, 1.1]], [[1.4, 4.0]], [[1.0, 2.0]]], "beyond the worst: on the edge"
    assert [text.get_text() for text in ax.texts] == ["20 %", "10 %"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize("curves", [{}, {"recorded": ([0.1, 0.5], [1.1, 900.0])}])
def test_the_chosen_point_is_marked_on_the_curves_of_its_method(curves):
    figure = plots.cost_curves(curves, (0.5, 900.0), worst=100)
    figure.canvas.draw()
    (ax,) = figure.axes
    marked = ax.lines[len(curves)]
    assert list(marked.get_xdata()) == [0.5] and list(marked.get_ydata()) == [100.0]
    assert ax.texts[0].get_text() == "900"
    assert [line.get_label() for line in ax.lines[: len(curves)]] == list(curves)
