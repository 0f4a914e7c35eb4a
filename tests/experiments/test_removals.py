"""The removals experiment: its cells tell the losses of a model without weights, domain by domain."""

import hashlib
import itertools
import math

import pytest
import torch

from supertf.analysis.last_words import finds_last_words
from supertf.analysis.losses import perplexity
from supertf.data.passages import last_words
from supertf.data.text import held_out_texts
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.removals import changed, chosen, rebalanced
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.superweights.ablation import largest_elsewhere, random_weights, whole_row
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
REMOVALS = EXPERIMENTS["removals"]
PLANTED = (1, 7, 21)


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    return {**REMOVALS.settings, **REMOVALS.quick, "model": run, "watched": "1[7, 21]"}


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
        ("column", lambda model: [(1, row, 21) for row in range(16)]),
        ("rest of column", lambda model: [(1, row, 21) for row in range(16) if row != 7]),
    ],
)
def test_controls_are_those_of_the_one_weight(model, settings, control, expected):
    assert chosen(model, [PLANTED], control, 3) == expected(model)
    found = changed({**settings, "weights": ["1[7, 21]"], "control": control, "count": 3}, 0, ())
    assert found["losses"]["prose"] == pytest.approx(by_hand(model, expected(model), 0.0)["prose"])


def test_random_columns_are_whole_ones_and_never_the_weight_s(model):
    found = chosen(model, [PLANTED], "random columns", 5)
    columns = {into for _, _, into in found}
    assert len(columns) == 5 and 21 not in columns
    assert sorted(found) == sorted((1, row, into) for row in range(16) for into in columns)


@pytest.mark.parametrize("control", ["random", "random x", "columns"])
def test_an_unknown_control_is_refused(model, control):
    with pytest.raises(UserError, match="expected random N, largest, row, column"):
        chosen(model, [PLANTED], control, 3)


def test_every_variant_of_the_experiment_names_what_is_changed(settings):
    for variant in REMOVALS.variants:
        own = REMOVALS.settings_of(variant)
        assert own["control"] is None or len(own["weights"]) == 1


def first_state(model, text, weights):
    """What the second block gives out at a text's first token, without some weights."""
    states = []
    hook = model.h[1].register_forward_hook(lambda module, x, y: states.append(y[0][0, 0].double()))
    with scaled_weights(model, weights), torch.inference_mode():
        model(text.ids[:1].view(1, 1))
    hook.remove()
    return states[0]


def test_states_are_compared_at_the_first_token_of_every_window(model, settings):
    same = changed({**settings, "weights": []}, 0, ())
    without = changed({**settings, "weights": ["1[7, 21]"]}, 0, ())
    for name in TEXTS:
        assert same["left"][name] == pytest.approx([1, 1])
        assert same["turned"][name] == pytest.approx([0, 0], abs=1e-3)
        for number, text in enumerate(
            held_out_texts(name, load_tokenizer("bytes"), count=2, windows=1, length=16)
        ):
            before, after = (first_state(model, text, weights) for weights in ([], [PLANTED]))
            left = float(after[7] / before[7])
            assert without["left"][name][number] == pytest.approx(left, rel=1e-5, abs=1e-6)
            cosine = torch.cosine_similarity(before, after, dim=0).clamp(-1, 1)
            turned = math.degrees(cosine.acos())
            assert without["turned"][name][number] == pytest.approx(turned, abs=1e-3)
    assert max(map(max, without["turned"].values())) > 10, "the planted weight fires at some first tokens"


def test_a_kept_activation_mends_what_sits_at_first_tokens(settings):
    whole, without = (changed({**settings, "weights": weights}, 0, ()) for weights in ([], ["1[7, 21]"]))
    kept = changed({**settings, "weights": ["1[7, 21]"], "edit": "kept"}, 0, ())
    assert kept["losses"] != without["losses"] and kept["left"] != without["left"]
    for name in TEXTS:
        assert kept["left"][name] == pytest.approx(whole["left"][name])


@pytest.mark.parametrize("edit", ["shrunk", "rest enlarged"])
def test_edits_change_the_balance_of_the_first_state_as_they_say(model, settings, edit):
    without = changed({**settings, "weights": ["1[7, 21]"]}, 0, ())
    found = changed({**settings, "edit": edit}, 0, ())
    for name, number in itertools.product(TEXTS, range(2)):
        left, turned = without["left"][name][number], without["turned"][name][number]
        if left > 0:  # else the rest would point the other way
            expected = (left, 0) if edit == "shrunk" else (1, turned)
            assert found["left"][name][number] == pytest.approx(expected[0], rel=1e-3, abs=1e-5)
            assert found["turned"][name][number] == pytest.approx(expected[1], rel=1e-3, abs=0.05)
    ids = torch.arange(8).view(1, 8)
    before = model(ids).logits
    with rebalanced(model, PLANTED, edit):
        assert not torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, before)


def test_an_unknown_edit_is_refused(settings):
    with pytest.raises(UserError, match="edit is 'bent'; expected kept, shrunk or rest enlarged"):
        changed({**settings, "edit": "bent"}, 0, ())


def test_last_words_are_counted_where_passages_are_asked_for(model, settings):
    found = changed({**settings, "passages": 3}, 0, ())
    for name in TEXTS:
        passages = last_words(name, load_tokenizer("bytes"), 3)
        assert found["last_words"][name] == finds_last_words(model, passages)
    assert changed(settings, 0, ())["last_words"] == {name: [] for name in TEXTS}
