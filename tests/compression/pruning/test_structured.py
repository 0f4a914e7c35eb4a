"""Whole channels and heads go, as many as said; the smaller model computes what the masked one does."""

import dataclasses
import functools
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import COORDINATES, IDS, LENGTH, PLANTED, planted_model

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.groups import how_many
from supertf.compression.pruning.structured import SCORES, in_smaller, smaller
from supertf.compression.pruning.structured import plan_structured as make_plan
from supertf.compression.verbs import pruned
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.generation import generate
from supertf.model.gpt import GPT
from supertf.model.pretrained import load_model, save_model
from supertf.model.weight_matrices import matrices

plan_structured = functools.partial(make_plan, progress=False)
GROUPED = GPTConfig(
    vocab_size=50, n_ctx=24, n_layer=3, n_head=6, n_kv_head=2, n_embd=24, n_inner=20, position="rope"
)
KINDS = {  # each with biases in every linear layer unless it says otherwise
    "gpt-2": {"n_kv_head": None, "position": "learned"},
    "llama": {"mlp": "swiglu", "norm": "rmsnorm", "bias": False, "qk_norm": True},
    "swiglu with biases": {"mlp": "swiglu", "position": "sinusoidal", "tie_head": False},
    "ssmax": {"attention": "ssmax", "position": "none"},
    "ssmax_bias, a head of keys for each": {"attention": "ssmax_bias", "n_kv_head": 6, "position": "none"},
    "ssmax_fixed and a zero key": {"attention": "ssmax_fixed", "zero_key": True},
    "free scales": {"attention": "free"},
    "alibi": {"position": "alibi"},
    "alibi, a head of keys for each": {"position": "alibi", "n_kv_head": None, "zero_key": True},
    "one head of keys": {"n_kv_head": 1},
    "heads of free size": {"n_head_dim": 6},
}


def model_of(kind, dtype=torch.float64):
    """A random model whose every number differs, biases and scales too."""
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(GROUPED, **KINDS[kind])).to(dtype).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "slopes" not in name:
                tensor.add_(0.3 * torch.randn_like(tensor))
    return model


@torch.no_grad()
def logits(model, ids=IDS[None, :20]):
    return model(ids).logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what, share, left", [("channels", 0.3, 14), ("heads", 1 / 3, 4), ("heads", 0.5, 2)])
def test_the_smaller_model_computes_what_the_masked_one_does(kind, what, share, left):
    model = model_of(kind)
    if what == "heads" and share == 0.5:  # 1 or 2 of 3 heads go: halves are rounded upwards
        left = 3 if model.config.kv_heads in (1, 6) else 2
    found = plan_structured(model, what, share, calibrate(model, IDS, LENGTH))
    small = smaller(model, found)
    assert (small.config.inner if what == "channels" else small.config.n_head) == left
    assert small.num_parameters() < model.num_parameters()
    with pruned(model, found):
        masked = logits(model)
    assert torch.allclose(logits(small), masked, atol=1e-10, rtol=0)
    assert not torch.allclose(logits(model), masked, atol=1e-3, rtol=0)
    cache = small.new_cache()
    steps = [small(IDS[None, i : i + 1], cache=cache).logits for i in range(20)]
    assert torch.allclose(torch.cat(steps, 1), masked, atol=1e-10, rtol=0)
    again = plan_structured(small, "channels", 0.5, calibrate(small, IDS, LENGTH))
    with pruned(small, again):
        masked = logits(small)
    assert torch.allclose(logits(smaller(small, again)), masked, atol=1e-10, rtol=0)


@pytest.mark.parametrize("kind", ["gpt-2", "llama", "ssmax_bias, a head of keys for each", "alibi"])
def test_a_model_without_channels_and_heads_is_saved_loaded_and_generates(tmp_path, kind):
    model = model_of(kind, torch.float32)
    model = smaller(model, plan_structured(model, "channels", 0.25, score="magnitude"))
    model = smaller(model, plan_structured(model, "heads", 1 / 3, score="magnitude"))
    assert (model.config.n_inner, model.config.n_head, model.config.head_dim) == (15, 4, 4)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(logits(loaded), logits(model))
    written = generate(model, [3, 1, 4], 8, temperature=0)
    assert generate(loaded, [3, 1, 4], 8, temperature=0) == written
    shapes = {name: tuple(matrix.weight.shape) for name, matrix in matrices(loaded).items()}
    kv_heads = model.config.kv_heads
    assert shapes["h.2.attn.c_attn"] == ((4 + 2 * kv_heads) * 4, 24)
    assert shapes["h.2.attn.c_proj"] == (24, 16)
    assert shapes["h.2.mlp.c_proj"] == (24, 15)


def test_a_config_from_before_heads_had_a_size_of_their_own_still_loads(tmp_path):
    model = model_of("alibi", torch.float32)
    save_model(model, tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values.pop("n_head_dim") is None
    assert not any("slopes" in name for name in model.state_dict())
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert torch.equal(logits(load_model(tmp_path)), logits(model))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_head_dim": 0}, "n_head_dim is 0, expected at least 1"),
        ({"n_head_dim": 5}, "5 channels: make n_embd / n_head (or n_head_dim) even"),
        ({"n_head_dim": 10**8}, "6 heads of 100000000 channels"),
        ({"n_head": 7, "n_kv_head": 1}, "or give n_head_dim"),
    ],
)
def test_heads_of_impossible_size_are_refused(changes, message):
    with pytest.raises(UserError) as raised:
        dataclasses.replace(GROUPED, **changes)
    assert message in str(raised.value)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.sampled_from(SCORES), st.sampled_from(["channels", "heads"]), st.integers(0, 9))
def test_every_layer_loses_exactly_its_share_of_whole_channels_or_heads(sparsity, score, what, seed):
    model = grouped()
    found = plan_structured(model, what, sparsity, grouped_calibration(), score=score, seed=seed)
    for layer in range(3):
        if what == "channels":
            into, out = (found.removed[f"h.{layer}.mlp.{name}"] for name in ("c_fc", "c_proj"))
            gone = out[0]
            assert int(gone.sum()) == how_many(sparsity, 20)
            assert torch.equal(into, torch.cat([gone, gone])[:, None].expand(40, 24))  # gate and up
        else:
            into, out = (found.removed[f"h.{layer}.attn.{name}"] for name in ("c_attn", "c_proj"))
            gone = out[0]
            heads = gone.view(2, 3, 4).all(-1)  # of both heads of keys
            assert heads.sum(1).tolist() == [how_many(sparsity, 3)] * 2
            assert torch.equal(gone, heads.flatten().repeat_interleave(4))
            assert torch.equal(into, torch.cat([gone, torch.zeros(16, dtype=bool)])[:, None].expand(40, 24))
        assert torch.equal(out, gone.expand(24, -1))


@functools.cache
def grouped():
    return model_of("llama", torch.float32)


@functools.cache
def grouped_calibration():
    return calibrate(grouped(), IDS, LENGTH)


@pytest.mark.parametrize("multiple, kept", [(1, 29), (8, 32), (16, 32), (20, 20), (40, 40)])
def test_what_stays_can_be_rounded_to_a_multiple(model, calibration, multiple, kept):
    found = plan_structured(model, "channels", 0.275, calibration, multiple=multiple)
    assert found.settings["kept"] == smaller(model, found).config.inner == kept


@settings(deadline=None, max_examples=40)
@given(
    st.floats(0, 0.8),
    st.sampled_from(SCORES),
    COORDINATES,
    st.integers(0, 99),
)
def test_protected_channels_stay_and_others_go_in_their_place(
    model, calibration, sparsity, score, protect, seed
):
    how = {"calibration": calibration, "score": score, "seed": seed}
    free = plan_structured(model, "channels", sparsity, **how)
    found = plan_structured(model, "channels", sparsity, protect=protect, watch=protect, **how)
    assert found.counts == free.counts
    small = smaller(model, found)
    for (layer, out, into), fate in zip(protect, found.fates, strict=True):
        gone = found.removed[f"h.{layer}.mlp.c_proj"][0]
        assert not gone[into] and not fate.removed
        assert fate.chosen == bool(free.removed[f"h.{layer}.mlp.c_proj"][out, into])
        now = int((~gone[:into]).sum())  # the channel's place in the smaller model
        assert torch.equal(
            small.h[layer].mlp.c_proj.weight[:, now], model.h[layer].mlp.c_proj.weight[:, into]
        )
    for name, mask in free.removed.items():
        if name.endswith("c_proj"):
            rescued = (mask & ~found.removed[name])[0].nonzero()[:, 0].tolist()
            assert set(rescued) <= {into for layer, _, into in protect if name.startswith(f"h.{layer}.")}


@pytest.mark.parametrize("kind", ["llama", "gpt-2"])
@pytest.mark.parametrize("what, projection", [("channels", "mlp"), ("heads", "attn")])
def test_the_importance_is_the_norm_of_what_each_unit_adds_on_the_text(kind, what, projection):
    """Each channel's outer product with its column is formed and measured, a head's channels together."""
    model = model_of(kind)
    groups, size = (2, 3) if (what, kind) == ("heads", "llama") else (1, 6 if what == "heads" else 20)
    found = plan_structured(model, what, 0.4, calibrate(model, IDS, LENGTH))
    for layer in range(3):
        matrix, seen = getattr(model.h[layer], projection).c_proj, []
        with matrix.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach())):
            for window in IDS.view(-1, LENGTH):
                model(window[None])
        x = torch.cat(seen, 1)[0]  # (tokens, in)
        added = torch.stack([torch.outer(x[:, j], matrix.weight[:, j]).norm() for j in range(x.shape[1])])
        importance = added.view(groups * size, -1).square().sum(1).sqrt().view(groups, size)
        gone = found.removed[f"h.{layer}.{projection}.c_proj"][0].view(groups, size, -1)[:, :, 0]
        for row, removed in zip(importance, gone, strict=True):
            expected = row.argsort()[: how_many(0.4, size)]
            assert set(removed.nonzero()[:, 0].tolist()) == set(expected.tolist())


def test_magnitude_counts_all_weights_that_would_go(model):
    found = plan_structured(model, "channels", 0.5, score="magnitude")
    for layer in range(3):
        mlp = model.h[layer].mlp
        gate, up = mlp.c_fc.weight.split(40)
        sizes = torch.cat([gate, up, mlp.c_proj.weight.T], dim=1).norm(dim=1)
        gone = found.removed[f"h.{layer}.mlp.c_proj"][0]
        assert sizes[gone].max() < sizes[~gone].min()


def test_the_channel_of_a_planted_weight_is_the_last_to_go_and_no_head_touches_it(model, calibration):
    fate = plan_structured(model, "channels", 0.5, calibration, watch=[PLANTED]).fates[0]
    assert (fate.rank, fate.group, fate.going, fate.removed, fate.chosen) == (39, 40, 20, False, False)
    found = plan_structured(model, "heads", 0.5, calibration, protect=[PLANTED], watch=[PLANTED])
    assert not found.fates[0].removed and found.fates[0].rank is None
    assert torch.equal(smaller(model, found).h[1].mlp.c_proj.weight, model.h[1].mlp.c_proj.weight)


def test_weights_are_found_again_in_the_smaller_model(model, calibration):
    found = plan_structured(model, "channels", 0.3, calibration)
    fewer = smaller(model, found)
    gone = 0
    for into in range(40):
        place = in_smaller(found, (1, 7, into))
        if found.removed["h.1.mlp.c_proj"][7, into]:
            assert place is None
            gone += 1
        else:
            layer, out, column = place
            assert fewer.h[layer].mlp.c_proj.weight[out, column] == model.h[1].mlp.c_proj.weight[7, into]
    assert gone == 12
    assert in_smaller(plan_structured(model, "heads", 0.5, calibration), PLANTED) == PLANTED


def test_random_follows_its_seed(model):
    first, again, other = (
        plan_structured(model, "channels", 0.5, score="random", seed=seed).removed for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first["h.0.mlp.c_proj"], first["h.1.mlp.c_proj"])


def test_the_plan_says_what_it_was_asked_for_and_is_undone_bit_for_bit(model, calibration):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = plan_structured(model, "channels", 0.25, calibration, protect=[PLANTED])
    assert found.method == "channels" and found.sparsity == 0.25
    assert found.settings == {
        "sparsity": 0.25,
        "score": "activation",
        "multiple": 1,
        "kept": 30,
        "of": 40,
        "seed": None,
        "protect": [PLANTED],
        "calibration_tokens": len(IDS),
    }
    with pytest.raises(KeyError), pruned(model, found):
        raise KeyError("something went wrong inside")
    smaller(model, found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_smaller_model_keeps_dtype_and_mode_and_shares_nothing():
    model = planted_model().bfloat16().train()
    small = smaller(model, plan_structured(model, "heads", 0.5, score="magnitude"))
    assert small.training and small.wte.weight.dtype == torch.bfloat16
    assert small.lm_head.weight is small.wte.weight
    theirs = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in small.state_dict().values()}
    small(IDS[None, :8], IDS[None, 1:9]).loss.backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


@pytest.mark.real_model
def test_the_real_model_loses_channels_and_keeps_its_super_weight(smollm2):
    ids = torch.arange(1000, 1064)
    found = plan_structured(smollm2, "channels", 0.2, calibrate(smollm2, ids, 64), watch=[(11, 507, 1229)])
    assert found.fates[0].rank == 1535  # the last of its layer to go
    with pruned(smollm2, found):
        masked = logits(smollm2, ids[None, :16])
    small = smaller(smollm2, found)
    assert small.config.n_inner == 1229
    assert (logits(small, ids[None, :16]) - masked).abs().max() < 1e-5 * masked.abs().max()
