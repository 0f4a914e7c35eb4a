"""Quantized activations: bounded errors, spikes spared exactly, nothing left behind."""

import pytest
import torch
from families import FAMILIES, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import PLANTED, PROMPT, planted_model

from supertf.compression.quantization.activations import (
    quantize_tokens,
    quantized_activations,
    super_activations,
)
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.verbs import quantized
from supertf.model.weight_matrices import kind, matrices
from supertf.superweights.find import candidates, find_spikes

pytestmark = pytest.mark.kernels

DOWN = "h.1.mlp.c_proj"


@torch.no_grad()
def logits(model):
    return model(torch.tensor([PROMPT])).logits


def read(model, name):
    """What one matrix is given and what it makes of it, on the prompt."""
    kept = []
    module = dict(model.named_modules())[name]
    with module.register_forward_hook(lambda _, inputs, output: kept.extend([inputs[0], output])):
        logits(model)
    return kept


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 12),
    st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=6, max_size=6), min_size=1, max_size=4),
)
def test_a_token_is_off_by_half_a_step_of_its_own(bits, tokens):
    x = torch.tensor(tokens)
    found = quantize_tokens(x, bits)
    step = x.double().abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((found - x).double().abs() <= step * (0.5 + 1e-4) + 1e-37).all()
    # a token is rounded alike whatever stands beside it, and its mirror image is rounded to the mirror image
    assert torch.equal(found[:1], quantize_tokens(x[:1], bits))
    assert torch.equal(-found, quantize_tokens(-x, bits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_spared_spike_returns_exactly_and_leaves_its_token_fine_levels(dtype):
    x = torch.randn(2, 3, 100, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[1, 2, 40] = 3000.0
    before = x.clone()
    coarse, fine = quantize_tokens(x), quantize_tokens(x, restore=[40])
    assert torch.equal(x, before)
    assert torch.equal(fine[..., 40], x[..., 40]) and fine.dtype == coarse.dtype == dtype
    rest = [channel for channel in range(100) if channel != 40]
    assert (coarse[1, 2, rest] == 0).all()  # all of it is less than half a step of 3000 / 127
    step = x[..., rest].abs().amax(-1, keepdim=True).double() / 127
    assert ((fine - x)[..., rest].double().abs() <= step * 0.5 + torch.finfo(dtype).eps * 4).all()


def test_a_silent_token_stays_silent():
    assert torch.equal(quantize_tokens(torch.zeros(2, 5)), torch.zeros(2, 5))


def test_every_matrix_reads_rounded_inputs_and_no_other_change():
    model = planted_model()
    with quantized_activations(model, bits=4, restore={DOWN: [21]}):
        for name, matrix in matrices(model).items():
            x, y = read(model, name)
            levels = [len((token / token.abs().max() * 7).unique()) for token in x[0]]
            if name != DOWN:
                assert max(levels) <= 15
            assert torch.equal(y, torch.nn.functional.linear(x, matrix.weight))
    exact = read(model, "h.0.attn.c_attn")[0]
    with quantized_activations(model, bits=4):
        assert torch.equal(read(model, "h.0.attn.c_attn")[0], quantize_tokens(exact, 4))
        assert not torch.equal(read(model, DOWN)[0][..., 21], read(planted_model(), DOWN)[0][..., 21])


def test_only_the_kinds_asked_for_are_quantized():
    model = planted_model()
    exact = {name: read(model, name)[0] for name in matrices(model)}
    with quantized_activations(model, bits=3, matrices=["mlp.c_proj"]):
        assert torch.equal(read(model, "h.0.mlp.c_fc")[0], exact["h.0.mlp.c_fc"])
        assert not torch.equal(read(model, "h.0.mlp.c_proj")[0], exact["h.0.mlp.c_proj"])


def test_the_model_is_as_before_also_after_an_exception():
    model = planted_model()
    before = logits(model)
    with pytest.raises(KeyError), quantized_activations(model, bits=3):
        assert not torch.equal(logits(model), before)
        raise KeyError
    assert torch.equal(logits(model), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with quantized_activations(model):  # and it can be done again
        pass


def test_quantized_weights_around_it_or_inside_it_give_the_same():
    model = planted_model()
    before = logits(model)
    weights = plan_quantization(model, "int4 block=tensor", progress=False)
    with quantized(model, weights), quantized_activations(model, bits=4):
        outside = logits(model)
    with quantized_activations(model, bits=4), quantized(model, weights):
        inside = logits(model)
    with quantized(model, weights):
        assert not torch.equal(logits(model), inside)
    assert torch.equal(outside, inside)
    assert torch.equal(logits(model), before)


def test_found_spikes_say_what_to_spare():
    model = planted_model()
    [spike, *_] = candidates(find_spikes(model, PROMPT), threshold=None, ratio=3.0)
    assert spike.coordinate == PLANTED
    assert super_activations(model, [spike.coordinate], "input") == {DOWN: [21]}
    stream = {"h.2.attn.c_attn": [7], "h.2.mlp.c_fc": [7]}
    assert super_activations(model, [spike.coordinate], "stream") == stream
    both = super_activations(model, [spike.coordinate, (1, 3, 21)])
    assert both == {DOWN: [21], "h.2.attn.c_attn": [3, 7], "h.2.mlp.c_fc": [3, 7]}
    with quantized_activations(model, bits=4, restore=both):
        spared = read(model, DOWN)[0]
    with quantized_activations(model, bits=4, restore={**both, DOWN: []}):
        assert not torch.equal(read(model, DOWN)[0], spared)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_matrices_but_the_two_that_write_to_it_read_the_stream(family):
    model = tiny(family)
    layer0, last = (
        {kind(name): matrix.weight.shape for name, matrix in matrices(model).items() if matrix.layer == layer}
        for layer in (0, 2)
    )
    assert layer0 == last
    readers = super_activations(model, [(1, 3, 5)], "stream")
    assert all(channels == [3] for channels in readers.values())
    writers = set(last) - {kind(name) for name in readers}
    assert len(writers) == 2 and all(last[writer][0] == 16 for writer in writers)
    assert all(matrices(model)[name].layer == 2 for name in readers)
