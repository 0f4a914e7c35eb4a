"""Super weights: a planted one is found, and every change is undone bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.model import GPT
from supertf.superweights import candidates, find_spikes, scaled_weights

CONFIG = GPTConfig(
    vocab_size=50, n_ctx=24, n_layer=3, n_head=2, n_embd=16, n_inner=40, mlp="swiglu", position="none"
)
PROMPT = [3, 1, 4, 1, 5]


def planted_model(layer=1, out=7, into=21):
    """A random model with one channel that fires strongly and one large weight that reads it."""
    torch.manual_seed(0)
    model = GPT(CONFIG).eval()
    mlp = model.h[layer].mlp
    with torch.no_grad():
        for rows in (into, CONFIG.inner + into):  # gate and up rows of the channel
            mlp.c_fc.weight[rows] *= 500
        mlp.c_proj.weight[out, into] = 3.0
    return model


@pytest.mark.parametrize("coordinate", [(0, 0, 0), (1, 7, 21), (2, 15, 39)])
def test_a_planted_weight_is_found_at_its_coordinates(coordinate):
    found = candidates(find_spikes(planted_model(*coordinate), PROMPT))
    assert [spike.coordinate for spike in found] == [coordinate]
    assert found[0].weight == 3.0


def test_a_model_without_spikes_has_no_candidates():
    torch.manual_seed(0)
    spikes = find_spikes(GPT(CONFIG).eval(), PROMPT)
    assert [spike.layer for spike in spikes] == [0, 1, 2]
    assert candidates(spikes) == []


def test_looking_leaves_no_hooks_behind():
    model = planted_model()
    find_spikes(model, PROMPT)
    assert not any(block.mlp.c_proj._forward_hooks for block in model.h)


coordinate = st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 39))


@settings(deadline=None, max_examples=50)
@given(st.lists(coordinate, min_size=1, max_size=6), st.floats(-10, 10), st.booleans())
def test_weights_come_back_bit_for_bit_also_after_an_exception(coordinates, factor, fail):
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with scaled_weights(model, coordinates, factor):
            layer, out, into = coordinates[0]
            times = coordinates.count(coordinates[0])
            changed = model.h[layer].mlp.c_proj.weight[out, into].item()
            old = before[f"h.{layer}.mlp.c_proj.weight"][out, into].item()
            assert changed == pytest.approx(old * factor**times, rel=1e-5, abs=1e-30)
            if fail:
                raise KeyError("something went wrong inside")
    except KeyError:
        assert fail
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("coordinate", [(3, 0, 0), (0, 16, 0), (0, 0, 40), (-1, 0, 0), (0, -1, 0)])
def test_a_coordinate_outside_the_model_is_refused_and_nothing_changes(coordinate):
    model = planted_model()
    before = model.h[0].mlp.c_proj.weight.clone()
    with pytest.raises(UserError, match="no weight"), scaled_weights(model, [(0, 1, 1), coordinate]):
        pass
    assert torch.equal(model.h[0].mlp.c_proj.weight, before)


def test_an_empty_prompt_is_one_clear_line():
    with pytest.raises(UserError, match="prompt is empty"):
        find_spikes(planted_model(), [])
