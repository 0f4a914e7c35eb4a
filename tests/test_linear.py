"""Fast one-row products and 4-bit weights: the same numbers, or a bounded error, and nothing left behind."""

import pytest
import torch
from torch import nn

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.int4 import Int4Linear, int4_weights, quantize
from supertf.linear import Linear
from supertf.model import GPT

CONFIG = GPTConfig(
    vocab_size=64, n_ctx=24, n_layer=2, n_head=2, n_embd=64, n_inner=96, mlp="swiglu", bias=False
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 24), (1, 24), (24,), (2, 3, 24)])
def test_a_single_row_gives_what_nn_linear_gives(shape, bias):
    torch.manual_seed(0)
    layer = Linear(24, 10, bias=bias)
    x = torch.randn(shape)
    expected = nn.Linear.forward(layer, x)
    with torch.inference_mode():
        assert torch.allclose(layer(x), expected, atol=1e-6)
    assert layer(x).requires_grad  # with gradients the ordinary product is used


def test_codes_reproduce_weights_on_a_sixteen_level_grid_and_bound_the_error_elsewhere():
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (32, 64))
    levels[:, ::32], levels[:, 1::32] = 0, 15  # both ends of every group are used
    codes, scales_and_zeros = quantize(levels * 0.25 - 1)
    assert torch.equal(codes, levels.int())
    weight = torch.randn(32, 64)
    codes, scales_and_zeros = quantize(weight)
    scale, zero = (
        scales_and_zeros.float().transpose(0, 1).repeat_interleave(32, dim=1).unbind(-1)
    )  # (out, in)
    error = ((codes - 8) * scale + zero - weight).abs()
    assert (error <= 0.5 * scale + 0.01 * weight.abs().max()).all()  # half a step, and bfloat16 of the scale


def test_a_packed_layer_computes_its_dequantised_product():
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).bfloat16()
    codes, scales_and_zeros = quantize(layer.weight.detach())
    scale, zero = scales_and_zeros.float().transpose(0, 1).repeat_interleave(32, dim=1).unbind(-1)
    x = torch.randn(2, 3, 64).bfloat16()
    expected = x.float() @ ((codes - 8) * scale + zero).T + layer.bias.float()
    with torch.inference_mode():
        assert torch.allclose(Int4Linear(layer)(x).float(), expected, atol=0.03)


def test_4_bit_weights_last_as_long_as_their_context_also_after_an_exception():
    torch.manual_seed(0)
    model = GPT(CONFIG).bfloat16().eval()
    idx = torch.tensor([[3, 1, 4]])
    before, logits = dict(model.named_modules()), model(idx).logits
    with pytest.raises(KeyError), int4_weights(model):
        assert isinstance(model.lm_head, Int4Linear)
        assert not torch.equal(model(idx).logits, logits)
        raise KeyError
    assert dict(model.named_modules()) == before
    assert model.lm_head.weight is model.wte.weight
    assert torch.equal(model(idx).logits, logits)


def test_4_bit_weights_say_what_they_need():
    with pytest.raises(UserError, match=r"dtype=torch\.bfloat16"), int4_weights(GPT(CONFIG)):
        pass
    odd = GPT(GPTConfig(vocab_size=64, n_ctx=24, n_layer=1, n_head=2, n_embd=48)).bfloat16()
    with pytest.raises(UserError, match="multiples of 32"), int4_weights(odd):
        pass
