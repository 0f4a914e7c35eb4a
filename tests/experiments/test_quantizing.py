"""The quantizing experiment: its cells tell what rounding, holding out and sparing by hand do."""

import functools
import json

import pytest
from scored import losses_by_hand

from supertf.compression.calibration import calibrate
from supertf.compression.quantization.activations import quantized_activations, super_activations
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.quantization.rounding import Scheme
from supertf.compression.verbs import quantized
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.quantizing import groups, output_error, quantized_quality, spared_channels
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.domains import of_role
from supertf.model.weight_matrices import parse
from supertf.superweights.ablation import random_beside

pytestmark = pytest.mark.usefixtures("one_thread")
QUANTIZING = EXPERIMENTS["quantizing"]
PLANTED, BESIDE = (1, 7, 21), (1, 7, 3)
SET = [PLANTED, BESIDE]
LENGTH = 64


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    own = {"model": run, "weights": ["1[7, 21]", "1[7, 3]"], "scheme": "int4 block=tensor"}
    return {**QUANTIZING.settings, **QUANTIZING.quick, **own}


@pytest.fixture(scope="module")
def calibration(model):
    """Of the model on all domains' calibration texts."""
    ids = of_role("calibrate", TEXTS, load_tokenizer("bytes"), 64, LENGTH).windows().flatten()
    return calibrate(model, ids, LENGTH)


losses = functools.partial(losses_by_hand, length=LENGTH, rel=1e-5)


@pytest.mark.parametrize("hold", ["nothing", "the weight", "the set", "the column", "random weights"])
@pytest.mark.parametrize("scheme", ["int4 block=tensor", "int3 block=channel clip=output"])
def test_a_cell_tells_what_rounding_by_hand_does(model, settings, calibration, scheme, hold):
    found = quantized_quality({**settings, "scheme": scheme, "hold": hold}, 3, ())
    assert json.loads(json.dumps(found)) == found
    held_out = {
        "nothing": [],
        "the weight": [PLANTED],
        "the set": SET,
        "the column": [(1, row, 21) for row in range(16)],
        "random weights": random_beside(model, SET, 3),
    }
    by_hand = plan_quantization(
        model, scheme, protect=held_out[hold], watch=SET, calibration=calibration, progress=False
    )
    with quantized(model, by_hand):
        assert found["losses"] == losses(model)
    assert found["before"] == pytest.approx([3.0, model.h[1].mlp.c_proj.weight[7, 3].item()])
    assert found["after"] == pytest.approx([fate.after for fate in by_hand.fates])
    assert found["error"] == pytest.approx(sum(by_hand.errors.values()) / len(by_hand.errors))
    assert found["bits"] == pytest.approx(by_hand.bits_per_weight)
    assert Scheme.parse(found["scheme"]) == by_hand.scheme


def test_z_is_the_one_with_the_least_error_of_outputs_on_the_calibration_text(model, settings, calibration):
    zs = [1, 2, 3, 5, 8]
    found = quantized_quality({**settings, "scheme": "int4 block=tensor clip=z", "zs": zs}, 0, ())
    plans = {z: plan_quantization(model, f"int4 block=tensor clip=z{z}", progress=False) for z in zs}
    errors = {z: output_error(model, plan, calibration) for z, plan in plans.items()}
    assert found["scheme"] == f"int4 block=tensor clip=z{min(errors, key=errors.get)}"
    whole = plan_quantization(model, "int8 block=8", progress=False)
    assert output_error(model, whole, calibration) < min(errors.values())


def test_the_random_column_is_another_one_of_the_same_matrix(model):
    found = groups(model, SET, 0)
    assert found["the column"] == [(1, row, 21) for row in range(16)]
    (other,) = {into for _, _, into in found["a random column"]}
    assert found["a random column"] == [(1, row, other) for row in range(16)] and other != 21


def test_matrices_that_are_not_named_stay_as_they_are(model, settings):
    found = quantized_quality({**settings, "matrices": ["mlp.c_proj"]}, 0, ())
    by_hand = plan_quantization(model, settings["scheme"], matrices=["mlp.c_proj"], progress=False)
    with quantized(model, by_hand):
        assert found["losses"] == losses(model)


@pytest.mark.parametrize("scheme", [None, "int8 block=tensor symmetric"])
@pytest.mark.parametrize("spare", ["nothing", "the weight", "the set"])
def test_activations_are_rounded_with_the_channels_spared(model, settings, scheme, spare):
    found = quantized_quality({**settings, "scheme": scheme, "activations": 4, "spare": spare}, 0, ())
    weights = {"nothing": [], "the weight": [PLANTED], "the set": SET}[spare]
    with quantized_activations(model, 4, super_activations(model, weights)):
        if scheme is None:
            assert found["losses"] == losses(model)
            return
        with quantized(model, plan_quantization(model, scheme, progress=False)):
            assert found["losses"] == losses(model)


def test_as_many_random_channels_are_spared_as_the_set_s(model):
    found = spared_channels(model, SET, 0)
    for name, channels in found["the set"].items():
        assert len(set(found["random channels"][name])) == len(channels)
    assert found["random channels"] == spared_channels(model, SET, 0)["random channels"]


@pytest.mark.parametrize("setting", ["hold", "spare"])
def test_an_unknown_group_is_refused(settings, setting):
    with pytest.raises(UserError, match=f"{setting} is 'all'; expected nothing, the weight"):
        quantized_quality({**settings, "activations": 8, setting: "all"}, 0, ())


def test_every_variant_has_a_scheme_or_activations_and_a_set_that_begins_with_the_weight():
    for label in QUANTIZING.variants:
        own = QUANTIZING.settings_of(label)
        if own["scheme"] is not None:
            assert Scheme.parse(f"{own['scheme']}{own['zs'][0]}" if own["zs"] else own["scheme"])
        assert own["scheme"] or own["activations"] or label == "nothing"
        assert all(map(parse, own["weights"]))
