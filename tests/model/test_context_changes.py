"""Contexts that change a model: any two nest right or are refused, and are undone bit for bit."""

import contextlib
import copy
import itertools

import pytest
import torch
from planted import PROMPT, TEXT, held, learned_model, sizes_by_method

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.static import plan_static
from supertf.compression.quantization.activations import quantized_activations
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.speed.skipped_columns import skipping
from supertf.compression.speed.two_step_head import rough_head, svd_softmax
from supertf.compression.verbs import pruned, quantized
from supertf.errors import UserError
from supertf.superweights.edit import scaled_weights
from supertf.superweights.effects import restored_activations

WEIGHTS = [(1, 7, 21), (1, 7, 3), (2, 0, 5)]
NAMES = ("scaled", "removed", "restored", "pruned", "some pruned", "quantized")
NAMES += ("gate", "inputs", "skipping", "skipping gates", "rounded", "rough head")
PAIRS = list(itertools.product(NAMES, NAMES))
WEIGHTS_ONLY = ("scaled", "removed", "pruned", "some pruned", "quantized")


@pytest.fixture(scope="module")
def model():
    return learned_model().eval()


@pytest.fixture(scope="module")
def contexts(model):
    """What makes each context, by name."""
    ids = TEXT[:400]
    sizes = sizes_by_method(model, ids, 8)
    sparse, some = (
        plan_static(model, "magnitude", 0.5, matrices=of, progress=False) for of in (None, ["mlp.c_proj"])
    )
    few = plan_quantization(model, "int4 block=8", progress=False)
    gate, inputs = (plan_dynamic(model, name, 0.5, sizes[name]) for name in ("gate", "inputs"))
    head = rough_head(model, calibrate(model, ids, 8, products=True, matrices=["lm_head"]), rank=4, exact=8)
    return {
        "scaled": lambda one: scaled_weights(one, WEIGHTS, 3.0),
        "removed": lambda one: scaled_weights(one, WEIGHTS[:2]),
        "restored": lambda one: restored_activations(one, WEIGHTS[:1]),
        "pruned": lambda one: pruned(one, sparse),
        "some pruned": lambda one: pruned(one, some),
        "quantized": lambda one: quantized(one, few),
        "gate": lambda one: dynamically_pruned(one, gate),
        "inputs": lambda one: dynamically_pruned(one, inputs),
        "skipping": lambda one: skipping(one, inputs),
        "skipping gates": lambda one: skipping(one, gate),
        "rounded": lambda one: quantized_activations(one, 4),
        "rough head": lambda one: svd_softmax(one, head),
    }


@torch.inference_mode()
def read(model):
    return model(torch.tensor([PROMPT])).logits


def state_of(model):
    return {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in model.state_dict().items()}


def assert_as_before(model, before, logits):
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == before[name][0] and torch.equal(tensor, before[name][1]), name
    assert torch.equal(read(model), logits) and not held(model)
    for module in model.modules():
        assert not module._forward_pre_hooks and not module._forward_hooks


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_two_contexts_nest_right_or_are_refused_and_leave_no_trace(model, contexts, outer, inner):
    before, plain = state_of(model), read(model)
    with contexts[outer](model):
        alone, twin = read(model), copy.deepcopy(model)
        assert not torch.equal(alone, plain)
        assert torch.equal(read(twin), alone if outer in WEIGHTS_ONLY else plain) or outer == "restored"
        assert not held(twin)
        try:
            with contexts[inner](model):
                both = read(model)
        except UserError as refused:
            assert "\n" not in str(refused)
        else:
            with contexts[inner](twin):
                assert outer not in WEIGHTS_ONLY or torch.equal(both, read(twin))
        assert torch.equal(read(model), alone)  # whatever happened inside
    assert_as_before(model, before, plain)
    with pytest.raises(KeyError), contexts[outer](model):
        with contextlib.suppress(UserError), contexts[inner](model):
            raise KeyError("something went wrong inside")
        raise KeyError("or was refused")
    assert_as_before(model, before, plain)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_an_outer_context_left_first_is_undone_or_says_so_and_nothing_is_lost(model, contexts, outer, inner):
    before, plain, fresh = state_of(model), read(model), copy.deepcopy(model)
    first, second = contexts[outer](model), contexts[inner](model)
    first.__enter__()
    try:
        second.__enter__()
    except UserError:
        first.__exit__(None, None, None)
        return assert_as_before(model, before, plain)
    try:
        first.__exit__(None, None, None)
    except UserError as refused:
        assert "in the reverse order" in str(refused) and "\n" not in str(refused)
    else:
        with contexts[inner](fresh):
            assert torch.equal(read(model), read(fresh))
    second.__exit__(None, None, None)
    assert_as_before(model, before, plain)
