"""The removals experiment: its cells tell the losses of a model without weights, domain by domain."""

import hashlib

import pytest

from supertf.analysis.intervals import mean_interval
from supertf.analysis.losses import perplexity
from supertf.data.text import held_out_texts
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.removals import changed, chosen
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.results import Results
from supertf.superweights.ablation import largest_elsewhere, random_weights, whole_row
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
REMOVALS = EXPERIMENTS["removals"]
PLANTED = (1, 7, 21)


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    return {**REMOVALS.settings, **REMOVALS.quick, "model": run}


def by_hand(model, weights, factor):
    """Losses of one window of 16 bytes each, of two texts of each domain."""
    found = {}
    for name in TEXTS:
        texts = held_out_texts(name, load_tokenizer("bytes"), count=2, windows=1, length=16)
        with scaled_weights(model, weights, factor):
            found[name] = [perplexity(model, text.ids, 16).loss for text in texts]
    return found


@pytest.mark.parametrize("factor", [0.0, 2.0])
@pytest.mark.parametrize("weights", [[], ["1[7, 21]"], ["1[7, 21]", "0[3, 5]"]])
def test_a_cell_tells_the_losses_with_the_weights_changed(model, settings, weights, factor):
    found = changed({**settings, "weights": weights, "factor": factor}, 0, ())
    named = {"1[7, 21]": PLANTED, "0[3, 5]": (0, 3, 5)}
    expected = by_hand(model, [named[one] for one in weights], factor)
    assert found["weights"] == weights
    for name, losses in expected.items():
        assert found["losses"][name] == pytest.approx(losses)
    texts = held_out_texts("prose", load_tokenizer("bytes"), count=2, windows=1, length=16)
    digest = hashlib.sha256(b"".join(text.ids.numpy().tobytes() for text in texts)).hexdigest()
    assert found["texts"]["prose"] == digest


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("random 4", lambda model: random_weights(model, PLANTED, 3, 4)),
        ("largest", lambda model: largest_elsewhere(model, 7, 3)),
        ("row", lambda model: whole_row(model, PLANTED)),
    ],
)
def test_controls_are_those_of_the_one_weight(model, settings, control, expected):
    assert chosen(model, [PLANTED], control, 3) == expected(model)
    found = changed({**settings, "weights": ["1[7, 21]"], "control": control, "count": 3}, 0, ())
    assert found["losses"]["prose"] == pytest.approx(by_hand(model, expected(model), 0.0)["prose"])


@pytest.mark.parametrize("control", ["random", "random x", "column"])
def test_an_unknown_control_is_refused(model, control):
    with pytest.raises(UserError, match="expected random N, largest or row"):
        chosen(model, [PLANTED], control, 3)


def test_every_variant_of_the_experiment_names_what_is_changed(settings):
    for variant in REMOVALS.variants:
        own = REMOVALS.settings_of(variant)
        assert own["control"] is None or len(own["weights"]) == 1


def test_log_ratios_are_paired_by_text_in_every_domain_and_over_all():
    described = Experiment(
        "toy", "?", "toy_measures:draw", {"a": 0}, {"base": {}, "other": {"a": 1}}, seeds=(0,)
    )
    losses = {"base": {"x": [1.0, 2.0], "y": [3.0, 5.0]}, "other": {"x": [1.5, 2.75], "y": [3.0, 5.5]}}
    cells = [{"variant": name, "seed": 0, "result": {"losses": one}} for name, one in losses.items()]
    found = Results(described, cells, {}).log_ratios("other", "base")
    assert found == {
        "x": mean_interval([0.5, 0.75]),
        "y": mean_interval([0.0, 0.5]),
        "all": mean_interval([0.5, 0.75, 0.0, 0.5]),
    }
