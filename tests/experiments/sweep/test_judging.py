"""Claims: judged by intervals over texts or seeds, corrected for each other, and never past their bound."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supertf.analysis.intervals import holm, mean_interval, p_value
from supertf.errors import UserError
from supertf.experiments.claims.page import CLAIMS, judged, page
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.judging import Claim, judge
from supertf.experiments.sweep.results import Results

BASE = {"x": [1.0, 2.0, 3.0], "y": [4.0, 5.0, 6.5]}


def results_of(**losses):
    """Results of `toy`, a variant for each keyword: losses by domain, or a list of values of seeds."""
    described = Experiment(
        "toy", "?", "toy_measures:draw", {}, {name: {"which": name} for name in losses}, seeds=(0, 1, 2)
    )
    cells = []
    for name, found in losses.items():
        values = [found] if isinstance(found, dict) else found
        cells += [
            {"variant": name, "seed": i, "result": {"losses": one, "value": one}}
            for i, one in enumerate(values)
        ]
    return Results(described, cells, {})


def shifted(by, spread=0.01):
    """BASE with about as much more loss on every text."""
    return {
        name: [one + by + spread * (-1) ** i for i, one in enumerate(values)] for name, values in BASE.items()
    }


def claim(**options):
    return Claim("toy", "as is said", **{"contrast": {"other": 1, "base": -1}, **options})


@pytest.mark.parametrize(
    ("by", "bounds", "verdict"),
    [
        (math.log(3), {"more": 2}, "holds"),
        (math.log(3), {"less": 2}, "fails"),
        (math.log(2), {"more": 2}, "open"),
        (math.log(1.5), {"more": 2}, "fails"),
        (0.0, {"more": 0.9, "less": 1.1}, "holds"),
        (math.log(1.1), {"more": 0.9, "less": 1.1}, "open"),
        (math.log(1.3), {"more": 0.9, "less": 1.1}, "fails"),
    ],
)
def test_a_claim_holds_fails_or_is_open_by_where_the_mean_and_its_interval_lie(by, bounds, verdict):
    [found] = judge([claim(**bounds)], results_of(base=BASE, other=shifted(by)))
    assert found.verdict == verdict
    logs = [a - b for name in BASE for a, b in zip(shifted(by)[name], BASE[name], strict=True)]
    assert found.intervals["all"] == mean_interval(logs)
    assert found.intervals["x"] == mean_interval(logs[:3])
    if verdict == "holds":
        assert found.alone == ["x", "y"]


def test_a_claim_may_compare_two_numbers_of_the_same_results():
    results = results_of(one=[0.9, 0.8, 0.95])
    for cell in results.cells:
        cell["result"]["less"] = cell["result"]["value"] - 0.1 - 0.01 * cell["seed"]
    higher = Claim("toy", "more", {"one": 1}, more=0.05, path=("value",), minus=("less",))
    [found] = judge([higher], results)
    assert found.intervals["all"].mean == pytest.approx(0.11) and found.intervals["all"].n == 3


def test_a_domain_of_which_it_does_not_hold_is_not_named():
    other = {"x": shifted(math.log(3))["x"], "y": shifted(0.0)["y"]}
    [found] = judge([claim(more=2)], results_of(base=BASE, other=other))
    assert found.alone == ["x"] and found.verdict == "open"


def test_claims_of_one_experiment_are_corrected_for_each_other():
    results = results_of(base=BASE, other=shifted(math.log(2.02), 0.02))
    several = [claim(more=2), *(claim(more=bound) for bound in (1.2, 1.5, 1.9))]
    found = list(judge(several, results))
    logs = results.contrast({"other": 1, "base": -1}, "losses")["all"]
    alone = {str(i): p_value(logs, math.log(one.more)) for i, one in enumerate(several)}
    assert [one.p for one in found] == list(holm(alone).values())


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=3), st.floats(0.2, 5))
def test_what_is_more_for_one_is_less_for_its_opposite(values, bound):
    results = results_of(base=[0.0, 0.0, 0.0], other=values)
    above = claim(contrast={"other": 1, "base": -1}, more=bound, path=("value",))
    below = claim(contrast={"other": -1, "base": 1}, less=-bound, path=("value",))
    [first], [second] = judge([above], results), judge([below], results)
    assert (first.verdict, first.p) == (second.verdict, pytest.approx(second.p))


def test_values_of_seeds_are_one_group_and_no_multiple_of_a_perplexity():
    values = [0.5, 0.6, 0.7]
    [found] = judge(
        [claim(contrast={"other": 1}, more=0.2, path=("value",))], results_of(base=[0] * 3, other=values)
    )
    assert found.intervals == {"all": mean_interval(values)}
    assert found.claim.bounds == {"more": 0.2}


def test_times_are_geometric_means_of_multiples():
    results = results_of(base=BASE, other=shifted(math.log(3)))
    found, by_text = results.times("other", "base"), results.times_by_text("other", "base")
    assert list(found) == ["x", "y", "all"] and list(by_text) == ["x", "y"]
    for name, values in {**by_text, "all": [*by_text["x"], *by_text["y"]]}.items():
        logs = mean_interval([math.log(one) for one in values])
        assert found[name].mean == pytest.approx(math.exp(logs.mean))
        assert found[name].low == pytest.approx(math.exp(logs.low)) and found[name].n == len(values)


def test_the_table_says_claim_verdict_and_intervals():
    found = judge([claim(more=2)], results_of(base=BASE, other=shifted(math.log(3), 0.0)))
    text = str(found)
    for part in ("as is said", "holds", "> × 2", "× 3 [3, 3] ✓"):
        assert part in text
    assert found["as is said"].verdict == "holds"
    with pytest.raises(UserError, match="no claim 'another'"):
        found["another"]


def test_claims_are_picked_by_what_they_compare():
    results = results_of(base=[0, 0, 0], other=[1, 1, 2], third=[3, 3, 4])
    above = [claim(contrast={name: 1, "base": -1}, more=0.5, path=("value",)) for name in ("other", "third")]
    found = judge(above, results)
    assert list(found.among("base", "third", of="value")) == [list(found)[1]]
    assert list(found.among("other", of="value")) == list(found.among("base", "other")) == []
    assert found.verdicts == {"as is said": list(found)[1].verdict}


def test_a_claim_about_another_experiment_is_refused():
    with pytest.raises(UserError, match="is about toys, not toy"):
        judge([Claim("toys", "?", {"other": 1}, more=0)], results_of(base=BASE, other=BASE))


def test_the_page_of_claims_is_what_the_recorded_results_give():
    written = (Path(__file__).parents[3] / "CLAIMS.md").read_text(encoding="utf-8")
    assert written == page(), "supertf experiment claims --output CLAIMS.md"


def test_claims_about_an_experiment_that_has_none_are_one_line():
    with pytest.raises(UserError, match=r"no claims are made about 'toys'; choose from .*removals"):
        judged("toys")


def test_every_claim_is_about_variants_that_there_are_and_has_a_bound():
    for name, claims in CLAIMS.items():
        sentences = [one.sentence for one in claims]
        assert len(set(sentences)) == len(sentences)
        for one in claims:
            assert one.experiment == name and one.bounds
            for variant in one.contrast:
                EXPERIMENTS[name].settings_of(variant)
