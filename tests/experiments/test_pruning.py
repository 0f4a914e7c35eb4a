"""A cell of the pruning experiment tells what its plan does by hand, domain by domain."""

import json

import pytest
from planted import PLANTED

from supertf.analysis.losses import perplexity
from supertf.compression.methods import FAMILY
from supertf.compression.verbs import calibration_for, plan_pruning, pruned
from supertf.data.text import held_out_texts
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.pruning import pruned_quality
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.domains import of_role
from supertf.superweights.ablation import random_beside
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
PRUNING = EXPERIMENTS["pruning"]
LENGTH = 64


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    return {**PRUNING.settings, **PRUNING.quick, "model": run, "weights": ["1[7, 21]"]}


def losses(model):
    """Of one window of two texts of each domain."""
    return {
        name: [
            perplexity(model, text.ids, LENGTH).loss
            for text in held_out_texts(name, load_tokenizer("bytes"), count=2, windows=1, length=LENGTH)
        ]
        for name in TEXTS
    }


@pytest.mark.parametrize("domains", [list(TEXTS), ["prose"]])
@pytest.mark.parametrize("protect", ["nothing", "weights", "random"])
@pytest.mark.parametrize("method", ["random", "wanda", "channels", "inputs", "top"])
def test_a_cell_tells_what_its_plan_does(model, settings, method, protect, domains):
    options = {"method": method, "sparsity": 0.5, "protect": protect, "calibrated_on": domains}
    found = pruned_quality({**settings, **options}, 3, ())
    assert json.loads(json.dumps(found)) == found
    read = of_role("calibrate", domains, load_tokenizer("bytes"), 64, LENGTH)
    weights = {"nothing": [], "weights": [PLANTED], "random": random_beside(model, [PLANTED], 3)}
    made = plan_pruning(
        model,
        method,
        sparsity=0.5,
        calibration=calibration_for(model, method, read),
        protect=weights[protect],
        watch=PLANTED,
        seed=3,
        progress=False,
    )
    with pruned(model, made, watch=PLANTED) as skipped:
        for name, expected in losses(model).items():
            assert found["losses"][name] == pytest.approx(expected)
        assert found["removed"] == pytest.approx(made.sparsity if skipped is None else skipped.work)
    [gone] = found["gone"]
    assert 0 <= gone <= 1 and (gone == 0 or protect != "weights")


def test_nothing_is_pruned_without_a_method(model, settings):
    found = pruned_quality(settings, 0, ())
    assert found["removed"] == 0 and found["gone"] == [0.0]
    for name, expected in losses(model).items():
        assert found["losses"][name] == pytest.approx(expected)


def test_lost_weights_are_zero_whatever_the_plan_says(model, settings):
    options = {"method": "magnitude", "sparsity": 0.3, "lost": True}
    found = pruned_quality({**settings, **options}, 0, ())
    made = plan_pruning(model, "magnitude", sparsity=0.3, progress=False)
    with pruned(model, made), scaled_weights(model, [PLANTED], 0.0):
        assert found["losses"]["prose"] == pytest.approx(losses(model)["prose"])


def test_an_unknown_group_to_protect_is_refused(settings):
    with pytest.raises(UserError, match="protect is 'all'; expected nothing, weights, random"):
        pruned_quality({**settings, "method": "magnitude", "sparsity": 0.5, "protect": "all"}, 0, ())


def test_every_variant_is_of_a_known_method_and_says_how_much_goes():
    for variant in PRUNING.variants:
        own = PRUNING.settings_of(variant)
        assert own["method"] is None or own["method"] in FAMILY
        assert (own["method"] is None) == (own["sparsity"] is None and own["pattern"] is None)
