"""The head in two steps: exact for the best words, rough for the rest, the same on both paths."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from planted import CONFIG, IDS, LENGTH, held, step_by_step

from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import plan_dynamic
from supertf.compression.speed.kernels import counting
from supertf.compression.speed.skipped_columns import skipping
from supertf.compression.speed.two_step_head import rough_head, svd_softmax
from supertf.model.generation import generate

pytestmark = [pytest.mark.kernels, pytest.mark.usefixtures("one_thread")]
V, C = CONFIG.vocab_size, CONFIG.n_embd


@pytest.fixture(scope="module")
def states(model):
    return calibrate(model, IDS, LENGTH, products=True, matrices=["lm_head"])


@torch.no_grad()
def in_two_steps(model, head, read):
    """What `read`, a function of a model that gives logits, should give with this head."""
    states = []
    with model.ln_f.register_forward_hook(lambda _, __, y: states.append(y[0])):
        full = read(model)  # (T, V)
    rough = torch.cat(states) @ head.down.T @ head.up.T
    order = rough.sort(dim=-1, descending=True)
    if head.exact < V:  # where words tie for the last place, rounding decides which of them is exact
        assume((order.values[:, head.exact - 1] - order.values[:, head.exact] > 1e-6).all())
    best = order.indices[:, : head.exact]
    return rough.scatter(1, best, full.gather(1, best))


@settings(deadline=None, max_examples=30)
@example(1, 1, [42, 26, 26, 9, 18])  # whose last state depends on how its tokens are read, by 1e-4
@given(st.integers(1, C), st.integers(1, V), st.lists(st.integers(0, 49), min_size=1, max_size=5))
def test_the_best_words_get_exact_logits_and_the_others_rough_ones_on_both_paths(
    model, states, rank, exact, tokens
):
    head = rough_head(model, states, rank=rank, exact=exact)

    def one_by_one(of):
        return step_by_step(of, tokens)

    def together(of):
        return of(torch.tensor([tokens])).logits[0]

    for read in (one_by_one, together):
        expected = in_two_steps(model, head, read)
        with svd_softmax(model, head), torch.no_grad():
            assert torch.allclose(read(model), expected, rtol=0, atol=1e-5)
    assert not held(model)


def test_all_words_exact_or_all_directions_is_the_plain_head(model, states):
    plain, written = step_by_step(model, [3, 1, 4]), generate(model, [3, 1, 4], 8)
    for rank, exact in ((1, V), (C, 1)):
        with svd_softmax(model, rough_head(model, states, rank=rank, exact=exact)):
            assert torch.allclose(step_by_step(model, [3, 1, 4]), plain, rtol=0, atol=1e-4)
            assert generate(model, [3, 1, 4], 8) == written


@torch.no_grad()
def test_no_other_matrix_of_the_rank_is_nearer_on_the_calibration_text(model, states):
    weight, kept = model.lm_head.weight, []
    with model.ln_f.register_forward_hook(lambda _, __, y: kept.append(y[0])):
        for window in IDS.view(-1, 1, LENGTH):
            model(window)
    x = torch.cat(kept)  # (N, C)
    wanted = x @ weight.T
    generator = torch.Generator().manual_seed(0)
    for rank in (2, 6):
        head = rough_head(model, states, rank=rank, exact=1)
        error = (x @ head.down.T @ head.up.T - wanted).square().sum()
        bound = torch.linalg.svdvals(wanted)[rank:].square().sum()  # Eckart-Young: of any matrix of this rank
        assert bound <= error * (1 + 1e-5) and error < 1.05 * bound  # damping costs a little
        for _ in range(5):
            axes = torch.linalg.qr(torch.randn(C, rank, generator=generator)).Q
            assert error < (x @ axes @ axes.T @ weight.T - wanted).square().sum()


def test_work_counts_every_weight_that_is_read(model, states):
    head = rough_head(model, states, rank=4, exact=10)
    assert head.work == (V * 4 + 4 * C + 10 * C) / (V * C)


def test_it_goes_together_with_skipping_in_the_layers(model, states):
    head, found = rough_head(model, states, rank=6, exact=10), plan_dynamic(model, "top", 0.5)
    with skipping(model, found), svd_softmax(model, head):
        both = step_by_step(model, [3, 1, 4])
    with svd_softmax(model, head), skipping(model, found):
        assert torch.equal(step_by_step(model, [3, 1, 4]), both)
    with skipping(model, found):
        layers = step_by_step(model, [3, 1, 4])
    best = both.argmax(-1)
    assert torch.allclose(
        both[range(3), best], layers[range(3), best], rtol=0, atol=1e-5
    )  # the best is exact


def test_nothing_is_left_behind_also_after_an_exception(model, states):
    before = model.lm_head.weight.clone()
    with pytest.raises(KeyError), svd_softmax(model, rough_head(model, states, rank=2, exact=2)):
        raise KeyError("something went wrong inside")
    assert not held(model)
    assert torch.equal(model.lm_head.weight, before)


@given(st.lists(st.floats(width=32), min_size=1, max_size=9), st.floats(0, 1e3, width=32), st.data())
def test_what_counts_is_what_is_not_below_the_threshold_or_held(values, threshold, data):
    held = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    x = np.array(values, np.float32)
    expected = [j for j, value in enumerate(x) if held[j] or not abs(value) < np.float32(threshold)]
    assert counting(x, np.float32(threshold), np.array(held)).tolist() == expected
