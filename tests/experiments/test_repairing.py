"""The repairing experiment: its cells tell what fitting and training by hand do."""

import functools
import json

import pytest
from scored import losses_by_hand

from supertf.compression.pruning.recovery import recover
from supertf.compression.pruning.refitting import refit
from supertf.compression.pruning.structured import in_smaller, smaller
from supertf.compression.verbs import plan_pruning, pruned
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.repairing import BATCH, CHANNELS, INPUTS, WINDOW, repaired
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.domains import of_role
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
REPAIRING = EXPERIMENTS["repairing"]
PLANTED = (1, 7, 21)
LENGTH = 128


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    return {**REPAIRING.settings, **REPAIRING.quick, "model": run, "weight": "1[7, 21]"}


losses = functools.partial(losses_by_hand, length=LENGTH, rel=1e-4)


def planned(model, **options):
    """The plan that cells make."""
    read = of_role("calibrate", TEXTS, load_tokenizer("bytes"), 128, LENGTH)
    return plan_pruning(model, **options, calibration=read, progress=False)


def to_fit(domains=tuple(TEXTS)):
    """What cells fit to."""
    return of_role("fit", domains, load_tokenizer("bytes"), 512, LENGTH).ids


@pytest.mark.parametrize("way", ["trained", "taught"])
@pytest.mark.parametrize("domains", [list(TEXTS), ["prose", "readmes"]])
def test_a_cut_model_is_trained_on_every_token_once(model, settings, way, domains):
    found = repaired({**settings, **CHANNELS, "way": way, "fitted_on": domains}, 1, ())
    assert json.loads(json.dumps(found)) == found
    ids = to_fit(domains)
    steps = (len(ids) - 1) // WINDOW // BATCH
    assert steps >= 1
    plan = planned(model, **CHANNELS)
    cut = smaller(model, plan)
    teacher = model if way == "taught" else None
    new = recover(cut, ids, steps, teacher=teacher, length=WINDOW, seed=1, progress=False).model
    assert found["losses"] == losses(new)
    layer, out, into = in_smaller(plan, PLANTED)
    assert found["value"] == pytest.approx(new.h[layer].mlp.c_proj.weight[out, into].item())


def test_projections_are_fitted_to_the_whole_model(model, settings):
    found = repaired({**settings, **CHANNELS, "way": "refitted"}, 0, ())
    cut = smaller(model, planned(model, **CHANNELS))
    assert found["losses"] == losses(refit(cut, to_fit(), teacher=model, length=LENGTH, progress=False))


def test_projections_are_fitted_with_inputs_dropped_and_scored_so(model, settings):
    plan = planned(model, **INPUTS)
    found = repaired({**settings, **INPUTS, "way": "refitted"}, 0, ())
    new = refit(model, to_fit(), plan, length=LENGTH, progress=False)
    with pruned(new, plan):
        assert found["losses"] == losses(new)
    before = repaired({**settings, **INPUTS}, 0, ())
    with pruned(model, plan):
        assert before["losses"] == losses(model)


def test_nothing_is_left_out_or_repaired_unless_it_is_asked_for(model, settings):
    assert repaired(settings, 0, ())["losses"] == losses(model)


def test_a_removed_weight_is_removed_after_the_repair(model, settings):
    found = repaired({**settings, **CHANNELS, "removed": True}, 0, ())
    plan = planned(model, **CHANNELS)
    cut = smaller(model, plan)
    with scaled_weights(cut, [in_smaller(plan, PLANTED)]):
        assert found["losses"] == losses(cut)


@pytest.mark.parametrize("options", [{"way": "mended"}, {**INPUTS, "way": "trained"}])
def test_an_unknown_way_or_one_that_cannot_be_is_refused(settings, options):
    with pytest.raises(UserError, match="expected refitted, or, where no inputs are dropped, trained"):
        repaired({**settings, **options}, 0, ())


def test_a_weight_that_goes_with_its_channel_is_refused(settings):
    with pytest.raises(UserError, match="goes with its channel"):
        repaired({**settings, **CHANNELS, "sparsity": 0.95, "weight": "0[3, 5]"}, 0, ())
