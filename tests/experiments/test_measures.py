"""What the cells of the lab's experiments return, on runs too short to learn anything."""

import json

import pytest
import torch

from supertf.data.lab_text import lab_tokens
from supertf.errors import UserError
from supertf.experiments import language, recall, swap
from supertf.experiments.smollm2_longer import text
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.model.config import language_config
from supertf.model.gpt import GPT
from supertf.training.settings import TrainResult

TINY = {"steps": 3, "questions": 8}


def settings_of(name: str, variant: str, **changes):
    described = EXPERIMENTS[name]
    return {**described.settings_of(variant), **described.quick, **changes}


def test_answers_are_scored_by_length_also_after_swaps(one_thread):
    found = recall.answers(settings_of("recall", "softmax none", **TINY), 0, (64, 100))
    assert json.loads(json.dumps(found)) == found
    assert set(found["swaps"]) == {"logn", "constant 1.78"}
    for scores in (found, *found["swaps"].values()):
        assert set(scores["accuracy"]) == {"64", "100"}
        assert 0 <= scores["accuracy"]["100"] <= 1
    assert found["steps"] == [3] and len(found["loss"]) == 1 and "s" not in found


def test_a_length_that_a_table_of_positions_cannot_read_is_none(one_thread):
    found = recall.answers(settings_of("recall", "ssmax learned", **TINY), 0, (64, 128))
    assert found["accuracy"]["64"] is not None
    assert found["accuracy"]["128"] is found["entropy"]["128"] is None
    assert len(found["s"][-1]) == 4


def test_very_long_sequences_are_asked_fewer_questions(one_thread, monkeypatch):
    monkeypatch.setattr(recall, "ITEMS_ASKED", 512)
    settings = settings_of("extreme", "recall ssmax", steps=2, questions=256)
    found = recall.answers(settings, 0, (64, 4096))
    assert found["questions"] == {"64": 256, "4096": 32}  # whole batches


def test_a_swap_is_scored_before_and_after_a_little_training(one_thread):
    settings = settings_of("swap", "softmax none", **TINY)
    settings["tuning"] = {**settings["tuning"], "steps": 2}
    found = swap.swaps(settings, 0, (64,))
    labels = ["softmax", "logn", "constant 1.78", "ssmax"]
    assert list(found) == [name for label in labels for name in (label, f"{label}, tuned")]
    # at the trained length, 72 tokens, log n / log 72 is 1 or less and so the swap changes nothing
    assert found["logn"]["accuracy"] == found["softmax"]["accuracy"]


def test_a_language_model_is_looked_at_from_all_sides(one_thread):
    settings = settings_of("language", "ssmax none", steps=4, batch_size=2)
    found = language.language(settings, 0, (64, 128))
    assert json.loads(json.dumps(found)) == found
    assert found["steps"] == [1, 2, 3, 4]
    assert len(found["training"]) == len(found["validation"]) == len(found["mean_s"]) == 4
    assert found["validation_loss"] == found["validation"][-1]
    assert set(found["beyond"]["128"]) == {"mean", "last_half"}
    assert len(found["kurtosis"]) == len(found["max_over_median"]) == len(found["probe"]) == 4
    assert (
        torch.tensor(found["entropy"]["128"]).shape == torch.tensor(found["sink"]["by_head"]).shape == (3, 4)
    )
    learned = settings_of("language", "softmax learned", steps=1, batch_size=2)
    beyond = language.language(learned, 0, (64, 128))["beyond"]
    assert beyond["64"] is not None and beyond["128"] is None


def test_an_interrupted_training_is_no_result(monkeypatch):
    def interrupted(config, *_):
        return TrainResult(GPT(config), interrupted=True)

    monkeypatch.setattr(language, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        language.language(settings_of("language", "softmax none"), 0, (64,))


def test_the_same_windows_are_held_out_for_every_model():
    _, validation = lab_tokens(257)
    bos = validation.tokenizer.eot_token
    first, again = (language.held_out(validation, 32, 5, bos) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (5, 32) and (first[:, 0] == bos).all()
    assert len({tuple(row.tolist()) for row in first}) == 5


def test_losses_beyond_the_context_are_those_of_the_model():
    train, validation = lab_tokens(257)
    torch.manual_seed(0)
    model = GPT(language_config(257, 16)).eval()
    with torch.no_grad():
        model.wte.weight.zero_()
    found = language.losses(model, validation, 64, train.tokenizer.eot_token)
    uniform = torch.tensor(257.0).log().item()
    assert found == pytest.approx({"mean": uniform, "last_half": uniform}, rel=1e-4)


@pytest.mark.real_model
def test_texts_for_the_real_model_are_as_long_as_asked_and_do_not_overlap():
    first, second = text("prose", 0, 300), text("prose", 1, 300)
    assert len(first) == len(second) == 301
    assert first[300] == second[0] and first != second
    with pytest.raises(UserError, match=r"readmes:train has .* and text 1 of 16384 ends at 32769"):
        text("readmes", 1, 16_384)
