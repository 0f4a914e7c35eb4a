"""Explorers: everything that a control shows is in the figure, which is small and needs no kernel."""

import base64
import json
import math
import sys

import matplotlib.pyplot as plt
import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from explored import DRAW, ENTROPIES, FIGURES, GAPS, POINTS, PROMPTS, SCALES, SCHEME, N
from IPython import display

from supertf.errors import UserError
from supertf.lab.explorers import (
    LARGEST,
    PLOTLY_MIME,
    attention_explorer,
    cost_explorer,
    entropy_explorer,
    explorer,
    level_explorer,
    needle_explorer,
    rounded,
    spike_explorer,
)


@pytest.mark.parametrize("name", FIGURES)
def test_it_is_small_and_whole_without_the_code_that_made_it(name):
    figure = FIGURES[name]()
    content = figure.to_json()
    assert len(content) <= LARGEST and "bdata" not in content, "numbers that any plotly.js reads"
    assert json.loads(go.Figure(json.loads(content)).to_json()) == json.loads(content)


@pytest.mark.parametrize("name", FIGURES)
def test_every_control_changes_what_is_there_and_nothing_else(name):
    """Each step of a slider and each entry of a menu names traces and attributes that the figure has."""
    figure = FIGURES[name]()
    controls = [(c, c.steps) for c in figure.layout.sliders] + [
        (c, c.buttons) for c in figure.layout.updatemenus
    ]
    assert controls or name == "cost"
    for control, choices in controls:
        assert len(choices) >= 2 and control.active < len(choices)
        for choice in choices:
            assert choice.label
            changed = choice.args[0] if choice.method != "relayout" else {}
            traces = choice.args[2] if len(choice.args) > 2 else range(len(figure.data))
            for attribute, values in changed.items():
                assert len(values) == len(traces)
                for trace, value in zip(traces, values, strict=True):
                    assert value is None or hasattr(figure.data[trace], attribute)


def test_the_map_of_entropies_follows_the_slider_and_the_curves_have_all_heads():
    figure = entropy_explorer(ENTROPIES)
    values = ENTROPIES["softmax"][1]
    for i, step in enumerate(figure.layout.sliders[0].steps):
        assert np.allclose(step.args[0]["z"][0], values[:, :, i], atol=6e-4)
    [curve] = [
        t for t in figure.data if t.type == "scatter" and t.xaxis == "x3" and "layer 7," in t.hovertemplate
    ]
    shown = [(head, y) for head, x, y in zip(curve.customdata, curve.x, curve.y, strict=True) if x == 512]
    assert [head for head, _ in shown] == list(range(9))
    assert np.allclose([y for _, y in shown], values[7, :, 3], atol=6e-4)


def test_a_prompt_is_chosen_with_its_tokens_values_and_largest():
    figure = spike_explorer(PROMPTS, [5, 50, 1000])
    update = figure.layout.updatemenus[0].buttons[2].args[0]
    tokens, values = PROMPTS["prompt 2"]
    assert update["x"][0][3] == f"3: {tokens[3]}"
    assert np.allclose(update["customdata"][2], values["without the weight"], rtol=1e-3)
    assert np.allclose(update["y"][1], values["as it is"].max(1), rtol=1e-3)
    [line, _] = figure.layout.sliders[0].steps[2].args[0]["shapes"]
    assert line["y0"] == line["y1"] == 1000


def test_a_point_tells_its_facts_and_its_interval():
    [line] = cost_explorer({"wanda": POINTS}).data
    assert list(line.x) == [0.3, 0.7] and list(line.text) == ["mlp.c_proj<br>30 texts"] * 2
    assert line.error_y.array[0] == pytest.approx(0.7) and line.error_y.arrayminus[0] == pytest.approx(0.3)


def test_the_weight_on_the_needle_is_that_of_the_formula():
    figure = needle_explorer(N, GAPS, SCALES, 3.0)
    softmax, ssmax, constant = (trace.y for trace in figure.data)
    for i, n in enumerate(N):
        for found, factor in ((softmax, 1), (ssmax, 0.43 * math.log(n)), (constant, 3)):
            logits = torch.tensor([3.0 * factor, *[0.0] * (n - 1)], dtype=torch.float64)
            assert found[i] == pytest.approx(logits.softmax(0)[0].item(), abs=6e-5)
    moved = figure.layout.updatemenus[0].buttons[0].args[1]["sliders"][0]["steps"][2]["args"][0]["y"]
    assert moved[1][1] == pytest.approx(1 / (1 + 999 * math.exp(-0.2 * math.log(1000) * 5)), abs=6e-5)


def test_the_held_out_weights_are_marked():
    before, after, held = level_explorer({"int4": SCHEME}).data
    assert list(held.x) == [5] and held.y[0] == before.y[5] and len(after.y) == 192


def test_numbers_are_few_digits_of_lists_arrays_and_tensors():
    assert rounded(torch.tensor([[0.12345]]), 3) == [[0.123]]
    assert rounded([1234.5, 0.00012345], 3, significant=True) == [1230.0, 0.000123]
    assert rounded(np.float64(2.5), 1) == 2.5


# --- shown ------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def picture():
    figure, ax = plt.subplots(figsize=(1, 1))
    ax.plot([1, 2])
    return figure


def test_it_is_shown_with_a_picture_for_viewers_that_do_not_run_it(shown):
    explorer(attention_explorer(["a", "b"], {"head 0": [[1, 0], [0.5, 0.5]]}), picture())
    bundle, below = shown
    assert bundle[PLOTLY_MIME]["data"][0]["z"] == [[1.0, 0.0], [0.5, 0.5]]
    assert "open the notebook" in bundle["text/plain"] and "text/html" not in bundle
    assert "image/png" not in bundle, "JupyterLab would show it in the explorer's place"
    assert base64.b64decode(below["image/png"]).startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_colab_gets_html_that_loads_plotly_from_its_network(shown, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    explorer(attention_explorer(["a"], {"head 0": [[1.0]]}), picture())
    assert "cdn.plot.ly" in shown[0]["text/html"]


def test_what_is_too_large_to_be_stored_is_refused(shown):
    maps = {f"head {i}": DRAW.random((40, 40)) for i in range(30)}
    with pytest.raises(UserError, match=r"the explorer has .* bytes, expected at most 150,000: show less"):
        explorer(attention_explorer([str(i) for i in range(40)], maps), picture())
    assert not shown
