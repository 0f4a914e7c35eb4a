"""Dynamic pruning: per token exactly the small inputs are zero, and nothing is changed afterwards."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import CONFIG, COORDINATES, IDS, LENGTH, PLANTED, PROMPT, held, planted_model

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.groups import how_many
from supertf.compression.pruning.input_quantiles import gates, input_sizes, principal_axes
from supertf.compression.pruning.static import plan_static
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.speed.packed import packed_weights
from supertf.compression.verbs import prune, pruned, quantized
from supertf.errors import UserError
from supertf.model.weight_matrices import matrices

pytestmark = pytest.mark.usefixtures("one_thread", "unchanged")
methods = st.sampled_from(["inputs", "gate", "top"])


@pytest.fixture(scope="module")
def turned(model):
    """Sizes along the principal axes of every matrix."""
    sums = calibrate(model, IDS, LENGTH, products=True)
    kinds = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    return input_sizes(model, IDS, LENGTH, axes=principal_axes(sums, kinds))


@torch.no_grad()
def read(model, ids=IDS):
    """Logits of every window of a text, (windows, T, V)."""
    return torch.cat([model(window).logits for window in ids.view(-1, 1, LENGTH)])


class Seen(dict):
    """What matrices are given before anything is cut and what they make of it: by name, (inputs, outputs)."""

    def __init__(self, model, names):
        super().__init__({name: ([], []) for name in names})
        self.hooks = []
        for name, (inputs, outputs) in self.items():
            module = dict(model.named_modules())[name]
            before = module.register_forward_pre_hook(
                lambda _, x, kept=inputs: kept.append(x[0].flatten(0, -2))
            )
            after = module.register_forward_hook(lambda _, x, y, kept=outputs: kept.append(y.flatten(0, -2)))
            self.hooks += [before, after]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()
        self.update({name: (torch.cat(x), torch.cat(y)) for name, (x, y) in self.items()})


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("method", ["inputs", "gate"])
def test_on_the_calibration_text_each_matrix_loses_its_share(model, sizes, method, share):
    names = list(sizes[method].widths)
    for name in names:  # one at a time, as the others would change what it is given
        with dynamically_pruned(model, plan_dynamic(model, method, {name: share}, sizes[method])) as skipped:
            read(model)
        assert list(skipped.sparsities) == [name]
        assert skipped.sparsities[name] == pytest.approx(share, abs=0.01)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 1))
def test_top_drops_exactly_its_share_of_each_token(model, share):
    with dynamically_pruned(model, plan_dynamic(model, "top", share)) as skipped:
        read(model, IDS[:LENGTH])
    for name, matrix in matrices(model).items():
        width = matrix.weight.shape[1]
        assert skipped.seen[name] == LENGTH * width
        assert skipped.dropped[name] == LENGTH * how_many(share, width)


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["inputs", "top"]), st.floats(0, 1), COORDINATES)
def test_a_pruned_matrix_computes_the_slow_sum_over_what_counts(model, sizes, method, share, protect):
    found = plan_dynamic(model, method, share, sizes[method], protect=protect)
    held = {(f"h.{layer}.mlp.c_proj", into) for layer, _, into in protect}
    dropped, spared, met = dict.fromkeys(found.cuts, 0), 0, 0
    with Seen(model, found.cuts) as seen, dynamically_pruned(model, found, protect) as skipped:
        read(model, IDS[:LENGTH])
    for name, (inputs, outputs) in seen.items():
        module = model.get_submodule(name)
        weight, width = module.weight.detach(), inputs.shape[1]
        threshold = float(torch.tensor(sizes["inputs"].threshold(name, share)))  # in float32, as x is
        for x, y in zip(inputs, outputs, strict=True):
            order = sorted(range(width), key=lambda j: abs(float(x[j])))
            small = (
                set(order[: how_many(share, width)])
                if method == "top"
                else {j for j in range(width) if abs(float(x[j])) < threshold}
            )
            kept = [j for j in range(width) if j not in small or (name, j) in held]
            expected = weight[:, kept] @ x[kept] + module.bias
            assert torch.allclose(y, expected, rtol=1e-4, atol=1e-5 * max(1.0, float(y.abs().max())))
            dropped[name] += width - len(kept)
            spared += (width - len(kept)) * len(weight)
            met += weight.numel()
    assert skipped.dropped == dropped
    assert skipped.work == spared / met
    assert set(skipped.watched) == set(protect)
    assert all(counts == (0, LENGTH) for counts in skipped.watched.values())


@settings(deadline=None, max_examples=15)
@given(st.floats(0, 1), COORDINATES)
def test_a_pruned_gate_leaves_out_rows_and_columns(model, sizes, share, protect):
    found = plan_dynamic(model, "gate", share, sizes["gate"], protect=protect)
    downs = [f"h.{layer}.mlp.c_proj" for layer in range(3)]
    with Seen(model, [*found.cuts, *downs]) as seen, dynamically_pruned(model, found, protect) as skipped:
        read(model, IDS[:LENGTH])
    zeros = 0
    for layer, (name, down) in enumerate(zip(found.cuts, downs, strict=True)):
        gate, up = seen[name][1].chunk(2, dim=-1)  # before they are cut
        counts = F.silu(gate).abs() >= sizes["gate"].threshold(name, share)
        counts[:, [into for at, _, into in protect if at == layer]] = True
        assert torch.allclose(seen[down][0], F.silu(gate) * up * counts, rtol=1e-4, atol=1e-6)
        assert skipped.dropped[name] == int((~counts).sum())
        zeros += int((~counts).sum())
    # of a gate's three vectors of 16 weights (its row, the up row, the down column), two need not be read
    assert skipped.work == 2 * zeros / (3 * LENGTH * 40 * 3)
    assert all(counts == (0, LENGTH) for counts in skipped.watched.values())


def test_watched_weights_tell_how_often_their_input_was_dropped(model, sizes):
    watch = [PLANTED, (1, 3, 21), (0, 0, 5), (2, 15, 39), PLANTED]
    found = plan_dynamic(model, "inputs", 0.6, sizes["inputs"], matrices=["mlp.c_proj"])
    with Seen(model, found.cuts) as seen, dynamically_pruned(model, found, watch) as skipped:
        read(model)
    assert set(skipped.watched) == set(watch)
    for layer, out, into in watch:
        name = f"h.{layer}.mlp.c_proj"
        small = seen[name][0][:, into].abs() < found.cuts[name].threshold
        assert skipped.watched[layer, out, into] == (int(small.sum()), len(IDS))
    assert 0 < skipped.watched[0, 0, 5][0] < len(IDS)


def test_a_watched_weight_of_a_matrix_that_is_not_pruned_is_never_dropped(model, sizes):
    found = plan_dynamic(model, "inputs", 0.9, sizes["inputs"], protect=[PLANTED], matrices=["attn.c_attn"])
    with dynamically_pruned(model, found, [PLANTED]) as skipped:
        read(model, IDS[:LENGTH])
    assert skipped.watched == {PLANTED: (0, 0)}


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_sparsity_0_is_the_model_and_1_leaves_the_protected_alone(model, sizes, method):
    other = IDS.flip(0)[: 4 * LENGTH]  # has smaller inputs than any of the calibration text
    plain = read(model, other)
    with dynamically_pruned(model, plan_dynamic(model, method, 0, sizes[method])) as skipped:
        assert torch.equal(read(model, other), plain)
    assert skipped.work == 0
    with dynamically_pruned(model, plan_dynamic(model, method, 1, sizes[method])) as skipped:
        logits = read(model, other)
    assert set(skipped.sparsities.values()) == {1.0}
    assert logits.isfinite().all() and not torch.allclose(logits, plain)
    with dynamically_pruned(
        model, plan_dynamic(model, method, 1, sizes[method], protect=[PLANTED])
    ) as skipped:
        read(model, other)
    kept = {name: seen - skipped.dropped[name] for name, seen in skipped.seen.items()}
    name = "h.1.mlp.c_fc" if method == "gate" else "h.1.mlp.c_proj"
    assert {name: count for name, count in kept.items() if count} == {name: len(other)}


def test_in_other_axes_nothing_dropped_is_the_model_and_the_share_is_met(model, turned):
    plain = read(model)
    with dynamically_pruned(model, plan_dynamic(model, "inputs", 0, turned)):
        assert torch.allclose(read(model), plain, rtol=0, atol=3e-5)  # the planted channel is large
    name = "h.2.mlp.c_proj"
    for method in ("inputs", "top"):
        with (
            Seen(model, [name]) as seen,
            dynamically_pruned(model, plan_dynamic(model, method, {name: 0.5}, turned)) as skipped,
        ):
            read(model)
        assert skipped.sparsities[name] == pytest.approx(0.5, abs=0.01)
        axes, module = turned.axes[name], model.get_submodule(name)
        along = seen[name][0] @ axes
        limit = along.abs().median() if method == "inputs" else along.abs().sort(-1).values[:, 20:21]
        expected = F.linear((along * (along.abs() >= limit)) @ axes.T, module.weight, module.bias)
        close = torch.isclose(seen[name][1], expected, atol=1e-5).all(-1)
        assert float(close.float().mean()) > 0.95  # some tokens have a coordinate right at the median


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Phi3", "OPT", "GPTNeoX", "Falcon", "supertf GELU"])
def test_models_of_other_families_are_pruned_under_their_own_names(family):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain, found = read(model), matrices(model)
    measured = input_sizes(model, IDS, LENGTH)
    for method, own in (("inputs", measured), ("top", None)):
        with dynamically_pruned(model, plan_dynamic(model, method, 0, own)):
            assert torch.equal(read(model), plain)
        with (
            Seen(model, found) as seen,
            dynamically_pruned(model, plan_dynamic(model, method, 0.5, own, protect=[PLANTED])) as skipped,
        ):
            assert not torch.allclose(read(model), plain)
        assert set(skipped.sparsities) == set(found)
        for name, (x, y) in seen.items():
            width = found[name].weight.shape[1]
            kept = x.abs() >= (measured.threshold(name, 0.5) if method == "inputs" else -1)
            if method == "top":
                kept = x.abs() > x.abs().sort(-1).values[:, width // 2 - 1 : width // 2]
            if family != "OPT" or not name.endswith("fc2"):  # half of ReLU's outputs are zero: ties
                assert skipped.dropped[name] == pytest.approx(int((~kept).sum()), abs=len(x))
            if name == next(iter(found)):
                bias = getattr(found[name].module, "bias", None)
                assert torch.allclose(y, F.linear(x * kept, found[name].weight, bias), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(read(model), plain)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_the_head_is_pruned_when_it_is_asked_for(model):
    measured = input_sizes(model, IDS, LENGTH, matrices=["lm_head"])
    found = plan_dynamic(model, "inputs", 0.5, measured, matrices=["lm_head"])
    with Seen(model, ["lm_head"]) as seen, dynamically_pruned(model, found) as skipped:
        logits = read(model)
    x = seen["lm_head"][0]
    expected = F.linear(x * (x.abs() >= found.cuts["lm_head"].threshold), model.lm_head.weight)
    assert torch.allclose(logits.flatten(0, 1), expected, atol=1e-5)
    assert skipped.sparsities == {"lm_head": pytest.approx(0.5, abs=0.01)}


@settings(deadline=None, max_examples=15)
@given(methods, st.floats(0, 1), st.booleans())
def test_nothing_is_left_behind_also_after_an_exception(model, sizes, method, share, fail):
    plain = read(model, IDS[:LENGTH])
    storages = [tensor.data_ptr() for tensor in model.state_dict().values()]
    try:
        with dynamically_pruned(model, plan_dynamic(model, method, share, sizes[method])):
            assert held(model)
            if fail:
                raise KeyError("something went wrong inside")
    except KeyError:
        assert fail
    assert torch.equal(read(model, IDS[:LENGTH]), plain)
    assert storages == [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert not held(model) and not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_a_copy_made_inside_is_the_plain_model(model, sizes):
    plain = read(model)
    for method in ("inputs", "gate"):
        with dynamically_pruned(model, plan_dynamic(model, method, 0.9, sizes[method])) as skipped:
            twin = copy.deepcopy(model)
            assert torch.equal(read(twin), plain)
            assert not skipped.seen
            assert not torch.equal(read(model), plain)
        assert torch.equal(read(twin), plain)


@pytest.mark.parametrize("method", ["inputs", "gate"])
@pytest.mark.parametrize("way", ["prune", "quantize"])
def test_static_changes_and_dynamic_pruning_go_together_in_either_order(model, sizes, way, method):
    dynamic = plan_dynamic(model, method, 0.5, sizes[method], protect=[PLANTED])
    if way == "prune":
        static = pruned, plan_static(model, "magnitude", 0.5, progress=False)
    else:
        static = quantized, plan_quantization(model, "int4 block=8", progress=False)
    plain = read(model)
    with static[0](model, static[1]):
        changed = copy.deepcopy(model)
    with dynamically_pruned(changed, dynamic):
        expected = read(changed)
    with static[0](model, static[1]), dynamically_pruned(model, dynamic):
        assert torch.equal(read(model), expected)
    with dynamically_pruned(model, dynamic), static[0](model, static[1]):
        assert torch.equal(read(model), expected)
        assert held(model)
    assert torch.equal(read(model), plain) and not torch.equal(expected, plain)


def test_a_statically_pruned_copy_made_inside_is_not_cut(model, sizes):
    static = plan_static(model, "magnitude", 0.5, progress=False)
    with dynamically_pruned(model, plan_dynamic(model, "top", 0.9)):
        inside = prune(model, static)
    assert torch.equal(read(inside), read(prune(model, static)))


def test_different_matrices_can_be_pruned_one_inside_the_other_and_the_same_cannot(model, sizes):
    gate = plan_dynamic(model, "gate", 0.5, sizes["gate"])
    attention = plan_dynamic(model, "inputs", 0.5, sizes["inputs"], matrices=["attn.c_attn"])
    everything = plan_dynamic(model, "top", 0.5)
    with dynamically_pruned(model, gate) as outer, dynamically_pruned(model, attention) as inner:
        for again in (gate, attention, everything):
            with (
                pytest.raises(UserError, match="pruned dynamically already: leave that context"),
                dynamically_pruned(model, again),
            ):
                pass
        read(model, IDS[:LENGTH])
        assert list(outer.seen) == list(gates(model)) and len(inner.seen) == 3
    with dynamically_pruned(model, everything):  # and after it, there is room
        pass


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_a_bfloat16_model_and_packed_weights_are_pruned_like_any(method):
    config = dataclasses.replace(CONFIG, n_embd=32, n_inner=64, vocab_size=64)
    model = planted_model(config=config).bfloat16()
    measured = None
    if method != "top":
        measured = input_sizes(model, IDS, LENGTH, of="gate" if method == "gate" else "inputs")
    found = plan_dynamic(model, method, 0.5, measured, protect=[PLANTED])
    name = next(iter(found.cuts))
    with dynamically_pruned(model, found) as skipped:
        logits = read(model)
    assert logits.dtype == torch.bfloat16
    assert skipped.sparsities[name] == pytest.approx(0.5, abs=0.01)
    with packed_weights(model, "bfloat16"), dynamically_pruned(model, found) as again:
        assert torch.allclose(read(model).float(), logits.float(), rtol=0, atol=0.05)
    assert again.sparsities[name] == pytest.approx(skipped.sparsities[name], abs=0.01)


def test_gradients_flow_through_what_counts(model, sizes):
    twin = copy.deepcopy(model)
    for method in ("inputs", "gate"):
        with dynamically_pruned(twin, plan_dynamic(twin, method, 0.5, sizes[method])):
            twin(IDS[None, :LENGTH], IDS[None, 1 : LENGTH + 1]).loss.backward()
        assert twin.h[0].mlp.c_fc.weight.grad.any()


def test_damage_shows(model, sizes):
    damaged = copy.deepcopy(model)
    damaged.h[1].mlp.c_fc.bias.data[3] = torch.nan
    with dynamically_pruned(damaged, plan_dynamic(damaged, "inputs", 0.9, sizes["inputs"])):
        assert not read(damaged, IDS[:LENGTH]).isfinite().any()


def test_before_any_token_no_work_is_spared(model):
    with dynamically_pruned(model, plan_dynamic(model, "top", 0.5)) as skipped:
        assert skipped.work == 0 and skipped.sparsities == {}


def test_the_plan_says_what_it_was_asked_for(model, turned):
    found = plan_dynamic(
        model, "inputs", 0.5, turned, protect=[(1, 0, 0)], matrices=["attn.c_attn", "mlp.c_fc"]
    )
    assert found.settings == {
        "sparsity": 0.5,
        "matrices": ["attn.c_attn", "mlp.c_fc"],
        "axes": ["attn.c_attn", "mlp.c_fc"],
        "protect": [(1, 0, 0)],
        "calibration_tokens": len(IDS),
    }
    shares = {"h.2.mlp.c_fc": 0.3, "h.0.attn.c_attn": 0.1}
    by_name = plan_dynamic(model, "top", shares)
    assert {name: cut.sparsity for name, cut in by_name.cuts.items()} == shares
    assert by_name.settings["sparsity"] == shares and by_name.settings["axes"] == []
    by_kind = plan_dynamic(model, "top", {"mlp.c_proj": 0.2, "h.1.mlp.c_proj": 0.7})
    assert {name: cut.sparsity for name, cut in by_kind.cuts.items()} == {
        f"h.{layer}.mlp.c_proj": 0.7 if layer == 1 else 0.2 for layer in range(3)
    }


def test_one_token_at_a_time_is_pruned_like_the_whole_text(model, sizes):
    for method, own in sizes.items():
        found = plan_dynamic(model, method, 0.5, own)
        with dynamically_pruned(model, found), torch.no_grad():
            whole = model(torch.tensor([PROMPT])).logits[0]
            cache = model.new_cache()
            steps = [model(torch.tensor([[token]]), cache=cache).logits[0, 0] for token in PROMPT]
        assert torch.allclose(torch.stack(steps), whole, atol=1e-4)
