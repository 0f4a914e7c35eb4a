"""Fast one-row products and packed weights: the same numbers, or a bounded error, and nothing left behind."""

import pytest
import torch
from torch import nn

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.linear import Linear
from supertf.model import GPT
from supertf.packed import pack_bfloat16, pack_int4, packed_weights, quantize

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
        assert torch.allclose(layer(x), expected, rtol=0, atol=1e-6)
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


def test_a_4_bit_layer_computes_its_dequantised_product():
    torch.manual_seed(0)
    layer = Linear(64, 32).bfloat16()
    codes, scales_and_zeros = quantize(layer.weight.detach())
    scale, zero = scales_and_zeros.float().transpose(0, 1).repeat_interleave(32, dim=1).unbind(-1)
    x = torch.randn(2, 3, 64).bfloat16()
    expected = x.float() @ ((codes - 8) * scale + zero).T + layer.bias.float()
    with torch.inference_mode():
        assert torch.allclose(pack_int4("layer", layer)(x).float(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("shape", [(1, 1, 64), (2, 5, 64)])
def test_a_bfloat16_layer_computes_its_own_product(shape):
    torch.manual_seed(0)
    layer = Linear(64, 32).bfloat16()
    x = torch.randn(shape).bfloat16()
    with torch.inference_mode():
        packed = pack_bfloat16("layer", layer)(x)
        assert packed.dtype == torch.bfloat16
        assert torch.allclose(packed.float(), layer(x).float(), rtol=0, atol=0.02)


@pytest.mark.parametrize("packing", ["bfloat16", "int4"])
def test_packed_weights_last_as_long_as_their_context_also_after_an_exception(packing):
    torch.manual_seed(0)
    model = GPT(CONFIG).bfloat16().eval()
    idx = torch.tensor([[3, 1, 4]])
    logits = model(idx).logits
    seen = []
    model.h[1].mlp.c_proj.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with pytest.raises(KeyError), torch.inference_mode(), packed_weights(model, packing):
        assert torch.allclose(model(idx).logits.float(), logits.float(), rtol=0, atol=0.1)
        assert len(seen) == 1  # hooks see packed layers too
        model.h[0].mlp.c_fc.weight.zero_()  # not noticed before the context ends
        assert torch.allclose(model(idx).logits.float(), logits.float(), rtol=0, atol=0.1)
        raise KeyError
    assert all(module.product is None for module in model.modules() if isinstance(module, Linear))
    assert not torch.equal(model(idx).logits, logits)


def test_packed_weights_say_what_they_need():
    with pytest.raises(UserError, match=r"dtype=torch\.bfloat16"), packed_weights(GPT(CONFIG), "int4"):
        pass
    with (
        pytest.raises(UserError, match="unknown packing 'int3'"),
        packed_weights(GPT(CONFIG).bfloat16(), "int3"),
    ):
        pass
    odd = GPT(GPTConfig(vocab_size=64, n_ctx=24, n_layer=1, n_head=2, n_embd=48)).bfloat16()
    with pytest.raises(UserError, match="multiples of 32"), packed_weights(odd, "int4"):
        pass
    assert odd.lm_head.product is None
