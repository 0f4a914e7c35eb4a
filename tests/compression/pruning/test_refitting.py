"""Projections fitted anew: by least squares, to some good; nothing else changes, or where nothing is lost."""

import dataclasses
import functools

import pytest
import torch
from planted import CONFIG, TEXT, learned_model

from supertf.analysis.losses import perplexity
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import input_sizes
from supertf.compression.pruning.refitting import refit as fit_anew
from supertf.compression.pruning.structured import plan_structured, smaller
from supertf.model.gpt import GPT

LENGTH = 8
KINDS = ("attn.c_proj", "mlp.c_proj")
refit = functools.partial(fit_anew, length=LENGTH, prior=50, progress=False)
SEEN, HELD_OUT = TEXT[:3200], TEXT[3200:]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return learned_model()


def loss_under(model, plan):
    """On the held-out text, in nats."""
    with dynamically_pruned(model, plan):
        return perplexity(model, HELD_OUT, LENGTH).loss


def test_the_first_projection_solves_the_least_squares_problem(model):
    model = model.double()
    plan = plan_dynamic(model, "top", {"h.0.mlp.c_proj": 0.75})
    prior, ids = 20.0, SEEN[:160].view(-1, LENGTH)
    weight = refit(model, ids.flatten(), plan, prior=prior).h[0].mlp.c_proj.weight
    rows = {}
    with torch.no_grad():
        hook = model.h[0].mlp.c_proj.register_forward_pre_hook(lambda _, x: rows.update(x=x[0].flatten(0, 1)))
        where = model.layout(ids, 0, None, None)
        stream = model.embed(ids, where)
        before = stream + model.h[0].attn(model.h[0].ln_1(stream), where)[0]
        after = model.h[0](stream, where)[0].flatten(0, 1)
        hook.remove()
        x = rows["x"]
        threshold = x.abs().sort(dim=1, descending=True).values[:, x.shape[1] // 4 - 1 :][:, :1]
        x = x * (x.abs() >= threshold)
        size = after.square().mean(1, keepdim=True).sqrt()  # (tokens, 1)
        projection = model.h[0].mlp.c_proj
        goal = after - before.flatten(0, 1)
        goal = goal if projection.bias is None else goal - projection.bias
        strength = (prior * (x / size).square().mean()).sqrt()
        pulled = strength * torch.eye(x.shape[1], dtype=x.dtype)
        expected = torch.linalg.lstsq(
            torch.cat([x / size, pulled]), torch.cat([goal / size, pulled @ projection.weight.T])
        ).solution.T
    assert not torch.allclose(weight, projection.weight, atol=1e-3)
    assert torch.allclose(weight, expected, atol=1e-8)
    model.float()


@pytest.mark.parametrize("method", ["top", "gate"])
def test_it_brings_back_much_of_what_dropping_inputs_cost(model, method):
    gates = input_sizes(model, SEEN[:800], LENGTH, of="gate")
    by_method = {"top": ({"mlp.c_proj": 0.9},), "gate": (0.8, gates)}
    plan = plan_dynamic(model, method, *by_method[method])
    dense, before = perplexity(model, HELD_OUT, LENGTH).loss, loss_under(model, plan)
    after = loss_under(refit(model, SEEN, plan), plan)
    assert before > dense + 0.02
    assert after < dense + (before - dense) * 2 / 3


def test_it_brings_back_much_of_what_channels_were_worth(model):
    small = smaller(model, plan_structured(model, "channels", 0.5, score="random", progress=False))
    dense, before, after = (
        perplexity(one, HELD_OUT, LENGTH).loss for one in (model, small, refit(small, SEEN, teacher=model))
    )
    assert before > dense + 0.02
    assert after < dense + (before - dense) * 2 / 3


def test_with_nothing_left_out_the_weights_stay_what_they_are(model):
    plan = plan_dynamic(model, "top", 0.0)
    for one in (refit(model, SEEN[:800], matrices=KINDS), refit(model, SEEN[:800], plan, matrices=KINDS)):
        for name, weight in model.state_dict().items():
            assert torch.allclose(one.state_dict()[name], weight, atol=1e-4), name


def test_only_what_was_asked_for_changes_and_the_model_itself_does_not(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = plan_dynamic(model, "top", {"mlp.c_proj": 0.5})
    copy = refit(model, SEEN[:400], plan, matrices=["attn.c_proj"])
    changed = {name for name, value in copy.state_dict().items() if not torch.equal(value, before[name])}
    # the first attention comes before anything is dropped: its weights are found again, up to rounding
    assert changed <= {f"h.{layer}.attn.c_proj.weight" for layer in range(CONFIG.n_layer)}
    assert changed >= {f"h.{layer}.attn.c_proj.weight" for layer in range(1, CONFIG.n_layer)}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not copy.h[0].mlp.c_proj._forward_pre_hooks
    with dynamically_pruned(copy, plan):  # the plan is free again, and the copy no part of it
        copy(SEEN[None, :4])


def test_after_a_projection_whose_inputs_are_all_dropped_the_rest_is_fitted(model):
    plan = plan_dynamic(model, "top", {"h.0.mlp.c_proj": 1.0})
    copy = refit(model, SEEN[:400], plan)
    assert torch.equal(copy.h[0].mlp.c_proj.weight, model.h[0].mlp.c_proj.weight)
    assert not torch.equal(copy.h[1].mlp.c_proj.weight, model.h[1].mlp.c_proj.weight)


def test_a_model_with_biases_keeps_them():
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(CONFIG, bias=True))
    with torch.no_grad():
        for block in model.h:
            block.mlp.c_proj.bias.normal_()
    same = refit(model, SEEN[:800])
    assert torch.allclose(same.h[1].mlp.c_proj.weight, model.h[1].mlp.c_proj.weight, atol=1e-4)
    assert torch.equal(same.h[1].mlp.c_proj.bias, model.h[1].mlp.c_proj.bias)
