"""The refitting experiment: its cells tell what leaving out and fitting anew by hand do."""

import dataclasses
import json

import pytest
import torch
from planted import CONFIG, planted_model

from supertf.analysis.losses import perplexity
from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import input_sizes
from supertf.compression.pruning.refitting import refit
from supertf.compression.pruning.structured import plan_structured, smaller
from supertf.data.tokenizer import load_tokenizer
from supertf.experiments.refitting import refitted
from supertf.experiments.smollm2_longer import APART, text
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
PLANTED, LENGTH, TOKENS, AWAY = (1, 7, 21), 16, APART + 64, 3


@pytest.fixture(scope="module")
def model():
    return planted_model(*PLANTED, dataclasses.replace(CONFIG, vocab_size=257, n_ctx=128))


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    changes = {"windows": 2, "length": LENGTH, "calibration": 64, "tokens": [128, TOKENS], "away": AWAY}
    return {**EXPERIMENTS["refitting"].settings, **changes, "model": run, "weight": "1[7, 21]"}


@pytest.fixture(scope="module")
def training():
    """More than one text's worth, beginning AWAY texts after the one that is measured."""
    first, second = (text(1 + AWAY + i, APART, load_tokenizer("bytes")) for i in range(2))
    return torch.tensor(first[:APART] + second[: TOKENS - APART])


def quality(of):
    evaluation = text(1, APART, load_tokenizer("bytes"))[: 2 * LENGTH + 1]
    return pytest.approx(perplexity(of, evaluation, LENGTH).perplexity, rel=1e-5)


def test_a_dynamic_cell_tells_what_each_step_by_hand_does(model, settings, training):
    found = refitted(settings, 1, ())
    assert json.loads(json.dumps(found)) == found
    kinds = ["mlp.c_proj"]
    plan = plan_dynamic(
        model, "inputs", 0.5, input_sizes(model, training[:64], LENGTH, matrices=kinds), matrices=kinds
    )
    assert found["dense"] == quality(model)
    with dynamically_pruned(model, plan) as skipped:
        assert found["before"] == quality(model)
    assert found["removed"] == pytest.approx(sum(skipped.sparsities.values()) / CONFIG.n_layer)
    for after, tokens in zip(found["after"], (128, TOKENS), strict=True):
        new = refit(model, training[:tokens], plan, length=LENGTH, progress=False)
        assert after["value"] == new.h[1].mlp.c_proj.weight[7, 21].item()
        assert after["whole"] == quality(new)
        with dynamically_pruned(new, plan):
            assert after["perplexity"] == quality(new)
            with scaled_weights(new, [PLANTED]):
                assert after["ratio"] * after["perplexity"] == quality(new)


def test_a_cell_of_channels_is_about_the_smaller_model(model, settings, training):
    changes = {"method": "channels", "kinds": None, "sparsity": 0.25, "tokens": [128]}
    found = refitted({**settings, **changes}, 1, ())
    calibration = calibrate(model, training[:64], LENGTH)
    small = smaller(model, plan_structured(model, "channels", 0.25, calibration, progress=False))
    assert found["before"] == quality(small)
    new = refit(small, training[:128], teacher=model, length=LENGTH, progress=False)
    assert found["after"][0]["perplexity"] == quality(new)
    assert found["after"][0].keys() == {"perplexity", "removed", "seconds"}
