"""Weights changed for a while come back bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import planted_model

from supertf.superweights.edit import coordinates, scaled_weights

ONE = (11, 507, 1229)
coordinate = st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 39))


@settings(deadline=None, max_examples=50)
@given(st.lists(coordinate, min_size=1, max_size=6), st.floats(-10, 10), st.booleans())
def test_weights_come_back_bit_for_bit_also_after_an_exception(weights, factor, fail):
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with scaled_weights(model, weights, factor):
            layer, out, into = weights[0]
            changed = model.h[layer].mlp.c_proj.weight[out, into].item()
            old = before[f"h.{layer}.mlp.c_proj.weight"][out, into].item()
            assert changed == pytest.approx(old * factor, rel=1e-5, abs=1e-30)
            if fail:
                raise KeyError("something went wrong inside")
    except KeyError:
        assert fail
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("given", ["11[507, 1229]", ONE, list(ONE), [ONE], [list(ONE)], ["11,507,1229", ONE]])
def test_a_weight_is_named_in_any_of_the_usual_ways(given):
    assert coordinates(given) == [ONE]
