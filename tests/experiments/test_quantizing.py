"""The quantization experiment: its cells tell what rounding, holding out and sparing by hand do."""

import json

import pytest

from supertf.analysis.losses import perplexity
from supertf.compression.calibration import calibrate
from supertf.compression.quantization.activations import quantized_activations, super_activations
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.quantization.rounding import Scheme
from supertf.compression.verbs import quantized
from supertf.data.tokenizer import load_tokenizer
from supertf.experiments.quantizing import AWAY, columns, documentation, quantized_quality
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.model.weight_matrices import parse

pytestmark = pytest.mark.usefixtures("one_thread")
QUANTIZING = EXPERIMENTS["quantizing"]
PLANTED, BESIDE = (1, 7, 21), (1, 7, 3)
SHIELDS = ["none", "super", "set", "random", "column", "random column"]
LENGTH = 16


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    changes = {"windows": 2, "length": LENGTH, "calibration": 64, "dtype": "float32", "shields": SHIELDS}
    weights = {"super": ["1[7, 21]"], "set": ["1[7, 21]", "1[7, 3]"]}
    return {**QUANTIZING.settings, **changes, **weights, "model": run, "scheme": "int4 block=tensor"}


def read(number, tokens):
    return documentation(number, load_tokenizer("bytes"))[:tokens]


def quality(model, seed=0):
    return perplexity(model, read(seed, 2 * LENGTH + 1), LENGTH).perplexity


@pytest.mark.parametrize(
    "scheme", ["int4 block=tensor", "int4 block=8 clip=z2", "int3 block=channel clip=output"]
)
def test_a_cell_tells_what_rounding_by_hand_does(model, settings, scheme):
    found = quantized_quality({**settings, "scheme": scheme}, 3, ())
    assert json.loads(json.dumps(found)) == found
    assert found["dense"] == pytest.approx(quality(model, 3))
    assert found["before"] == pytest.approx([3.0, model.h[1].mlp.c_proj.weight[7, 3].item()])
    calibration = calibrate(model, read(3 + AWAY, 64), LENGTH)
    column = [(1, row, 21) for row in range(len(model.h[1].mlp.c_proj.weight))]
    held_out = {"none": [], "super": [PLANTED], "set": [PLANTED, BESIDE], "column": column}
    for shield, weights in held_out.items():
        by_hand = plan_quantization(
            model, scheme, protect=weights, watch=[PLANTED, BESIDE], calibration=calibration, progress=False
        )
        with quantized(model, by_hand):
            assert found[shield]["perplexity"] == pytest.approx(quality(model, 3), rel=1e-5), shield
        assert found[shield]["after"] == pytest.approx([fate.after for fate in by_hand.fates])
        worst = max(by_hand.errors.values())
        assert found[shield]["worst"][1] == pytest.approx(worst)
        assert found[shield]["error"] == pytest.approx(sum(by_hand.errors.values()) / len(by_hand.errors))
        assert by_hand.errors[found[shield]["worst"][0]] == worst
    assert found["bits_per_weight"] == pytest.approx(
        plan_quantization(model, scheme, calibration=calibration).bits_per_weight
    )


def test_holding_the_planted_weight_out_of_one_grid_for_all_helps_and_random_ones_do_not(settings):
    found = quantized_quality(settings, 0, ())
    saved, random = (found["none"]["error"] - found[shield]["error"] for shield in ("super", "random"))
    assert saved > 0.1 * found["none"]["error"] and abs(random) < 0.1 * saved


def test_the_random_column_is_another_one_of_the_same_matrix(model):
    found = columns(model, PLANTED, 0)
    rows = len(model.h[1].mlp.c_proj.weight)
    assert found["column"] == [(1, row, 21) for row in range(rows)]
    (other,) = {into for _, _, into in found["random column"]}
    assert found["random column"] == [(1, row, other) for row in range(rows)] and other != 21
    drawn = {columns(model, PLANTED, seed)["random column"][0][2] for seed in range(200)}
    assert 21 not in drawn and len(drawn) > 30, "39 others"


def test_random_weights_are_drawn_by_the_seed_and_results_come_again(settings):
    first, second, again = (quantized_quality(settings, seed, ()) for seed in (0, 1, 0))
    assert first == again
    assert first["dense"] != second["dense"]
    assert first["none"]["error"] == second["none"]["error"] and first["random"] != second["random"]


def test_kinds_leave_the_other_matrices_alone(model, settings):
    found = quantized_quality({**settings, "kinds": ["mlp.c_proj"], "shields": ["none"]}, 0, ())
    by_hand = plan_quantization(model, settings["scheme"], matrices=["mlp.c_proj"], progress=False)
    with quantized(model, by_hand):
        assert found["none"]["perplexity"] == pytest.approx(quality(model))


def test_with_activations_shields_spare_channels(model, settings):
    scheme = "int8 block=tensor symmetric"
    found = quantized_quality({**settings, "scheme": scheme, "activations": 4, "shields": SHIELDS[:4]}, 0, ())
    with quantized(model, plan_quantization(model, scheme, progress=False)):
        assert found["weights"] == pytest.approx(quality(model))
        for shield, weights in {"none": [], "super": [PLANTED], "set": [PLANTED, BESIDE]}.items():
            with quantized_activations(model, 4, super_activations(model, weights)):
                assert found[shield]["perplexity"] == pytest.approx(quality(model), rel=1e-5), shield
    assert found["random"]["perplexity"] not in (found["none"]["perplexity"], found["set"]["perplexity"])


def test_another_dtype_evaluates_the_same_weights(settings):
    found = [quantized_quality({**settings, "dtype": dtype}, 0, ()) for dtype in ("float32", "bfloat16")]
    for shield in SHIELDS:
        assert found[0][shield]["error"] == found[1][shield]["error"]
    ratio = found[0]["none"]["perplexity"] / found[1]["none"]["perplexity"]
    assert ratio != 1 and ratio == pytest.approx(1, rel=0.2)


def test_every_variant_quantizes_by_a_scheme_that_its_label_begins_with():
    for label in QUANTIZING.variants:
        settings = QUANTIZING.settings_of(label)
        if not settings["activations"]:
            scheme, *_ = label.split(",")
            assert Scheme.parse(scheme) == Scheme.parse(settings["scheme"])
        assert set(settings["super"]) <= set(settings["set"])
        assert all(map(parse, settings["set"]))
