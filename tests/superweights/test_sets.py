"""Greedy sets and pairs, on damage one knows and on weights planted in a model."""

import math

import pytest
import torch
from families import PROMPT, plant, tiny
from planted import planted_model, zeroed

from supertf.model.weight_matrices import output_projections
from supertf.superweights.sets import greedy_set, pair_interactions, random_sets, row_pool

POOL = [(1, 7, into) for into in range(5)]
A, B, C, *_ = POOL


def known(damage, together=()):
    """A loss from nats by coordinate, and `together`: (coordinate, coordinate, nats when both are gone)."""

    def loss(model):
        return zeroed(damage)(model) + sum(
            nats for a, b, nats in together if zeroed({a: 1, b: 1})(model) == 3.0
        )

    return loss


def test_greedy_takes_what_hurts_most_next_to_those_taken():
    loss = known({A: 0.5, B: 0.4, C: 0.1}, together=[(A, C, 2.0)])
    steps = greedy_set(planted_model(), POOL, loss, size=3, progress=False)
    assert [step.coordinates for step in steps] == [(A,), (A, C), (A, C, B)]
    assert [step.ratio for step in steps] == pytest.approx([math.exp(nats) for nats in (0.5, 2.6, 3.0)])


def test_greedy_misses_a_pair_of_which_neither_hurts_alone():
    """As its documentation says."""
    loss = known({A: 0.1}, together=[(B, C, 5.0)])
    steps = greedy_set(planted_model(), POOL, loss, size=2, progress=False)
    assert steps[0].coordinates == (A,) and steps[1].ratio < 2


def test_greedy_measures_each_remaining_weight_once_per_step_and_puts_all_back():
    model, calls = planted_model(), []
    before = model.h[1].mlp.c_proj.weight.clone()
    greedy_set(model, POOL, lambda _: float(len(calls.append(0) or calls)), size=3, progress=False)
    assert len(calls) == 1 + 5 + 4 + 3
    assert torch.equal(model.h[1].mlp.c_proj.weight, before)


@pytest.mark.parametrize("kind", ["supertf SwiGLU", "GPT2", "OPT"])
def test_two_planted_weights_are_the_pool_s_first_and_the_greedy_set(kind):
    model = tiny(kind)
    pair = [(1, 7, 21), (1, 7, 30)]
    for coordinate in pair:
        plant(model, coordinate)
    pool = row_pool(model, 1, 7, PROMPT, size=6)
    assert set(pool[:2]) == set(pair) and len(set(pool)) == 6
    with torch.no_grad():
        whole = model(torch.tensor([PROMPT])).logits

    def loss(model):
        with torch.no_grad():
            return float((model(torch.tensor([PROMPT])).logits - whole).square().mean())

    assert set(greedy_set(model, pool, loss, size=2, progress=False)[1].coordinates) == set(pair)


def test_the_pool_is_ordered_by_contribution_at_the_row_s_largest_output():
    model = planted_model()
    seen = {}
    hook = model.h[2].mlp.c_proj.register_forward_hook(
        lambda _, inputs, y: seen.update(x=inputs[0][0], y=y[0])
    )
    with torch.no_grad():
        model(torch.tensor([PROMPT]))
    hook.remove()
    token = int(seen["y"][:, 3].abs().argmax())
    order = (seen["x"][token] * model.h[2].mlp.c_proj.weight[3]).abs().argsort(descending=True)
    assert row_pool(model, 2, 3, PROMPT, size=40) == [(2, 3, into) for into in order.tolist()]


def test_random_sets_are_of_the_pool_reproducible_and_measured():
    model = planted_model()
    damage = {coordinate: 2.0**i for i, coordinate in enumerate(POOL)}
    sets = random_sets(model, POOL, known(damage), size=2, sets=6, seed=1, progress=False)
    assert len({frozenset(one.coordinates) for one in sets}) == len(sets) == 6
    for one in sets:
        assert len(set(one.coordinates)) == 2 and set(one.coordinates) <= set(POOL)
        assert one.loss == 1 + sum(damage[coordinate] for coordinate in one.coordinates)
    assert sets == random_sets(model, POOL, known(damage), size=2, sets=6, seed=1, progress=False)


def test_interactions_are_what_pairs_do_beyond_their_two():
    loss = known({A: 0.5, B: 0.25}, together=[(A, C, 1.0), (B, C, -0.125)])
    pairs = pair_interactions(planted_model(), [A, B, C], loss, progress=False)
    found = {pair.both.coordinates: pair.interaction for pair in pairs}
    assert found == pytest.approx({(A, B): 0.0, (A, C): 1.0, (B, C): -0.125})
    assert pairs[0].first.coordinates == (A,) and pairs[0].second.loss == 1.25


def test_removing_from_two_rows_that_the_loss_adds_up_does_not_interact():
    """Of a real product: the loss is linear in two outputs of one layer, each fed by one of the weights."""
    model = tiny("Llama").double()
    weight = output_projections(model)[1].weight.detach()
    x = torch.linspace(1, 2, 40, dtype=torch.float64)
    pairs = pair_interactions(
        model, [(1, 3, 5), (1, 4, 6)], lambda _: float((weight @ x)[3:5].sum()), progress=False
    )
    assert pairs[0].interaction == pytest.approx(0, abs=1e-12) != pairs[0].first.loss
