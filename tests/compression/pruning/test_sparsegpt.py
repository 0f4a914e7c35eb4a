"""SparseGPT against Optimal Brain Surgeon written out slowly, and against methods that change no weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.compression.pruning.groups import how_many
from supertf.compression.pruning.sparsegpt import DAMPING, inverse_root, sparsegpt

ROWS, WIDTH, TOKENS = 6, 12, 200


def problem(seed=0, rows=ROWS, width=WIDTH, tokens=TOKENS):
    """A matrix W and inputs X, float64: as in models, a few directions carry most of the channels' values."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, width, generator=generator, dtype=torch.float64)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    spectrum = torch.logspace(0.5, -1.5, width, dtype=torch.float64)
    x = torch.randn(tokens, width, generator=generator, dtype=torch.float64) * spectrum @ mixing
    return w, x


def hessian(x):
    """X^T X, damped as the paper does."""
    h = x.T @ x
    return h + DAMPING * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype)


def one_by_one(w, h, removed, protected):
    """Each row alone, one column at a time, inverting H of the columns that are left anew each time."""
    w = w.clone()
    for row, original, gone, held in zip(w, w.clone(), removed, protected, strict=True):
        for j in range(len(row)):
            inverse = torch.linalg.inv(h[j:, j:])
            target = 0.0 if gone[j] else original[j] if held[j] else row[j]
            row[j:] -= (row[j] - target) / inverse[0, 0] * inverse[0]
    return w


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 1000), st.floats(0, 1), st.sampled_from([1, 3, 5, 12, 128]), st.sampled_from([None, 2, 4])
)
def test_kept_weights_are_those_of_optimal_brain_surgeon_one_weight_at_a_time(seed, sparsity, block, every):
    w, x = problem(seed)
    protected = torch.rand(w.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    found = sparsegpt(w, x.T @ x, sparsity, every, protected, block)
    slow = one_by_one(w, hessian(x), found.removed, protected)
    assert torch.allclose(found.weight, slow, rtol=1e-8, atol=1e-8)
    assert torch.equal(found.weight[protected], w[protected])
    assert (found.weight[found.removed] == 0).all()
    assert not (found.removed & protected).any()


def test_the_first_choice_is_by_the_error_that_removing_a_weight_leaves():
    w, x = problem()
    h = hessian(x)
    found = sparsegpt(w, x.T @ x, 0.5)
    for j in range(WIDTH):  # a column is judged with those before it settled
        expected = w[:, j] ** 2 / torch.linalg.inv(h[j:, j:])[0, 0]
        assert torch.allclose(found.scores[:, j], expected, rtol=1e-8)
    order = found.scores.flatten().argsort()[: ROWS * WIDTH // 2]
    assert sorted(order.tolist()) == found.removed.flatten().nonzero()[:, 0].tolist()


def test_a_score_is_the_error_of_the_best_repair():
    w, x = problem()
    found = sparsegpt(w, x.T @ x, 0.0)
    h, row = hessian(x), w[2]
    others = torch.arange(WIDTH) != 0  # without weight 0, the others refitted by least squares
    change = torch.linalg.solve(h[others][:, others], h[others, 0] * row[0])
    delta = torch.cat([-row[:1], change])
    assert found.scores[2, 0] == pytest.approx(float(delta @ h @ delta), rel=1e-8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from([4, 5, 128]))
def test_counts_are_exact_in_every_block_of_columns(seed, sparsity, block):
    w, x = problem(seed)
    removed = sparsegpt(w, x.T @ x, sparsity, block=block).removed
    for part in removed.split(block, dim=1):
        assert int(part.sum()) == how_many(sparsity, part.numel())


@pytest.mark.parametrize("every, kept", [(4, 2), (3, 1)])
def test_patterns_keep_as_many_of_every_group(every, kept):
    w, x = problem()
    removed = sparsegpt(w, x.T @ x, 1 - kept / every, every, block=5).removed
    assert (removed.view(ROWS, -1, every).sum(-1) == every - kept).all()


def test_sparsity_0_changes_nothing_and_1_removes_all():
    w, x = problem()
    assert torch.equal(sparsegpt(w, x.T @ x, 0.0).weight, w)
    assert not sparsegpt(w, x.T @ x, 1.0).weight.any()


@pytest.mark.parametrize("seed", range(5))
def test_the_outputs_suffer_less_than_by_wanda_and_magnitude_but_more_than_by_least_squares(seed):
    w, x = problem(seed, rows=32, width=48, tokens=400)
    found = sparsegpt(w, x.T @ x, 0.5)

    def error(pruned):
        return float((x @ (w - pruned).T).square().sum())

    def masked(scores):
        return torch.where(scores > scores.median(dim=1, keepdim=True).values, w, 0.0)

    best = torch.zeros_like(w)  # each row's kept weights fitted anew: the bound for this mask
    for row, target, gone in zip(best, (x @ w.T).T, found.removed, strict=True):
        row[~gone] = torch.linalg.lstsq(x[:, ~gone], target[:, None]).solution[:, 0]
    assert error(best) < error(found.weight)
    assert error(found.weight) < 0.8 * error(masked(w.abs() * x.norm(dim=0))) < error(masked(w.abs()))


def test_the_root_is_that_of_the_inverse_and_triangular():
    _, x = problem()
    root = inverse_root(x.T @ x, DAMPING)
    assert torch.equal(root, root.triu())
    assert torch.allclose(root.T @ root @ hessian(x), torch.eye(WIDTH, dtype=torch.float64), atol=1e-8)


def test_inputs_that_were_always_zero_are_removed_first_and_break_nothing():
    w, x = problem()
    x[:, 3:6] = 0
    found = sparsegpt(w, x.T @ x, 3 / WIDTH)
    assert found.removed[:, 3:6].all()
    assert found.weight.isfinite().all()
    silent = sparsegpt(w, torch.zeros(WIDTH, WIDTH), 0.5)  # nothing at all came in
    assert silent.weight.isfinite().all()


def test_a_channel_of_massive_activations_leaves_float32_accurate():
    w, x = problem()
    x[:, 5] *= 1e4
    exact = sparsegpt(w, x.T @ x, 0.5)
    found = sparsegpt(w.float(), (x.T @ x).float(), 0.5)
    assert torch.equal(found.removed, exact.removed)
    assert torch.allclose(found.weight.double(), exact.weight, rtol=1e-3, atol=1e-3)
