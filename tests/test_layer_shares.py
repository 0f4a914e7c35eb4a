"""Budgets of dropped inputs: divergences as computed by hand, and shares that spend a budget well."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from planted import planted_model

from supertf.dynamic_pruning import dynamically_pruned, plan_dynamic
from supertf.errors import UserError
from supertf.input_sizes import input_sizes
from supertf.layer_shares import SHARES, divergences, shared_out

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 12
IDS = torch.randint(0, 50, (3 * LENGTH + 5,), generator=torch.Generator().manual_seed(1))
DOWN = ["mlp.c_proj"]


@pytest.fixture(scope="module")
def model():
    return planted_model()


@pytest.mark.parametrize("method", ["inputs", "top"])
def test_divergences_are_those_between_the_probabilities(model, method):
    sizes = input_sizes(model, IDS, LENGTH, kinds=DOWN)
    found = divergences(model, method, IDS, sizes, LENGTH, DOWN, (0.5, 1.0), progress=False)
    assert list(found) == [f"h.{layer}.mlp.c_proj" for layer in range(3)]
    windows = IDS[: 3 * LENGTH].view(3, LENGTH)
    with torch.no_grad():
        dense = model(windows).logits.double().softmax(-1)
        for (name, values), (at, share) in itertools.product(found.items(), enumerate((0.5, 1.0))):
            with dynamically_pruned(model, plan_dynamic(model, method, {name: share}, sizes, kinds=DOWN)):
                pruned = model(windows).logits.double().softmax(-1)
            expected = (dense * (dense / pruned).log()).sum(-1).mean()
            assert values[at] == pytest.approx(float(expected), rel=1e-3, abs=1e-7)
    assert max(found, key=lambda name: found[name][0]) == "h.1.mlp.c_proj"  # where the planted weight is


def test_nothing_dropped_costs_nothing(model):
    found = divergences(model, "top", IDS, None, LENGTH, DOWN, (0.0,), progress=False)
    assert [values[0] for values in found.values()] == pytest.approx([0, 0, 0], abs=1e-7)


costs = st.dictionaries(
    st.text(min_size=1, max_size=3),
    st.lists(st.floats(0, 10), min_size=len(SHARES), max_size=len(SHARES)).map(sorted),
    min_size=1,
    max_size=6,
)


@given(costs, st.floats(0, SHARES[-1]))
def test_the_budget_is_spent_and_not_much_more(costs, mean):
    found = shared_out(costs, mean)
    total = sum(found.values())
    assert set(found) == set(costs) and set(found.values()) <= {0.0, *SHARES}
    assert total >= mean * len(costs) - 1e-6
    largest = max(found.values())
    assert not found or total - largest < mean * len(costs) + 1e-6  # without its last step it was too little


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=4))
def test_with_convex_costs_no_other_choice_that_drops_as_much_is_cheaper(slopes):
    grid = (0.25, 0.5, 0.75)
    costs = {str(number): [slope * share**2 for share in grid] for number, slope in enumerate(slopes)}
    found = shared_out(costs, 0.5, grid)

    def total(chosen):
        return sum(slope * share**2 for slope, share in zip(slopes, chosen, strict=True))

    dropped = sum(found.values())
    others = itertools.product((0.0, *grid), repeat=len(slopes))
    best = min(total(chosen) for chosen in others if sum(chosen) >= dropped - 1e-9)
    assert total(found.values()) == pytest.approx(best)


def test_a_mean_out_of_reach_is_refused(model):
    for mean in (-0.1, 0.95, float("nan")):
        with pytest.raises(UserError, match=r"a mean share of .*, expected 0 to 0\.9"):
            shared_out({"a": [0.1] * len(SHARES)}, mean)
