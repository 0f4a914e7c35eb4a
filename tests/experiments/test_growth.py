"""The growth experiment: what it records, and that it would see a super weight if there were one."""

import json
import math

import pytest
import torch
from planted import planted_model
from tiny import tiny_config
from torch.nn import functional as F

from supertf.experiments import growth as growing
from supertf.experiments.growth import growth, log_spaced, look
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.model.generation import generate
from supertf.model.gpt import GPT
from supertf.training.settings import TrainResult

pytestmark = pytest.mark.usefixtures("one_thread")
GROWTH = EXPERIMENTS["growth"]


def settings_of(variant: str, **changes):
    return {**GROWTH.settings_of(variant), **GROWTH.quick, "vocab_size": 257, "context": 32, **changes}


def needy_model() -> tuple[GPT, torch.Tensor]:
    """A model with a planted weight that decides what it says, and text that it wrote itself, (8, 25)."""
    model = planted_model()
    with torch.no_grad():
        model.ln_f.weight *= 150  # sharp predictions
    rows = [[token, *generate(model, [token], 24, temperature=1.0, seed=token)] for token in range(8)]
    return model, torch.tensor(rows)


def test_a_planted_super_weight_is_seen_and_its_removal_harmful():
    """The same function that watches the training, so that its finding nothing means something."""
    model, rows = needy_model()
    found = look(model, rows, seed=0)
    layer = found["layers"][1]
    assert found["strongest"] == 1
    assert layer["coordinate"] == (1, 7, 21)
    assert layer["same_channel"]
    assert layer["share"] == pytest.approx(1.0, abs=0.05)
    assert min(layer["input_ratio"], layer["output_ratio"]) == found["most"]["spike_ratio"] > 50
    assert layer["harm"] == found["most"]["spike_harm"] > 2
    assert max(found["random"]) < 1.5
    assert max(found["max_over_median"][2:]) > 3 * max(found["max_over_median"][:2])
    assert found["massive"]["channel"] == 7


def test_removing_a_weight_by_hand_costs_what_is_recorded():
    model, rows = needy_model()
    found = look(model, rows, seed=0)

    def plain_loss():
        with torch.no_grad():
            return F.cross_entropy(model(rows[:, :-1]).logits.flatten(0, 1), rows[:, 1:].flatten()).item()

    before = plain_loss()
    assert found["loss"] == pytest.approx(before, rel=1e-4)
    weights = model.h[1].mlp.c_proj.weight.data
    for told in (found["layers"][1], found["layers"][1]["largest"]):
        _, out, into = told["coordinate"]
        kept = weights[out, into].item()
        weights[out, into] = 0.0
        assert told["harm"] == pytest.approx(math.exp(plain_loss() - before), rel=1e-3)
        weights[out, into] = kept
    assert found["layers"][1]["largest"]["coordinate"] == (1, *divmod(int(weights.abs().argmax()), 40))


def test_the_steepest_weight_is_the_one_whose_shrinking_costs_most():
    """Against losses with every weight of a tiny model made a little smaller, in double precision."""
    torch.manual_seed(0)
    model = GPT(tiny_config(n_layer=2, n_embd=4, n_inner=3, n_head=2, init_std=0.5)).double().eval()
    rows = torch.randint(257, (4, 17))
    costs = {}
    for layer in range(2):
        for out in range(4):
            for into in range(3):
                with growing.scaled_weights(model, [(layer, out, into)], 1 - 1e-4):
                    costs[layer, out, into] = float(growing.loss(model, rows))
    assert growing.steepest_weight(model, rows) == max(costs, key=costs.get)


def test_looking_leaves_the_model_and_the_random_numbers_as_they_were():
    model, rows = needy_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    look(model, rows, seed=0)
    assert torch.equal(torch.rand(3), expected)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_cell_records_every_moment_and_the_largest_of_all():
    variant = next(label for label in GROWTH.variants if label.startswith("swiglu"))
    found = growth(settings_of(variant), 0, ())
    assert json.loads(json.dumps(found)).keys() == found.keys()
    steps = [moment["step"] for moment in found["moments"]]
    assert steps == log_spaced(GROWTH.quick["steps"], GROWTH.quick["moments"])
    layers = range(GROWTH.variants[variant]["model"]["n_layer"])
    assert [layer["coordinate"][0] for layer in found["layers"]] == list(layers)
    assert found["moments"][-1]["most"]["spike_harm"] == max(layer["harm"] for layer in found["layers"])
    first, last = found["moments"][0], found["moments"][-1]
    assert first["loss"] > last["loss"]  # it was the training model that was looked at
    for name, value in first["most"].items():
        assert found[name] == max(moment["most"][name] for moment in found["moments"]) >= value


@pytest.mark.parametrize("bos", [True, False])
def test_windows_begin_with_bos_or_not_in_training_and_in_the_looks(monkeypatch, bos):
    seen = {}

    def no_training(config, train_file, validation_file, training, on_step):
        seen["bos in training"] = training.bos
        seen["bos"] = train_file.tokenizer.eot_token
        on_step(0, GPT(config).eval())
        return TrainResult(GPT(config), [{"validation_loss": 1.0, "loss": 1.0}])

    def no_look(model, rows, seed):
        seen["rows"] = rows
        return {"loss": 1.0, "most": {}, "layers": []}

    monkeypatch.setattr(growing, "train", no_training)
    monkeypatch.setattr(growing, "look", no_look)
    growth(settings_of(next(iter(GROWTH.variants)), bos=bos, windows=6), 0, ())
    assert seen["bos in training"] == bos
    assert bool((seen["rows"][:, 0] == seen["bos"]).all()) == bos
    assert not (seen["rows"][:, 1:5] == seen["bos"]).all()


def test_an_interrupted_training_is_no_result(monkeypatch):
    monkeypatch.setattr(growing, "train", lambda config, *_, **__: TrainResult(GPT(config), interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        growth(settings_of(next(iter(GROWTH.variants))), 0, ())


@pytest.mark.parametrize(
    ("steps", "moments", "expected"),
    [(1000, 5, [0, 1, 10, 100, 1000]), (3, 12, [0, 1, 2, 3]), (1, 3, [0, 1]), (8, 3, [0, 1, 8])],
)
def test_moments_are_log_spaced_from_the_start_to_the_end(steps, moments, expected):
    assert log_spaced(steps, moments) == expected
