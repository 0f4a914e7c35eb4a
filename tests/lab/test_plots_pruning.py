"""Figures about pruning and quantizing: they show the numbers given, and the chosen one."""

import numpy as np
import pytest

from supertf.lab import plots_pruning as plots


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


def test_speed_and_quality_shows_every_point_the_worst_on_the_edge():
    groups = {"a": [(1.2, 1.1, "20 %"), (1.4, 9.0, "50 %")], "b": [(1.0, 2.0, "10 %")]}
    figure = plots.speed_and_quality(groups, worst=4)
    figure.canvas.draw()
    ax = figure.axes[0]
    drawn = [points.get_offsets().tolist() for points in ax.collections]
    assert drawn == [[[1.2, 1.1], [1.4, 4.0]], [[1.0, 2.0]]], "beyond the worst: on the edge"
    assert [text.get_text() for text in ax.texts] == ["20 %", "10 %"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("threshold", "dark"), [(0.0, 0), (0.5, 3), (10.0, 5)])
def test_a_cut_shows_every_input_once_and_what_is_below_it_dark(threshold, dark):
    sizes = np.array([0.0, 0.01, 0.2, 0.7, 3.0])
    figure = plots.cut_histogram(sizes, threshold, "cut $here$\nand there", "magnitude")
    figure.canvas.draw()
    (ax,) = figure.axes
    dropped, kept = (sum(bar.get_height() for bar in bars) for bars in ax.containers)
    assert (dropped, kept) == pytest.approx((dark / 5, 1 - dark / 5))
    assert len(ax.lines) == (threshold > 0)
