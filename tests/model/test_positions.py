"""Position codes keep their laws: rotation depends on distance only, slopes and tables are the papers'."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.model.attention import layout
from supertf.model.config import POSITIONS, GPTConfig
from supertf.model.gpt import GPT
from supertf.model.positions import alibi_slopes, rotary_angles, rotate, sinusoidal

TINY = GPTConfig(vocab_size=50, n_ctx=24, n_layer=2, n_head=2, n_embd=32)


def rotated_product(q, k, i, j, fraction=1.0):
    """q at position i times k at position j."""
    angles = [rotary_angles(torch.tensor([[p]]), q.shape[-1], 100.0, fraction) for p in (i, j)]
    turned = [rotate(x.view(1, 1, 1, -1), a).flatten() for x, a in zip((q, k), angles, strict=True)]
    return turned[0] @ turned[1]


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 2**31))
def test_rotary_products_depend_on_the_distance_only(i, j, shift, seed):
    q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved = rotated_product(q, k, i + shift, j + shift)
    assert rotated_product(q, k, i, j) == pytest.approx(moved.item(), abs=1e-4)


def test_rotation_keeps_lengths_and_does_nothing_at_position_0():
    x = torch.randn(1, 2, 5, 16)
    angles = rotary_angles(torch.arange(5)[None], 16, 10000.0, 1.0)
    turned = rotate(x, angles)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=0)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert not torch.allclose(turned[:, :, 1:], x[:, :, 1:])


def test_p_rope_rotates_the_fast_channels_and_leaves_the_slow_ones_alone():
    x = torch.randn(1, 1, 9, 16)
    turned = rotate(x, rotary_angles(torch.arange(9)[None], 16, 10000.0, 0.25))
    still = [i for i in range(16) if i % 8 >= 2]  # 8 pairs (i, i + 8), fastest first; a quarter of them turn
    assert torch.equal(turned[..., still], x[..., still])
    assert (turned[0, 0, 1:, [0, 1, 8, 9]] != x[0, 0, 1:, [0, 1, 8, 9]]).all()


def test_alibi_slopes_are_the_papers():
    assert alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(12).tolist()[8:] == pytest.approx([2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5])


def test_sinusoidal_rows_are_distinct_and_as_large_as_fresh_embeddings():
    table = sinusoidal(torch.arange(2000), 64)
    assert table.shape == (2000, 64)
    assert table.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.05)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 1e-4


@pytest.mark.parametrize("init_std", [0.02, 0.125])
def test_sinusoidal_positions_neither_drown_the_tokens_nor_drown_in_them(init_std):
    model = GPT(dataclasses.replace(TINY, position="sinusoidal", init_std=init_std))
    idx = torch.arange(20)[None]
    added = model.embed(idx, layout(20)) - model.wte(idx)
    assert added.square().mean().sqrt().item() == pytest.approx(init_std, rel=0.05)


@pytest.mark.parametrize("position", [name for name in POSITIONS if name != "none"])
def test_one_layer_with_positions_sees_order(position):
    """The counterpart of the NoPE test: with any position code a single layer is enough."""
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(TINY, n_layer=1, position=position)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    idx = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    shuffled = torch.tensor([[5, 1, 3, 4, 2, 9, 1, 6]])
    assert not torch.allclose(model(idx).logits[0, -1], model(shuffled).logits[0, -1], atol=1e-6, rtol=0)


def test_nothing_quadratic_stays_on_the_model():
    model = GPT(TINY).eval()
    kept = model(torch.randint(0, 50, (1, 17)), output_attentions=True)
    assert kept.attentions[0].shape == (1, 2, 17, 17)
    attributes = [value for module in model.modules() for value in vars(module).values()]
    tensors = [value for value in attributes if isinstance(value, torch.Tensor)]
    tensors += [*model.parameters(), *model.buffers()]
    assert not any(17 in tensor.shape for tensor in tensors)
