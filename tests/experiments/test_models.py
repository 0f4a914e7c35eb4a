"""The models experiment: a candidate's trial in any model, and rows that wait for a hub."""

import json

import pytest

from supertf.data.text import held_out_texts
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.experiments.models import on_trial
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.description import WAITING
from supertf.superweights.ablation import ablate

pytestmark = pytest.mark.usefixtures("one_thread")
MODELS = EXPERIMENTS["models"]
SETTINGS = {**MODELS.settings, **MODELS.quick}


def test_a_cell_is_the_trial_of_the_first_candidate_beside_its_controls(model, run):
    found = on_trial({**SETTINGS, "model": run, "prompt": "Apple"}, 0, ())
    assert found == json.loads(json.dumps(found))
    assert found["weight"] == "1[7, 21]" and found["candidates"] >= 1
    texts = [
        text
        for name in TEXTS
        for text in held_out_texts(name, load_tokenizer("bytes"), count=2, windows=1, length=64)
    ]
    alone = ablate(model, "1[7, 21]", texts, SETTINGS["controls"], progress=False)
    assert found["verdict"] == alone.verdict
    for name, removal in (("the weight", alone.candidate), ("random", alone.random), ("its row", alone.row)):
        told = [loss for domain in TEXTS for loss in found["losses"][name][domain]]
        assert told == pytest.approx(removal.losses, rel=1e-4)
    assert list(found["losses"]["nothing"]) == list(found["texts"]) == list(TEXTS)


def test_a_model_of_a_hub_that_is_not_reached_waits_and_a_missing_file_is_refused(monkeypatch):
    def fail(name, **_):
        raise UserError(f"could not fetch {name}")

    monkeypatch.setattr("supertf.experiments.models.load", fail)
    assert on_trial({**SETTINGS, "model": "owner/name"}, 0, ()) == {WAITING: "could not fetch owner/name"}
    with pytest.raises(UserError, match=r"missing\.gguf"):
        on_trial({**SETTINGS, "model": "missing.gguf"}, 0, ())
