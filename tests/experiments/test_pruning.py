"""A cell of the pruning experiment tells what its plans do, for each shield."""

import json

import pytest
import torch
from planted import PLANTED

from supertf.analysis.losses import perplexity
from supertf.compression.verbs import calibration_for, plan_pruning, pruned
from supertf.data.text import Text
from supertf.data.tokenizer import load_tokenizer
from supertf.experiments.pruning import AWAY, pruned_quality
from supertf.experiments.smollm2_longer import APART, text
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 16


def read(number, tokens):
    return text(number, APART, load_tokenizer("bytes"))[:tokens]


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    return {
        **{"model": run, "windows": 2, "length": LENGTH, "calibration": 64, "new_tokens": 3},
        **{"protect": ["1[7, 21]"], "sparsities": [0.5], "scope": None, "pattern": None, "score": None},
        "kinds": None,
    }


def measured(settings, **changes):
    result = pruned_quality({**settings, **changes}, 0, ())
    json.dumps(result)
    return result


@pytest.mark.parametrize("method", ["magnitude", "random", "channels", "inputs", "top"])
def test_a_cell_tells_the_perplexity_under_its_plan_for_each_shield(model, settings, method):
    result = measured(settings, method=method)
    (point,) = result["points"]
    prepared = calibration_for(model, method, Text(torch.tensor(read(AWAY, 64)), LENGTH))
    evaluation = read(0, 2 * LENGTH + 1)
    assert result["dense"]["perplexity"] == pytest.approx(perplexity(model, evaluation, LENGTH).perplexity)
    for shield, protect in {"none": [], "super": [PLANTED]}.items():
        options = {"protect": protect, "watch": PLANTED, "progress": False}
        made = plan_pruning(model, method, sparsity=0.5, calibration=prepared, **options)
        with pruned(model, made, watch=PLANTED) as skipped:
            expected = perplexity(model, evaluation, LENGTH).perplexity
        assert point[shield]["perplexity"] == pytest.approx(expected)
        assert point[shield]["removed"] == pytest.approx(made.sparsity if skipped is None else skipped.work)
        assert 0 <= point[shield]["gone"][0] <= 1
    assert point["super"]["gone"] == [0.0]
    assert not point["none"]["same"]


def test_a_shield_that_changes_nothing_of_the_plan_is_said_to_be_the_same(settings):
    (point,) = measured(settings, method="magnitude")["points"]
    assert point["none"]["gone"] == [0.0]  # the planted weight is the largest of all
    assert point["super"] == {**point["none"], "same": True}
    (point,) = measured(settings, method="top", kinds=["mlp.c_proj"])["points"]
    assert not point["super"]["same"]


def test_lost_is_the_protecting_plan_with_the_weights_zero_all_the_same(model, settings):
    (point,) = measured(settings, method="magnitude")["points"]
    made = plan_pruning(model, "magnitude", sparsity=0.5, protect=PLANTED, progress=False)
    with pruned(model, made), scaled_weights(model, [PLANTED], 0.0):
        expected = perplexity(model, read(0, 2 * LENGTH + 1), LENGTH).perplexity
    assert point["lost"] == pytest.approx(expected)
    assert point["lost"] != pytest.approx(point["super"]["perplexity"])
    assert "lost" not in measured(settings, method="channels")["points"][0]
