"""Generation's layers for one row: the numbers of PyTorch's own, and only while a token is computed."""

import copy
import io
from dataclasses import replace

import pytest
import torch
from families import tiny
from planted import CONFIG, PROMPT, held, planted_model
from torch import nn

from supertf.model.fast import OneRowLinear, OneRowRMSNorm, fast_rows
from supertf.model.generation import generate, stream
from supertf.model.gpt import GPT

pytestmark = pytest.mark.kernels
CONFIG = replace(CONFIG, norm="rmsnorm")
SHAPES = [(1, 1, 24), (1, 24), (24,), (2, 3, 24)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("out", [10, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_row_gives_what_nn_linear_gives(shape, out, bias):
    torch.manual_seed(0)
    layer, x = nn.Linear(24, out, bias=bias), torch.randn(shape)
    expected = layer(x)
    with fast_rows([layer]):
        assert type(layer) is OneRowLinear and layer(x).requires_grad  # with gradients: the ordinary product
        with torch.inference_mode():
            assert torch.allclose(layer(x), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_single_row_is_normed_as_by_nn_rms_norm(shape, size):
    torch.manual_seed(0)
    norm, x = nn.RMSNorm(24, eps=1e-5), size * torch.randn(shape)
    with torch.no_grad():
        norm.weight.normal_()
    expected = norm(x)
    with fast_rows([norm]):
        assert type(norm) is OneRowRMSNorm and norm(x).requires_grad
        with torch.inference_mode():
            assert torch.allclose(norm(x), expected, rtol=1e-5, atol=1e-6)


def normed_model():
    return planted_model(config=CONFIG)


def test_layers_are_swapped_for_each_token_and_back_before_the_caller_has_it():
    model, seen = normed_model(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(set(held(model))))
    for token in stream(model, PROMPT, 3):
        assert isinstance(token, int) and not held(model)
    assert seen == 3 * [{OneRowLinear, OneRowRMSNorm}]

    def fail(*_):
        raise KeyError

    hook = model.h[1].register_forward_hook(fail)
    with pytest.raises(KeyError):
        generate(model, PROMPT, 3)
    hook.remove()
    assert not held(model)


def test_a_copy_or_a_file_made_while_a_token_is_computed_is_a_plain_model():
    model, file = normed_model(), io.BytesIO()
    with fast_rows(model.modules()):
        twin = copy.deepcopy(model)
        torch.save(model, file)
    file.seek(0)
    for one in (twin, torch.load(file, weights_only=False)):
        assert not held(one) and type(one.lm_head) is nn.Linear and type(one.ln_f) is nn.RMSNorm
        assert one.lm_head.weight is one.wte.weight and generate(one, PROMPT, 5) == generate(model, PROMPT, 5)


def test_a_class_of_the_callers_own_computes_as_it_did():
    class Doubling(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = GPT(CONFIG).eval()
    model.lm_head.__class__, seen = Doubling, []
    with model.lm_head.register_forward_hook(lambda module, x, y: seen.append((x[0], y))):
        generate(model, PROMPT, 2)
    assert len(seen) == 2
    for x, y in seen:
        assert torch.allclose(y, 2 * x @ model.lm_head.weight.T, rtol=0, atol=1e-5)


def test_models_of_transformers_are_left_alone():
    model, seen = tiny("Llama"), []
    with model.register_forward_pre_hook(lambda *_: seen.append(held(model))):
        generate(model, PROMPT, 2)
    assert seen == [[], []]
