"""A pruned model is trained on a while: it gets better, what was removed stays removed, seeds repeat."""

import functools

import pytest
import torch
from planted import TEXT, learned_model

from supertf.analysis.losses import perplexity
from supertf.compression.pruning.recovery import divergence
from supertf.compression.pruning.recovery import recover as train_on
from supertf.compression.pruning.static import plan_static
from supertf.compression.pruning.structured import plan_structured, smaller
from supertf.compression.verbs import prune, pruned
from supertf.model.weight_matrices import matrices

recover = functools.partial(train_on, length=8, batch_size=4, lr=3e-3, progress=False)
TRAIN, HELD_OUT = TEXT[:1600], TEXT[1600:2000]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dense():
    return learned_model()


@pytest.fixture(scope="module")
def small(dense):
    """The same with a fifth of its channels."""
    return smaller(dense, plan_structured(dense, "channels", 0.8, score="random", progress=False))


def test_training_on_recovers_most_of_what_pruning_cost(dense, small):
    before, after, goal = (
        perplexity(model, HELD_OUT, 8).loss for model in (small, recover(small, TRAIN, 60).model, dense)
    )
    assert before > goal + 0.5
    assert after < goal + (before - goal) / 3


def test_a_teacher_pulls_the_model_towards_itself(dense, small):
    idx = HELD_OUT[None, :64].view(8, 8)
    taught = recover(small, TRAIN, 60, teacher=dense)
    with torch.no_grad():
        assert divergence(dense, dense, idx) == pytest.approx(0, abs=1e-6)
        before, after = divergence(small, dense, idx), divergence(taught.model, dense, idx)
    assert after < before / 3
    assert taught.losses[0] == pytest.approx(float(before), rel=0.8)


def test_divergence_is_the_kl_divergence_written_out(dense, small):
    idx = HELD_OUT[None, :10]
    with torch.no_grad():
        p, q = (model.double()(idx).logits.softmax(-1)[0] for model in (dense, small))
        expected = (p * (p / q).log()).sum(-1).mean()
        assert torch.allclose(divergence(small, dense, idx), expected, atol=1e-12)
    dense.float(), small.float()


def test_weights_that_pruning_removed_stay_removed_and_the_rest_learns(dense):
    found = plan_static(dense, "random", 0.5, progress=False)
    copy = prune(dense, found)
    with torch.no_grad():
        trained = recover(copy, TRAIN, 10).model
    for name, matrix in matrices(trained).items():
        assert not matrix.weight[found.removed[name]].any()
        start = matrices(copy)[name].weight
        moved = matrix.weight[~found.removed[name]] != start[~found.removed[name]]
        assert moved.float().mean() > 0.99
    with pruned(dense, found):  # a copy is trained, so the context can be left
        recover(dense, TRAIN, 2)


def test_the_model_is_not_touched_and_seeds_repeat(small):
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    first, again, other = (recover(small, TRAIN, 5, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert len(first.losses) == 5 and first.seconds > 0 and not first.model.training
    assert first.losses == again.losses != other.losses
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.model.state_dict().items())
    assert first.model.config == small.config
