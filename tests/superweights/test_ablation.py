"""A verdict on a weight rests on controls that are what they say, and leaves the model as it was."""

import math
import pydoc_data.topics

import pytest
import torch
from families import plant, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import TEXT, planted_model, zeroed

from supertf.analysis.intervals import mean_interval
from supertf.analysis.losses import perplexity
from supertf.data.tokenizer import load_tokenizer
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT
from supertf.superweights.ablation import (
    ablate,
    largest_elsewhere,
    largest_of_row,
    random_weights,
    removal,
    text_loss,
    whole_row,
)

IDS = TEXT[:60].tolist()


@pytest.fixture
def hand_made():
    """Two layers of 4 x 3 weights that one can look through."""
    model = GPT(GPTConfig(vocab_size=9, n_ctx=16, n_layer=2, n_head=1, n_embd=4, n_inner=3))
    weights = [
        [[0.1, -9.0, 8.0], [0.2, 0.3, -7.0], [0.4, 0.5, 0.6], [5.0, 0.8, 0.7]],
        [[-9.5, 0.1, 0.1], [6.0, 0.2, 0.3], [-4.0, 0.3, 4.5], [0.1, 0.2, 0.1]],
    ]
    for block, weight in zip(model.h, weights, strict=True):
        block.mlp.c_proj.weight.data = torch.tensor(weight)
    return model


def test_the_largest_elsewhere_are_those_of_all_layers_outside_the_row(hand_made):
    expected = [(0, 1, 2), (1, 1, 0), (0, 3, 0), (1, 2, 2), (1, 2, 0)]
    assert largest_elsewhere(hand_made, 0, 5) == expected
    assert largest_elsewhere(hand_made, 1, 3) == [(1, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert len(set(largest_elsewhere(hand_made, 0, 18))) == 18  # all there are: 2 layers, 3 rows, 3 columns


def test_the_rival_and_the_row_are_of_the_candidates_layer_and_row(hand_made):
    assert largest_of_row(hand_made, (0, 0, 2)) == (0, 0, 1)
    assert largest_of_row(hand_made, (0, 0, 1)) == (0, 0, 2)  # never the candidate itself
    assert whole_row(hand_made, (1, 2, 0)) == [(1, 2, 0), (1, 2, 1), (1, 2, 2)]


@given(st.integers(1, 16 * 40 - 1), st.integers(0, 99), st.integers(0, 15), st.integers(0, 39))
@settings(deadline=None, max_examples=30)
def test_random_controls_are_different_weights_of_the_matrix_and_never_the_candidate(count, seed, out, into):
    model = planted_model()
    found = random_weights(model, (1, out, into), count, seed)
    assert len(set(found)) == len(found) == count and (1, out, into) not in found
    assert all(layer == 1 and 0 <= o < 16 and 0 <= i < 40 for layer, o, i in found)
    assert found == random_weights(model, (1, out, into), count, seed)


def test_random_controls_are_spread_over_the_whole_matrix_and_differ_by_seed():
    model = planted_model()
    draws = [random_weights(model, (1, 7, 21), 5, seed) for seed in range(400)]
    assert len({tuple(draw) for draw in draws}) == 400
    assert {one for draw in draws for one in draw} >= {(1, 0, 0), (1, 15, 39)}
    assert len({one for draw in draws for one in draw}) > 550  # of 639; evenly drawn, 612 are expected


def test_each_control_is_measured_with_its_weights_gone(hand_made):
    damage = {(0, 0, 2): 3.0, (0, 0, 1): 0.5, (0, 1, 2): 0.25, (1, 1, 0): 0.125}
    proof = ablate(hand_made, (0, 0, 2), zeroed(damage), controls=2, each=True, progress=False)
    assert proof.weight == 8.0 and proof.base == 1.0
    assert proof.candidate.loss == 4.0 and proof.candidate.ratio == math.exp(3)
    assert proof.row_largest.loss == 1.5 and proof.row_largest.coordinates == ((0, 0, 1),)
    assert proof.row.loss == 4.5 and len(proof.row.coordinates) == 3
    assert proof.largest.loss == 1.375 and proof.largest.coordinates == ((0, 1, 2), (1, 1, 0))
    assert [one.coordinates for one in proof.each] == [(pair,) for pair in proof.random.coordinates]
    assert proof.random.loss - 1 == pytest.approx(sum(one.loss - 1 for one in proof.each))


@pytest.mark.parametrize(
    ("damage", "verdict"),
    [
        ({(0, 0, 2): 0.7}, "super"),  # exp(0.7) = 2.01
        ({(0, 0, 2): 0.69}, "harmful"),  # exp(0.69) = 1.99
        ({(0, 0, 2): 0.009}, "inert"),
        ({(0, 0, 2): 0.2, (0, 1, 2): 0.3}, "inert"),  # a larger weight elsewhere does more
        ({(0, 0, 2): 0.2, (0, 0, 1): 0.3}, "harmful"),  # one of the same row is no control
        ({(0, 0, 2): -0.5}, "inert"),
        ({(0, 0, 2): 0.8, (0, 1, 2): 0.9}, "inert"),  # also where it doubles the perplexity
    ],
)
def test_the_verdict_compares_the_candidate_with_its_controls(hand_made, damage, verdict):
    loss = zeroed(damage)
    assert ablate(hand_made, (0, 0, 2), loss, controls=1, seed=3, progress=False).verdict == verdict


def test_a_random_control_that_does_more_than_the_candidate_makes_it_inert(hand_made):
    [control] = random_weights(hand_made, (0, 0, 2), 1, seed=3)
    loss = zeroed({(0, 0, 2): 0.2, control: 0.3})
    assert ablate(hand_made, (0, 0, 2), loss, controls=1, seed=3, progress=False).verdict == "inert"


def on_texts(*damages):
    """What removing the candidate costs on each of several texts; the largest weight elsewhere, a tenth."""
    return [zeroed({(0, 0, 2): damage, (0, 1, 2): damage / 10}) for damage in damages]


@pytest.mark.parametrize(
    ("damages", "verdict"),
    [
        ((0.9, 1.0, 1.1), "super"),  # e, 2.12 to 3.48
        ((0.7, 1.0, 1.3), "harmful"),  # e as well, 1.29 to 5.7: it may be less than twice
        ((0.5, 1.0, 1.5), "inert"),  # .78 to 9.4
        ((0.75,), "super"),
        ((0.75, 0.75), "super"),
        ((0.0, 1.5), "inert"),
    ],
)
def test_on_several_texts_the_verdict_rests_on_the_lower_end_of_the_interval(hand_made, damages, verdict):
    found = ablate(hand_made, (0, 0, 2), on_texts(*damages), controls=1, seed=3, progress=False)
    assert found.verdict == verdict
    one = found.candidate
    assert one.ratios == pytest.approx([math.exp(damage) for damage in damages])
    assert one.ratio == pytest.approx(math.exp(sum(damages) / len(damages)))
    assert one.loss == pytest.approx(1 + sum(damages) / len(damages)) and found.base == 1.0
    if len(damages) == 1:
        assert one.interval is None and one.at_least == one.ratio
        assert "on one text" in found.caption() and found.columns() == ["removed", "perplexity", "ratio"]
    else:
        expected = mean_interval(damages)
        assert (one.interval.low, one.interval.high) == pytest.approx(
            (math.exp(expected.low), math.exp(expected.high))
        )
        assert f"{len(damages)} texts" in found.caption() and found.columns()[-1] == "95 %"
    assert all(len(row) == len(found.columns()) for row in found.rows())


@given(st.lists(st.floats(-1, 3), min_size=2, max_size=6))
@settings(deadline=None, max_examples=30)
def test_several_texts_are_measured_as_each_alone(damages):
    model = planted_model()
    losses = [zeroed({(1, 7, 21): damage}) for damage in damages]
    together = ablate(model, (1, 7, 21), losses, controls=2, progress=False)
    alone = [ablate(model, (1, 7, 21), loss, controls=2, progress=False) for loss in losses]
    assert together.candidate.losses == tuple(one.candidate.loss for one in alone)
    assert together.random.ratios == [one.random.ratio for one in alone]


def test_the_loss_of_a_text_is_that_of_evaluate_and_removal_is_that_of_a_model_without_the_weight():
    model, pruned = planted_model(), planted_model()
    pruned.h[1].mlp.c_proj.weight.data[7, 21] = 0.0
    loss = text_loss(IDS, 16, batch_size=2, bos_id=0)
    assert loss(model) == perplexity(model, IDS, 16, batch_size=2, bos_id=0).loss
    found = removal(model, [(1, 7, 21)], loss, loss(model))
    assert found.loss == loss(pruned) != loss(model)
    assert found.ratio == pytest.approx(math.exp(loss(pruned)) / math.exp(loss(model)))
    assert found.label == "1[7, 21]"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 8), st.tuples(st.integers(0, 2), st.integers(0, 15), st.integers(0, 39)))
def test_the_model_comes_back_bit_for_bit_whichever_measure_fails(fails_at, coordinate):
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = iter(range(100))

    def loss(_):
        if next(calls) == fails_at:
            raise KeyError("measuring failed")
        return 1.0

    failed = False
    try:
        ablate(model, coordinate, loss, controls=3, progress=False)
    except KeyError:
        failed = True
    assert failed == (fails_at < 6)  # base, candidate, random, largest, the row's largest, the row
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_transposed_matrix_has_the_same_controls():
    """GPT-2's Hugging Face class keeps W[in, out]."""
    model = tiny("GPT2")
    plant(model, (1, 7, 21))
    assert largest_elsewhere(model, 6, 1) == [(1, 7, 21)] != largest_elsewhere(model, 7, 1)
    assert largest_of_row(model, (1, 7, 3)) == (1, 7, 21)
    proof = ablate(model, (1, 7, 21), text_loss(IDS, 16), progress=False)
    assert proof.weight == 3.0 and len(proof.row.coordinates) == 40


@pytest.fixture(scope="module")
def english():
    """The loss of 48 tokens."""
    ids = load_tokenizer("smollm2-135m").encode(pydoc_data.topics.topics["assert"])
    return text_loss(ids[:49], 48)


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("coordinate", "verdict"),
    [((11, 507, 1229), "super"), ((11, 507, 1487), "harmful"), ((28, 507, 678), "inert")],
)
def test_verdicts_of_the_real_models_weights(smollm2, english, one_thread, coordinate, verdict):
    """The super weight; the largest weight of all, which matters little; a spike that nothing needs."""
    proof = ablate(smollm2, coordinate, english, progress=False)
    assert proof.verdict == verdict
    if verdict == "super":
        assert proof.candidate.ratio > 10 * max(proof.random.ratio - 1, proof.largest.ratio - 1) + 1
