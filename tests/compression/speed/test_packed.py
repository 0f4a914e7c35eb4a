"""Packed weights: a bounded error, without kernels too, and nothing left behind."""

import pytest
import torch
from planted import held
from torch import nn

from supertf.compression.speed import packed
from supertf.compression.speed.packed import (
    FEW,
    PACKINGS,
    Packed,
    missing_kernel,
    pack,
    packed_weights,
    product,
    quantize_groups,
    quantize_rows,
)
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT

pytestmark = pytest.mark.kernels

CONFIG = GPTConfig(
    vocab_size=64, n_ctx=24, n_layer=2, n_head=2, n_embd=64, n_inner=96, mlp="swiglu", bias=False
)


@pytest.fixture(params=["kernel", "plain"])
def way(request, monkeypatch):
    """By this machine's kernels, where it has them, and as on a machine that has none."""
    if request.param == "plain":
        monkeypatch.setattr(packed, "missing_kernel", lambda packing: "no kernel for it here")
    return request.param


def with_packing(name: str, layer: nn.Linear, way: str) -> Packed:
    if way == "kernel" and (why := missing_kernel(name)):
        pytest.skip(why)
    return pack("layer", layer, name)


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
def test_an_8_bit_layer_computes_its_dequantised_product_for_few_rows_and_many(rows, way):
    torch.manual_seed(0)
    layer = nn.Linear(96, 7).bfloat16()
    codes, scales = quantize_rows(layer.weight.detach())
    x = torch.randn(1, rows, 96).bfloat16()
    expected = x.float() @ (codes * scales.float()[:, None]).T + layer.bias.float()
    with torch.inference_mode():
        found = with_packing("int8", layer, way)(x)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("shape", [(64,), (2, 3, 64)])
def test_a_4_bit_layer_computes_its_dequantised_product(shape, way):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).bfloat16()
    codes, scales_and_zeros = quantize_groups(layer.weight.detach())
    scale, zero = scales_and_zeros.float().transpose(0, 1).repeat_interleave(32, dim=1).unbind(-1)
    x = torch.randn(shape).bfloat16()
    expected = x.float() @ ((codes - 8) * scale + zero).T + layer.bias.float()
    with torch.inference_mode():
        found = with_packing("int4", layer, way)(x)
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), expected, rtol=0, atol=0.03)


@pytest.mark.parametrize("shape", [(1, 1, 64), (2, 5, 64)])
def test_a_bfloat16_layer_computes_its_own_product(shape, way):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).bfloat16()
    x = torch.randn(shape).bfloat16()
    with torch.inference_mode():
        found = with_packing("bfloat16", layer, way)(x)
        assert found.dtype == torch.bfloat16
        assert torch.allclose(found.float(), layer(x).float(), rtol=0, atol=0.02)


def test_a_packed_layer_reads_so_many_bytes_and_without_its_kernel_those_of_bfloat16(way):
    layer = nn.Linear(64, 32, bias=False).bfloat16()
    weights = 64 * 32
    sizes = {"bfloat16": 2 * weights, "int8": weights + 2 * 32}  # a scale per row
    sizes["int4"] = weights // 2 + weights // 32 * 4  # scale and zero per group
    if way == "plain":
        sizes = {"bfloat16": 2 * weights, "int8": 2 * weights + 2 * 32, "int4": 2 * weights}
    for name, size in sizes.items():
        if way == "plain" or missing_kernel(name) is None:
            assert pack("layer", layer, name).bytes == size, name


@pytest.mark.parametrize("rows", [1, 5])
def test_products_without_bfloat16_in_onednn_are_the_same_up_to_their_last_bit(rows, way):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(rows, 48), torch.randn(16, 48), torch.randn(16)
    x, weight, bias = (one.bfloat16() for one in (x, weight, bias))
    exact = x.double() @ weight.double().T + bias.double()
    torch.testing.assert_close(product(x, weight, bias).double(), exact, rtol=2**-7, atol=0.05)


def refuse(*args):
    raise RuntimeError("needs another processor\nand more of it")


@pytest.mark.parametrize(
    ("packing", "library", "operator"),
    [
        ("bfloat16", "mkldnn", "_reorder_linear_weight"),
        ("bfloat16", "mkldnn", "_linear_pointwise"),
        ("int8", "aten", "_weight_int8pack_mm"),
        ("int4", "aten", "_convert_weight_to_int4pack_for_cpu"),
        ("int4", "aten", "_weight_int4pack_mm_for_cpu"),
    ],
)
def test_a_kernel_that_this_machine_lacks_is_said_to_be_missing_and_not_used(
    monkeypatch, packing, library, operator
):
    if why := missing_kernel(packing):
        pytest.skip(why)
    real = getattr(getattr(torch.ops, library), operator)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = GPT(CONFIG).bfloat16().eval()
    torch.set_rng_state(state)
    idx = torch.tensor([[3, 1, 4]])
    with torch.inference_mode(), packed_weights(model, packing):
        expected = model(idx).logits
    wrong = lambda *args: 2 * real(*args)  # noqa: E731
    for other, told in ((refuse, r"\(needs another processor\)$"), (wrong, "computes another product")):
        if other is wrong and operator in ("_reorder_linear_weight", "_convert_weight_to_int4pack_for_cpu"):
            continue  # opaque results
        monkeypatch.setattr(getattr(torch.ops, library), operator, other)
        missing_kernel.cache_clear()
        try:
            warned = pytest.warns(UserWarning, match=f"^{packing} goes on without packing, slower: .*{told}")
            with warned, torch.inference_mode(), packed_weights(model, packing):
                found = model(idx).logits
        finally:
            missing_kernel.cache_clear()
        assert torch.allclose(found.float(), expected.float(), rtol=0, atol=0.1)
    assert torch.equal(torch.get_rng_state(), state)  # the probe draws no numbers of the caller's


@pytest.mark.filterwarnings("ignore:.*goes on without packing")
@pytest.mark.parametrize("packing", list(PACKINGS))
def test_packed_weights_last_as_long_as_their_context_also_after_an_exception(packing, way):
    torch.manual_seed(0)
    model = GPT(CONFIG).bfloat16().eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
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
    assert not held(model)
    assert not torch.equal(model(idx).logits, logits)
    model.load_state_dict(before)
    assert torch.equal(model(idx).logits, logits)


@pytest.mark.filterwarnings("ignore:.*goes on without packing")
@pytest.mark.parametrize("inner", list(PACKINGS))
def test_packing_what_is_packed_is_refused_and_leaves_the_outer_packing_as_it_was(inner):
    torch.manual_seed(0)
    model = GPT(CONFIG).bfloat16().eval()
    idx = torch.tensor([[3, 1, 4]])
    plain = model(idx).logits
    with torch.inference_mode(), packed_weights(model, "int4"):
        products = [module.product for module in model.modules() if isinstance(module, nn.Linear)]
        packed_logits = model(idx).logits
        refused = pytest.raises(
            UserError, match=r"^h\.0\.attn\.c_attn is packed, or skips, already: leave that"
        )
        with refused, packed_weights(model, inner):
            pass
        assert products == [module.product for module in model.modules() if isinstance(module, nn.Linear)]
        assert torch.equal(model(idx).logits, packed_logits)
    assert torch.equal(model(idx).logits, plain)
