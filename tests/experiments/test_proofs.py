"""The proofs experiment: its cells tell what removing a weight does, on texts that differ."""

import json
import math

import pytest

from supertf.analysis.losses import perplexity
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments import proofs
from supertf.experiments.proofs import proof
from supertf.experiments.smollm2_longer import text
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.model.weight_matrices import parse
from supertf.superweights.ablation import random_weights

pytestmark = pytest.mark.usefixtures("one_thread")
PROOFS = EXPERIMENTS["proofs"]
PLANTED = (1, 7, 21)


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell about the planted weight, of a checkpoint of the model."""
    return {**PROOFS.settings, **PROOFS.quick, "model": run, "coordinate": "1[7, 21]"}


def loss_of(model, seed):
    """Of one window, as `quick` has it."""
    return perplexity(model, text(seed, proofs.APART, load_tokenizer("bytes"))[:17], 16).loss


def without(model, coordinates, seed):
    """The loss after removing weights by hand."""
    weights = [block.mlp.c_proj.weight.data for block in model.h]
    kept = [weight.clone() for weight in weights]
    for layer, *place in coordinates:
        weights[layer][tuple(place)] = 0.0
    found = loss_of(model, seed)
    for weight, before in zip(weights, kept, strict=True):
        weight.copy_(before)
    return found


def test_a_cell_tells_what_removals_by_hand_do(model, settings):
    found = proof({**settings, "each": True}, 3, ())
    assert json.loads(json.dumps(found)).keys() == found.keys()
    base = loss_of(model, 3)
    assert found["base"] == pytest.approx(base)
    assert found["weight"] == 3.0
    assert found["ratio"] == pytest.approx(math.exp(without(model, [PLANTED], 3) - base), rel=1e-4)
    assert set(found["controls"]) == {"random", "largest", "row_largest", "row"}
    for name, coordinates in found["coordinates"].items():
        ratio = math.exp(without(model, coordinates, 3) - base)
        assert found["controls"][name] == pytest.approx(ratio, rel=1e-4), name
    assert list(found["coordinates"]["random"]) == random_weights(model, PLANTED, 2, seed=3)
    assert found["each"] == pytest.approx(
        [math.exp(without(model, [one], 3) - base) for one in found["coordinates"]["random"]], rel=1e-4
    )
    assert found["controls"]["row"] != pytest.approx(found["controls"]["row_largest"])


def test_a_weight_that_the_model_needs_is_super_and_others_are_not(settings):
    assert proof(settings, 0, ())["verdict"] == "super"
    assert proof({**settings, "coordinate": "0[3, 5]"}, 0, ())["verdict"] == "inert"


def test_scaling_and_restoration_are_measured_where_there_are_factors(settings):
    found = proof({**settings, "factors": [0, 0.5, 1]}, 0, ())
    removed, half, same = found["scaling"]
    assert removed == pytest.approx(found["ratio"]) and same == 1.0 and half not in (removed, same)
    back = found["restoration"]
    assert back["removed"] == pytest.approx(found["base"] + math.log(found["ratio"]))
    assert back["share"] == pytest.approx(
        (back["removed"] - back["restored"]) / (back["removed"] - found["base"])
    )
    assert not {"scaling", "restoration"} & set(proof(settings, 0, ()))


def test_seeds_are_texts_and_random_weights_of_their_own(settings):
    first, second, again = (proof(settings, seed, ()) for seed in (0, 1, 0))
    assert first == again
    assert first["base"] != second["base"]
    assert first["coordinates"]["random"] != second["coordinates"]["random"]
    assert first["coordinates"]["largest"] == second["coordinates"]["largest"]


def test_texts_that_would_overlap_are_refused(settings):
    with pytest.raises(UserError, match="16640 tokens of text, expected at most 16384"):
        proof({**settings, "windows": 65, "length": 256}, 0, ())


def test_every_variant_is_about_the_weight_of_its_label():
    for label in PROOFS.variants:
        assert parse(PROOFS.settings_of(label)["coordinate"]) == parse(label)
