"""Figures about quantization: they show the numbers given, and the chosen scheme."""

import pytest
import torch

from supertf.lab import plots_quantization as plots


def test_level_panels_draw_every_level_once_and_every_weight():
    before, after = torch.tensor([0.1, 0.2, 0.9, 0.8]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    (ax,) = plots.level_panels({"a block": (before, after)}).axes
    *levels, weights, back = ax.lines
    assert [line.get_ydata()[0] for line in levels] == [0.0, 1.0]
    assert list(weights.get_ydata()) == pytest.approx(before.tolist())
    assert list(back.get_ydata()) == after.tolist()


def test_block_maps_colour_the_block_and_mark_the_weight():
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[1:3] = True
    figure = plots.block_maps({"rows": inside, "none": ~inside}, (2, 5))
    for ax, expected in zip(figure.axes, (inside, ~inside), strict=True):
        assert (ax.images[0].get_array() == expected.float().numpy()).all()
        assert list(ax.lines[0].get_xydata()[0]) == [5, 2]


def test_scheme_map_marks_the_chosen_scheme_and_shows_what_became_of_weights():
    points = {"int4": (4.5, 20.0), "int8": (8.0, 15.5)}
    figure = plots.scheme_map(points, "int8", 15.0, {"11[507, 1229]": (5.9, 4.4)})
    figure.canvas.draw()
    left, right = figure.axes
    assert list(left.lines[0].get_xydata()[0]) == [8.0, 15.5]
    assert len(left.collections[0].get_offsets()) == 2
    assert [line.get_xdata()[0] for line in right.lines[:2]] == [5.9, 4.4]
    assert right.get_yticklabels()[0].get_text() == "11[507, 1229]"
