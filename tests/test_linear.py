"""Fast one-row products and packed weights: the same numbers, or a bounded error, and nothing left behind."""

import pytest
import torch
from torch import nn

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.linear import Linear
from supertf.model import GPT, RMSNorm
from supertf.packed import (
    FEW,
    pack_bfloat16,
    pack_int4,
    pack_int8,
    packed_weights,
    quantize_groups,
    quantize_rows,
)

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


@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1, 24), (24,), (2, 3, 24)])
def test_a_single_row_is_normed_as_by_nn_rms_norm(shape, size):
    torch.manual_seed(0)
    norm = RMSNorm(24, eps=1e-5)
    with torch.no_grad():
        norm.weight.normal_()
    x = size * torch.randn(shape)
    expected = nn.RMSNorm.forward(norm, x)
    with torch.inference_mode():
        assert torch.allclose(norm(x), expected, rtol=1e-5, atol=1e-6)
    assert norm(x).requires_grad


def test_codes_reproduce_weights_on_a_sixteen_level_grid_and_bound_the_error_elsewhere():
    torch.manual_seed(0)
    levels = torch.randint(0, 16, (32, 64))
    levels[:, ::32], levels[:, 1::32] = 0, 15  # both ends of every group are used
    codes, scales_and_zeros = quantize_groups(levels * 0.25 - 1)
    assert torch.equal(codes, levels.int())
    weight = torch.randn(32, 64)
    codes, scales_and_zeros = quantize_groups(weight)
    scale, zero = (
        scales_and_zeros.float().transpose(0, 1).repeat_interleave(32, dim=1).unbind(-1)
    )  # (out, in)
    error = ((codes - 8) * scale + zero - weight).abs()
    assert (error <= 0.5 * scale + 0.01 * weight.abs().max()).all()  # half a step, and bfloat16 of the scale


def test_codes_of_8_bits_reproduce_weights_to_half_a_step_of_their_row():
    torch.manual_seed(0)
    weight = torch.randn(32, 64) * torch.logspace(-3, 3, 32)[:, None]
    weight[5] = 0.0
    codes, scales = quantize_rows(weight)
    assert codes.abs().amax() <= 127
    step = scales.float()[:, None]
    assert ((codes * step - weight).abs() <= 0.501 * step).all()
    assert (codes.abs().amax(1)[weight.any(1)] >= 126).all()  # of the 255 levels no more than two lie idle


@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
def test_an_8_bit_layer_computes_its_dequantised_product_for_few_rows_and_many(rows):
    torch.manual_seed(0)
    layer = Linear(96, 7).bfloat16()
    codes, scales = quantize_rows(layer.weight.detach())
    x = torch.randn(1, rows, 96).bfloat16()
    expected = x.float() @ (codes * scales.float()[:, None]).T + layer.bias.float()
    with torch.inference_mode():
        assert torch.allclose(pack_int8("layer", layer)(x).float(), expected, rtol=0, atol=0.03)


def test_a_packed_layer_reads_so_many_bytes():
    layer = Linear(64, 32, bias=False).bfloat16()
    weights = 64 * 32
    assert pack_bfloat16("layer", layer).bytes == 2 * weights
    assert pack_int8("layer", layer).bytes == weights + 2 * 32  # a scale per row
    assert pack_int4("layer", layer).bytes == weights // 2 + weights // 32 * 4  # scale and zero per group


def test_a_4_bit_layer_computes_its_dequantised_product():
    torch.manual_seed(0)
    layer = Linear(64, 32).bfloat16()
    codes, scales_and_zeros = quantize_groups(layer.weight.detach())
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


@pytest.mark.parametrize("packing", ["bfloat16", "int8", "int4"])
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
    for packing in ("int8", "int4"):
        with pytest.raises(UserError, match="multiples of 32"), packed_weights(odd, packing):
            pass
    assert odd.lm_head.product is None
