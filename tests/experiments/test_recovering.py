"""The recovery experiment: its cells tell what pruning, training and removing a weight by hand do."""

import copy
import dataclasses
import json

import pytest
from planted import CONFIG, planted_model

from supertf.analysis.losses import perplexity
from supertf.compression.calibration import calibrate
from supertf.compression.pruning.recovery import recover
from supertf.compression.pruning.structured import plan_structured, smaller
from supertf.compression.verbs import pruned
from supertf.data.tokenizer import load_tokenizer
from supertf.experiments.quantizing import AWAY
from supertf.experiments.recovering import recovered
from supertf.experiments.smollm2_longer import APART, text
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
PLANTED, LENGTH, TRAINING = (1, 7, 21), 16, 600


@pytest.fixture(scope="module")
def model():
    return planted_model(*PLANTED, dataclasses.replace(CONFIG, vocab_size=257, n_ctx=128))


@pytest.fixture(scope="module")
def settings(run):
    """Settings of a cell, of a checkpoint of the model."""
    changes = {"windows": 2, "length": LENGTH, "calibration": 64, "training": TRAINING, "steps": 2}
    return {**EXPERIMENTS["recovering"].settings, **changes, "model": run, "weight": "1[7, 21]"}


def read(number, tokens):
    return text(number, APART, load_tokenizer("bytes"))[:tokens]


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_a_cell_tells_what_each_step_by_hand_does(model, settings, teacher, sparsity):
    found = recovered({**settings, "teacher": teacher, "sparsity": sparsity}, 1, ())
    assert json.loads(json.dumps(found)) == found

    def quality(of):
        return pytest.approx(perplexity(of, read(1, 2 * LENGTH + 1), LENGTH).perplexity, rel=1e-5)

    calibration = calibrate(model, read(1 + AWAY, 64), LENGTH)
    chosen = plan_structured(model, "channels", sparsity, calibration, progress=False)
    with pruned(model, chosen):
        zeros = copy.deepcopy(model)
    training = read(1 + 2 * AWAY, TRAINING + 1)
    trained = recover(zeros, training, 2, teacher=model if teacher else None, seed=1, progress=False).model
    assert found["dense"] == quality(model)
    assert found["before"] == quality(zeros)
    assert found["after"] == quality(trained)
    assert (found["before"] == found["dense"]) == (sparsity == 0)
    assert found["value"] == trained.h[1].mlp.c_proj.weight[7, 21].item()
    assert found["parameters"] == smaller(model, chosen).num_parameters()
    for ratio, whole, of in (("ratio_before", "before", zeros), ("ratio_after", "after", trained)):
        with scaled_weights(of, [PLANTED]):
            assert found[ratio] * found[whole] == quality(of)
