"""Sizes of inputs: quantiles of what the matrices are given, in their own or in principal axes."""

import math

import pytest
import torch
import torch.nn.functional as F
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import IDS, LENGTH, planted_model

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.input_quantiles import STEPS, input_sizes, principal_axes, quantiles_of
from supertf.model.weight_matrices import matrices

pytestmark = pytest.mark.usefixtures("one_thread")
DOWN = [f"h.{layer}.mlp.c_proj" for layer in range(3)]


@pytest.fixture(scope="module")
def axes(model):
    return principal_axes(calibrate(model, IDS, LENGTH, products=True), ["mlp.c_proj", "attn.c_attn"])


@torch.no_grad()
def given_to(model, name):
    """What one matrix is given on the text, (tokens, in), and what it makes of it, (tokens, out)."""
    kept = []
    module = dict(model.named_modules())[name]
    with module.register_forward_hook(lambda _, inputs, output: kept.append((inputs[0][0], output[0]))):
        for window in IDS.view(-1, 1, LENGTH):
            model(window)
    return tuple(torch.cat(parts) for parts in zip(*kept, strict=True))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=40))
def test_quantiles_are_values_in_order_from_the_smallest_to_the_largest(values):
    found = quantiles_of(torch.tensor(values)).tolist()
    assert len(found) == STEPS + 1 and found == sorted(found)
    assert (found[0], found[-1]) == (min(values), max(values))
    assert set(found) == set(values)  # fewer values than steps: none is left out


def test_the_share_asked_for_lies_below_the_threshold(model):
    sizes = input_sizes(model, IDS, LENGTH, matrices=["mlp.c_proj"])
    for name in DOWN:
        x = given_to(model, name)[0].abs()
        for share in torch.linspace(0, 1, 34).tolist():
            below = x < sizes.threshold(name, share)
            assert float(below.float().mean()) == pytest.approx(share, abs=0.002)


def test_nothing_is_below_the_threshold_at_0_and_everything_at_1(model):
    sizes = input_sizes(model, IDS, LENGTH)
    assert {sizes.threshold(name, 0) for name in sizes.quantiles} == {0.0}
    assert {sizes.threshold(name, 1.0) for name in sizes.quantiles} == {math.inf}


def test_every_matrix_is_measured_on_whole_windows(model):
    sizes = input_sizes(model, IDS[:-1], LENGTH)
    assert sizes.of == "inputs" and sizes.tokens == len(IDS) - LENGTH and sizes.axes == {}
    assert list(sizes.quantiles) == list(sizes.widths) == list(matrices(model))
    assert sizes.widths == {name: matrix.weight.shape[1] for name, matrix in matrices(model).items()}


def test_the_head_is_measured_at_every_token(model):
    found = input_sizes(model, IDS, LENGTH, matrices=["lm_head"]).quantiles["lm_head"]
    assert torch.equal(found, quantiles_of(given_to(model, "lm_head")[0].abs().flatten()))


def test_gates_are_measured_behind_their_activation(model):
    sizes = input_sizes(model, IDS, LENGTH, of="gate")
    assert sizes.widths == {f"h.{layer}.mlp.c_fc": 40 for layer in range(3)}
    for name, found in sizes.quantiles.items():
        gate = F.linear(given_to(model, name)[0], model.get_submodule(name).weight[:40])
        gate += model.get_submodule(name).bias[:40]
        assert torch.allclose(found, quantiles_of(F.silu(gate).abs().flatten()), rtol=1e-4, atol=1e-6)


def test_principal_axes_are_orthogonal_and_the_inputs_uncorrelated_along_them(model, axes):
    assert list(axes) == [f"h.{layer}.{kind}" for layer in range(3) for kind in ("attn.c_attn", "mlp.c_proj")]
    for name, own in axes.items():
        assert torch.allclose(own.T @ own, torch.eye(len(own)), atol=1e-5)
        along = (given_to(model, name)[0] @ own).double()
        products = along.T @ along
        off = products - products.diag().diag()
        assert float(off.abs().max()) < 1e-4 * float(products.diag().max())


@pytest.mark.parametrize("few", [1, 5, 20])
def test_few_principal_axes_carry_more_than_as_many_channels(model, axes, few):
    x = given_to(model, DOWN[0])[
        0
    ].double()  # before the planted channel, beside which all others are nothing
    channels, along = (part.square().sum(0).sort().values for part in (x, x @ axes[DOWN[0]].double()))
    assert float(along[-few:].sum()) > 1.05 * float(channels[-few:].sum())


def test_sizes_along_axes_are_those_of_the_turned_inputs(model, axes):
    own = {name: axes[name] for name in DOWN}
    sizes = input_sizes(model, IDS, LENGTH, matrices=["mlp.c_proj"], axes=own)
    assert list(sizes.axes) == DOWN
    for name in DOWN:
        along = (given_to(model, name)[0] @ axes[name]).abs().flatten()
        assert torch.allclose(sizes.quantiles[name], quantiles_of(along), rtol=1e-3, atol=1e-5)


def test_hugging_face_models_are_measured_under_their_own_names():
    model = tiny("Llama")
    assert list(input_sizes(model, IDS, LENGTH).quantiles) == list(matrices(model))


def test_a_bfloat16_model_is_measured(model, axes):
    narrow = planted_model().bfloat16()
    wide, found = (input_sizes(one, IDS, LENGTH, axes=axes) for one in (model, narrow))
    for name in DOWN:
        assert found.quantiles[name].dtype == torch.float32
        assert found.threshold(name, 0.5) == pytest.approx(wide.threshold(name, 0.5), rel=0.05)
