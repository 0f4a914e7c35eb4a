"""Attention: the scaling family, who sees whom, and the fused path against the written-out one."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import supertf.model.attention
from supertf.errors import UserError
from supertf.model.attention import AttentionScale, explicit_attention, layout
from supertf.model.config import ATTENTIONS, POSITIONS, GPTConfig
from supertf.model.gpt import GPT, KVCache, with_changes
from supertf.model.scalings import initial_s

pytestmark = pytest.mark.kernels

TINY = GPTConfig(vocab_size=50, n_ctx=24, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_inner=48)


def tiny_model(seed=0, **changes):
    """A small fp64 model with random s and b, so that heads differ."""
    torch.manual_seed(seed)
    model = GPT(dataclasses.replace(TINY, **changes)).double().eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("scale.s", "scale.b", "scale.p")):
                tensor.add_(0.2 * torch.rand_like(tensor))
            elif "wte" not in name and tensor.ndim == 2:
                tensor.mul_(8)  # far from uniform attention
    return model


def tokens(B=2, T=20, seed=1):
    return torch.randint(0, 50, (B, T), generator=torch.Generator().manual_seed(seed))


PACKED = torch.tensor([[1] * 7 + [2] * 13, [0, 0] + [1] * 5 + [2] * 9 + [0] * 4])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("segments", [None, PACKED], ids=["plain", "packed"])
def test_fused_equals_explicit(attention, position, segments):
    model = tiny_model(
        attention=attention, position=position, attention_constant=1.7, qk_norm=position == "rope"
    )
    fused = model(tokens(), segments=segments).logits
    explicit = model(tokens(), segments=segments, output_attentions=True)
    assert torch.allclose(fused, explicit.logits, atol=1e-10, rtol=0)
    for weights in explicit.attentions:
        assert weights.shape == (2, 4, 20, 20)
        assert torch.allclose(weights.sum(-1), torch.ones(2, 4, 20, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("segments", [None, PACKED], ids=["plain", "packed"])
def test_a_zero_key_takes_the_weight_of_one_more_logit_of_zero(position, segments):
    """exp(z) / (1 + sum exp(z)), fused and explicit alike, also token by token with a cache."""
    model = tiny_model(position=position, zero_key=True)
    explicit = model(tokens(), segments=segments, output_attentions=True)
    assert torch.allclose(model(tokens(), segments=segments).logits, explicit.logits, atol=1e-10, rtol=0)
    assert explicit.attentions[0].shape == (2, 4, 20, 20)
    assert (explicit.attentions[0].sum(-1) < 1).all()

    block, where = model.h[0], model.layout(tokens(), 0, segments, None)
    q, k, _ = block.attn.queries_keys_values(block.ln_1(model.embed(tokens(), where)), where)
    logits = q @ k.repeat_interleave(2, dim=1).transpose(-2, -1) / math.sqrt(8)
    if position == "alibi":
        logits = logits + block.attn.alibi_bias(where, q.dtype)
    seen = torch.ones(20, 20, dtype=torch.bool).tril() if where.mask is None else where.mask
    powers = logits.exp() * seen
    by_hand = powers / (1 + powers.sum(-1, keepdim=True))
    assert torch.allclose(explicit.attentions[0], by_hand, atol=1e-10, rtol=0)

    if segments is None:
        cache = KVCache(2)
        rows = [model(tokens()[:, t : t + 1], cache=cache).logits for t in range(20)]
        assert torch.allclose(torch.cat(rows, dim=1), explicit.logits, atol=1e-10, rtol=0)


@pytest.mark.parametrize("segments", [None, PACKED], ids=["plain", "packed"])
def test_the_bias_of_alibi_is_made_once_a_pass_and_changes_no_bit(monkeypatch, segments):
    model, made = tiny_model(position="alibi"), []
    slopes = supertf.model.attention.alibi_slopes
    monkeypatch.setattr(
        "supertf.model.attention.alibi_slopes", lambda heads: made.append(heads) or slopes(heads)
    )
    shared = model(tokens(), segments=segments).logits
    assert made == [4] and len(model.h) == 2
    monkeypatch.setattr(supertf.model.attention.Layout, "once", lambda self, key, make: make())
    assert torch.equal(model(tokens(), segments=segments).logits, shared)
    assert len(made) == 3


def test_a_token_of_several_ids_is_the_sum_of_their_embeddings():
    model = tiny_model(position="none")
    pairs = torch.stack([tokens(seed=1), tokens(seed=2)], dim=-1)  # (B, T, 2)
    summed = model.embed(pairs, layout(20))
    assert torch.equal(summed, model.wte(pairs[..., 0]) + model.wte(pairs[..., 1]))
    assert torch.equal(model(pairs[..., :1]).logits, model(pairs[..., 0]).logits)


def test_a_free_scale_is_looked_up_by_n_and_ends_where_it_was_trained():
    scale = AttentionScale(dataclasses.replace(TINY, attention="free"))
    with torch.no_grad():
        scale.p.copy_(torch.arange(24))
    factor = scale(torch.ones(1, 4, 20, 8), layout(20).n)
    assert torch.equal(factor[0, 0, :, 0], torch.arange(20.0))
    with pytest.raises(UserError, match="p_n for 24 tokens and was given 25"):
        tiny_model(attention="free", position="none")(tokens(T=25))


@given(
    z=st.lists(st.floats(-20, 20), min_size=1, max_size=40),
    s=st.floats(0.01, 3),
)
def test_scaled_softmax_is_the_papers_definition(z, s):
    """softmax(s log n * z) = n^(s z_i) / sum_j n^(s z_j), Nakanishi 2025."""
    n = len(z)
    scale = AttentionScale(GPTConfig(n_head=1, n_embd=1, position="none", attention="ssmax")).double()
    with torch.no_grad():
        scale.s.fill_(s)
    q = torch.ones(1, 1, 1, 1, dtype=torch.float64)  # one query and one channel: the keys are the logits z
    k = torch.tensor(z, dtype=torch.float64).view(1, 1, n, 1)
    _, weights = explicit_attention(scale(q, torch.tensor([[n]])), k, k, None, causal=False)
    powers = [float(n) ** (s * (value - max(z))) for value in z]  # the shift cancels and avoids overflow
    expected = torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)
    assert torch.allclose(weights.flatten(), expected, atol=1e-12, rtol=0)


def test_scaling_q_equals_scaling_the_logits_row_by_row():
    """Query i of a causal row sees n = i + 1 keys, so its logits are multiplied by s log(i + 1)."""
    config = dataclasses.replace(TINY, attention="ssmax", n_kv_head=4)
    scale = AttentionScale(config).double()
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 20, 8, dtype=torch.float64).unbind(0)
    _, weights = explicit_attention(scale(q, layout(20).n), k, v, None, causal=True)
    logits = q @ k.transpose(-2, -1) / math.sqrt(8)
    for i in range(20):
        z = logits[:, :, i, : i + 1]
        powers = (i + 1) ** (scale.s[:, None] * z)
        assert torch.allclose(
            weights[:, :, i, : i + 1], powers / powers.sum(-1, keepdim=True), atol=1e-12, rtol=0
        )


def test_a_global_n_is_not_mistaken_for_n_per_row():
    """The mistake seen in the wild scales every row by log T; early rows then come out too sharp."""
    scale = AttentionScale(dataclasses.replace(TINY, attention="ssmax", n_kv_head=4))
    q = torch.ones(1, 4, 20, 8)
    factor = scale(q, layout(20).n)[0, 0, :, 0]
    assert torch.allclose(factor, scale.s[0] * torch.arange(1, 21).log(), atol=1e-6, rtol=0)
    global_n = scale.s[0] * math.log(20)
    assert (factor[:19] < global_n).all()
    assert factor[0] == 0  # log 1: one key gets all the weight whatever the factor


def test_n_restarts_with_each_document_and_counts_real_tokens_only():
    assert layout(5, past=3).n.tolist() == [[4, 5, 6, 7, 8]]
    where = layout(20, segments=PACKED)
    assert where.n[0].tolist() == [*range(1, 8), *range(1, 14)]
    assert where.n[1].tolist() == [1, 1, *range(1, 6), *range(1, 10), 1, 1, 1, 1]
    assert where.positions[0].tolist() == [*range(7), *range(13)]
    assert where.positions[1, 2:16].tolist() == [*range(5), *range(9)]


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
def test_packed_documents_give_the_logits_of_each_alone(attention, position):
    model = tiny_model(attention=attention, position=position)
    idx = tokens()
    packed = model(idx, segments=PACKED).logits
    assert torch.allclose(packed[0, :7], model(idx[:1, :7]).logits[0], atol=1e-10, rtol=0)
    assert torch.allclose(packed[0, 7:], model(idx[:1, 7:]).logits[0], atol=1e-10, rtol=0)
    assert torch.allclose(
        packed[1, 2:7], model(idx[1:, 2:7]).logits[0], atol=1e-10, rtol=0
    )  # behind left padding
    assert torch.allclose(packed[1, 7:16], model(idx[1:, 7:16]).logits[0], atol=1e-10, rtol=0)
    assert packed.isfinite().all()  # padding rows included


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
def test_no_token_sees_the_future(attention, position):
    model = tiny_model(attention=attention, position=position)
    idx, changed = tokens(), tokens()
    changed[:, 12:] = (changed[:, 12:] + 7) % 50
    before, after = model(idx).logits, model(changed).logits
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_one_layer_without_positions_cannot_see_order_but_two_can(attention):
    """Irie 2025: the last token's logits ignore the order of the others with one layer only."""
    idx = tokens(B=1)
    shuffled = idx[:, [*torch.randperm(19, generator=torch.Generator().manual_seed(0)).tolist(), 19]]
    assert not torch.equal(idx, shuffled)
    change = {}
    for n_layer in (1, 2):
        model = tiny_model(attention=attention, position="none", n_layer=n_layer)
        change[n_layer] = (model(idx).logits[0, -1] - model(shuffled).logits[0, -1]).abs().max().item()
    assert change[1] < 1e-10
    assert change[2] > 1e-3


def test_initial_s_makes_the_average_multiplier_one():
    assert initial_s(1024) == pytest.approx(0.16847, abs=1e-5)  # the paper's code starts at 0.168
    for n_ctx in (2, 64, 128, 2048):
        mean = sum(math.log(n) for n in range(1, n_ctx + 1)) / n_ctx
        assert initial_s(n_ctx) * mean == pytest.approx(1)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_scaling_never_promotes_the_dtype_of_q(attention):
    scale = AttentionScale(dataclasses.replace(TINY, attention=attention))
    assert scale(torch.ones(1, 4, 20, 8, dtype=torch.bfloat16), layout(20).n).dtype == torch.bfloat16


def test_logn_leaves_the_trained_context_alone_and_sharpens_beyond():
    scale = AttentionScale(dataclasses.replace(TINY, attention="logn"))
    factor = scale(torch.ones(1, 4, 48, 8), layout(48).n)[0, 0, :, 0]
    assert (factor[:24] == 1).all()
    assert factor[47].item() == pytest.approx(math.log(48) / math.log(24))


def test_a_changed_copy_shares_nothing_and_keeps_what_it_can():
    model = tiny_model(attention="ssmax")
    same = with_changes(model, zero_key=False)
    assert torch.equal(same(tokens()).logits, model(tokens()).logits)  # s too
    with torch.no_grad():
        same.wte.weight.zero_()
    assert model.wte.weight.abs().sum() > 0
    plain = tiny_model(position="none")
    swapped = with_changes(plain, attention="logn")
    assert torch.allclose(swapped(tokens()).logits, plain(tokens()).logits)
    assert not torch.allclose(swapped(tokens(T=200)).logits, plain(tokens(T=200)).logits)
