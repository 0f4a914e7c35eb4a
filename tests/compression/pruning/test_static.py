"""Every pruning method removes exactly what it says, keeps what is protected, and is undone bit for bit."""

import copy
import functools
import itertools

import numpy as np
import pytest
import torch
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import COORDINATES, IDS, LENGTH, PLANTED, planted_model

from supertf.analysis.losses import perplexity
from supertf.compression.calibration import calibrate
from supertf.compression.methods import METHODS, of_family
from supertf.compression.pruning.groups import how_many
from supertf.compression.pruning.static import plan_static as make_plan
from supertf.compression.verbs import prune, pruned
from supertf.errors import UserError
from supertf.experiments.smollm2_longer import text
from supertf.model.weight_matrices import matrices
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("unchanged")
STATIC = of_family("static")
EVERY = [(method, scope) for method in STATIC for scope in METHODS[method].scopes]
plan = functools.partial(make_plan, progress=False)
ALONE = [pair for pair in EVERY if pair[0] != "sparsegpt"]
methods = st.sampled_from(EVERY)


def compared(removed, scope):
    """The groups of one plan's masks, each flat; no matrix here has more columns than SparseGPT's block."""
    if scope == "row":
        return [row for mask in removed.values() for row in mask]
    flat = [mask.flatten() for mask in removed.values()]
    return [torch.cat(flat)] if scope == "global" else flat


@settings(deadline=None, max_examples=40)
@given(methods, st.floats(0, 1))
def test_every_group_loses_exactly_its_share(model, calibration, choice, sparsity):
    method, scope = choice
    found = plan(model, method, sparsity, calibration, scope=scope)
    assert list(found.removed) == list(matrices(model))
    for group in compared(found.removed, scope):
        assert int(group.sum()) == how_many(sparsity, len(group))
    assert found.counts == {name: int(mask.sum()) for name, mask in found.removed.items()}
    total = sum(mask.numel() for mask in found.removed.values())
    assert found.sparsity == sum(found.counts.values()) / total
    assert found.sparsities["h.0.mlp.c_proj"] == found.counts["h.0.mlp.c_proj"] / 640


@pytest.mark.parametrize("method", STATIC)
@pytest.mark.parametrize("pattern, kept, m", [("2:4", 2, 4), ("1:4", 1, 4), ("3:8", 3, 8)])
def test_patterns_keep_exactly_n_of_every_m_inputs(model, calibration, method, pattern, kept, m):
    found = plan(model, method, calibration=calibration, pattern=pattern, protect=[PLANTED])
    for mask in found.removed.values():
        assert ((~mask).view(len(mask), -1, m).sum(-1) == kept).all()


@settings(deadline=None, max_examples=40)
@given(methods, st.floats(0, 1), COORDINATES, st.sampled_from([None, "2:4", "1:4"]))
def test_protected_weights_keep_their_values_and_others_go_in_their_place(
    model, calibration, choice, sparsity, protect, pattern
):
    method, scope = choice
    how = {"pattern": pattern} if pattern else {"sparsity": sparsity, "scope": scope}
    free = plan(model, method, calibration=calibration, **how)
    found = plan(model, method, calibration=calibration, protect=protect, watch=protect, **how)
    copy = prune(model, found)
    for layer, out, into in protect:
        assert not found.removed[f"h.{layer}.mlp.c_proj"][out, into]
        kept = copy.h[layer].mlp.c_proj.weight[out, into]
        assert torch.equal(kept, model.h[layer].mlp.c_proj.weight[out, into])
    assert not any(fate.removed for fate in found.fates)
    if not pattern and sparsity < 0.8 and scope != "row":  # otherwise a group may run out of others
        assert sum(found.counts.values()) == sum(free.counts.values())
    if method != "sparsegpt":  # whose later choices follow from earlier ones
        for name, mask in free.removed.items():
            held = [place for layer, *place in protect if name == f"h.{layer}.mlp.c_proj"]
            rescued = mask & ~found.removed[name]
            if scope != "global":
                assert rescued.sum() <= len(held)
            assert all(mask[tuple(place)] == rescued[tuple(place)] for place in held)


@pytest.mark.parametrize("method, scope", ALONE)  # SparseGPT's later choices follow from earlier ones
def test_more_sparsity_removes_what_less_did_and_more(model, calibration, method, scope):
    shares = (0.0, 0.2, 0.5, 0.7, 1.0)
    plans = [plan(model, method, share, calibration, scope=scope, protect=[PLANTED]) for share in shares]
    for less, more in itertools.pairwise(plans):
        assert all((more.removed[name] | ~mask).all() for name, mask in less.removed.items())


@pytest.mark.parametrize("method, scope", EVERY)
def test_sparsity_0_is_the_identity_and_1_removes_all_but_the_protected(model, calibration, method, scope):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pruned(model, plan(model, method, 0, calibration, scope=scope)):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pruned(model, plan(model, method, 1, calibration, scope=scope, protect=[PLANTED])):
        left = [(name, int(matrix.weight.count_nonzero())) for name, matrix in matrices(model).items()]
        assert [pair for pair in left if pair[1]] == [("h.1.mlp.c_proj", 1)]


@settings(deadline=None, max_examples=30)
@given(methods, st.floats(0, 1), COORDINATES, st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_model_comes_back_bit_for_bit_also_after_an_exception(
    calibration, choice, sparsity, protect, fail, dtype
):
    model = planted_model().to(dtype)
    model.h[0].mlp.c_fc.weight.data[0, :2] = torch.tensor([-0.0, 0.0])  # a zero has a sign to lose
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    storages = [tensor.data_ptr() for tensor in model.state_dict().values()]
    found = plan(model, choice[0], sparsity, calibration, scope=choice[1], protect=protect)
    try:
        with pruned(model, found):
            for name, matrix in matrices(model).items():
                assert not matrix.weight[found.removed[name]].any()
                kept = ~found.removed[name]
                expected = found.changed.get(name, before[f"{name}.weight"])
                assert torch.equal(matrix.weight[kept], expected[kept])
            if fail:
                raise KeyError("something went wrong inside")
    except KeyError:
        assert fail
    for name, tensor in model.state_dict().items():
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        assert torch.equal(tensor.view(bits), before[name].view(bits)), name
    assert storages == [tensor.data_ptr() for tensor in model.state_dict().values()]


def test_a_copy_computes_what_the_pruned_model_does(model, calibration):
    for method in STATIC:
        found = plan(model, method, 0.5, calibration)
        copy = prune(model, found)
        with pruned(model, found), torch.no_grad():
            inside = model(IDS[None, :LENGTH]).logits
            assert torch.equal(inside, copy(IDS[None, :LENGTH]).logits)
        assert not torch.equal(inside, model(IDS[None, :LENGTH]).logits)


def test_wanda_is_the_slow_loop_over_explicitly_collected_inputs(model):
    short = IDS[: 3 * LENGTH]
    found = plan(model, "wanda", 0.4, calibrate(model, short, LENGTH))
    for name, matrix in matrices(model).items():
        collected = []
        with matrix.module.register_forward_hook(lambda _, args, __, kept=collected: kept.append(args[0])):
            for window in short.view(-1, LENGTH):
                model(window[None])
        tokens = torch.cat(collected, dim=1)[0].double().tolist()  # [token][channel]
        norms = [sum(token[j] ** 2 for token in tokens) ** 0.5 for j in range(len(tokens[0]))]
        for row, gone in zip(matrix.weight.double().tolist(), found.removed[name], strict=True):
            scores = [abs(w) * norm for w, norm in zip(row, norms, strict=True)]
            order = sorted(range(len(row)), key=lambda j: scores[j])
            assert set(gone.nonzero()[:, 0].tolist()) == set(order[: how_many(0.4, len(row))])


@pytest.mark.real_model
@pytest.mark.slow
def test_wanda_on_smollm2_costs_what_a_reference_computation_does_and_less_than_magnitude(smollm2):
    ids = torch.tensor(text("library-docs", 0, 512)[:512])
    evaluation, seen = ids[:257], ids[257:].view(1, 255)
    squares = {}
    hooks = [
        matrix.module.register_forward_hook(
            lambda _, args, __, name=name: squares.update({name: (args[0].double().numpy() ** 2)[0].sum(0)})
        )
        for name, matrix in matrices(smollm2).items()
    ]
    with torch.no_grad():
        smollm2(seen)
    for hook in hooks:
        hook.remove()
    reference = copy.deepcopy(smollm2)
    for name, matrix in matrices(reference).items():
        weight = matrix.weight.detach().numpy()  # shares memory with the parameter
        scores = np.abs(weight) * np.sqrt(squares[name])
        lowest = np.argpartition(scores, weight.shape[1] // 2, axis=1)[:, : weight.shape[1] // 2]
        np.put_along_axis(weight, lowest, 0, axis=1)
    expected = perplexity(reference, evaluation, 256).perplexity
    by_wanda = plan(smollm2, "wanda", 0.5, calibrate(smollm2, seen.flatten(), 255))
    with pruned(smollm2, by_wanda):
        found = perplexity(smollm2, evaluation, 256).perplexity
    assert 1 / 1.02 < found / expected < 1.02
    with pruned(smollm2, plan(smollm2, "magnitude", 0.5)):
        assert perplexity(smollm2, evaluation, 256).perplexity > 2 * found


@pytest.mark.parametrize("scope", ["matrix", "row", "global"])
def test_magnitude_removes_nothing_larger_than_what_it_keeps(model, scope):
    found = plan(model, "magnitude", 0.3, scope=scope)
    sizes = {name: matrix.weight.abs() for name, matrix in matrices(model).items()}
    if scope == "global":
        sizes = {"all": torch.cat([size.flatten() for size in sizes.values()])[None]}
        removed = {"all": torch.cat([mask.flatten() for mask in found.removed.values()])[None]}
    else:
        removed = found.removed
    for name, mask in removed.items():
        rows = zip(sizes[name], mask, strict=True) if scope == "row" else [(sizes[name], mask)]
        assert all(size[gone].max() <= size[~gone].min() for size, gone in rows)


def test_random_follows_its_seed(model):
    first, again, other = (plan(model, "random", 0.5, seed=seed).removed for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    agreement = torch.cat([(first[name] == other[name]).flatten() for name in first]).float().mean()
    assert 0.45 < float(agreement) < 0.55


@pytest.mark.parametrize("method, scope", [*EVERY, ("magnitude", "2:4"), ("sparsegpt", "2:4")])
def test_the_fate_of_a_watched_weight_is_what_happens_without_protection(model, calibration, method, scope):
    how = {"pattern": scope} if ":" in scope else {"sparsity": 0.6, "scope": scope}
    watch = [PLANTED, (0, 0, 0), (2, 15, 39), (1, 3, 5)]
    free = plan(model, method, calibration=calibration, watch=watch, **how)
    for fate in free.fates:
        layer, out, into = fate.coordinate
        assert fate.removed == fate.chosen == bool(free.removed[f"h.{layer}.mlp.c_proj"][out, into])
        assert 0 <= fate.rank < fate.group
        assert fate.going == how_many(0.5 if ":" in scope else 0.6, fate.group)
    by_size = method in ("magnitude", "wanda", "sparsegpt")
    if by_size and scope != "global":  # the matrix before it has larger weights
        assert free.fates[0].rank == free.fates[0].group - 1  # the planted weight would be the last to go
    lost = next(fate.coordinate for fate in free.fates if fate.removed)
    kept = plan(model, method, calibration=calibration, protect=[lost], watch=[lost], **how).fates[0]
    assert kept.chosen and not kept.removed


def test_a_weight_of_a_matrix_that_is_not_pruned_stays_whatever_the_method(model):
    found = plan(model, "magnitude", 0.5, watch=[PLANTED], matrices=["attn.c_attn"])
    assert list(found.removed) == [f"h.{layer}.attn.c_attn" for layer in range(3)]
    assert not found.fates[0].removed and not found.fates[0].chosen


def test_the_plan_says_what_it_was_asked_for(model, calibration):
    found = plan(model, "wanda", 0.5, calibration, protect=[PLANTED], matrices=["mlp.c_proj"])
    assert found.method == "wanda"
    assert found.settings == {
        "sparsity": 0.5,
        "scope": "row",
        "pattern": None,
        "seed": None,
        "matrices": ["mlp.c_proj"],
        "protect": [PLANTED],
        "calibration_tokens": len(IDS),
    }


@pytest.mark.parametrize("family, count", [("Llama", 7), ("GPT2", 4)])
def test_hugging_face_models_are_pruned_under_their_own_names_and_restored(family, count):
    model = tiny(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = matrices(model)
    assert len(found) == 3 * count
    sums = calibrate(model, IDS, LENGTH, products=True)
    for method in STATIC:
        with pruned(model, plan(model, method, 0.5, sums, protect=[PLANTED])):
            for matrix in found.values():
                assert int((matrix.weight == 0).sum()) == matrix.weight.numel() // 2
            output = [matrix for name, matrix in found.items() if name.endswith(("c_proj", "down_proj"))]
            assert output[-1].weight.shape == (16, 40)  # [out, in], though GPT-2 keeps them transposed
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_different_matrices_can_be_pruned_one_inside_the_other(model):
    outer = plan(model, "magnitude", 0.5, matrices=["mlp.c_proj"])
    inner = plan(model, "random", 0.5, matrices=["attn.c_attn"])
    with pruned(model, outer), pruned(model, inner):
        zeros = {name: int((matrix.weight == 0).sum()) for name, matrix in matrices(model).items()}
    assert {name: count for name, count in zeros.items() if count} == {**outer.counts, **inner.counts}


@pytest.mark.parametrize("change", ["a kept weight", "a removed weight", "dtype", "another tensor"])
def test_a_model_that_was_changed_while_pruned_is_not_undone(change):
    model = planted_model()
    found = plan(model, "magnitude", 0.5)
    place = found.removed["h.2.mlp.c_proj"].nonzero()[0] if change == "a removed weight" else (7, 21)
    weight = model.h[2].mlp.c_proj.weight
    with (
        pytest.raises(UserError, match=r"changed while it was pruned.*train a copy \(`prune`\)"),
        pruned(model, found),
    ):
        if change == "dtype":
            model.bfloat16()
        elif change == "another tensor":
            weight.data = torch.ones_like(weight)
        else:
            weight.data[tuple(place)] += 1
        after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in model.state_dict().items())
    again = plan(model, "magnitude", 0.5)
    with pruned(model, again):  # the model as it is now can be pruned
        pass


def test_single_weights_are_edited_while_pruned_and_come_back(model):
    found = plan(model, "magnitude", 0.5)
    with pruned(model, found):
        with scaled_weights(model, [PLANTED], 0.0):
            assert model.h[1].mlp.c_proj.weight[7, 21] == 0
        assert model.h[1].mlp.c_proj.weight[7, 21] == 3


def test_a_plan_serves_the_model_in_another_dtype(model, calibration):
    narrow = planted_model().bfloat16()
    for method in ("wanda", "sparsegpt"):
        found = plan(model, method, 0.5, calibration)
        with pruned(narrow, found):
            assert not narrow.h[0].mlp.c_fc.weight[found.removed["h.0.mlp.c_fc"]].any()


def test_gradients_flow_in_a_pruned_model_that_inference_mode_left(model):
    found = plan(model, "magnitude", 0.5)
    with torch.inference_mode(), pruned(model, found):
        model(IDS[None, :LENGTH])
    with pruned(model, found):
        model(IDS[None, :LENGTH], IDS[None, 1 : LENGTH + 1]).loss.backward()
    assert model.h[0].mlp.c_fc.weight.grad is not None
