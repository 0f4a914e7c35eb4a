"""`supertf experiment`: what it prints, records and refuses."""

import dataclasses

import pytest

from supertf.cli.experiment import setting
from supertf.experiments import EXPERIMENTS
from supertf.experiments.sweep.results import Results, recorded, recorded_path


@pytest.fixture
def registered(toy, monkeypatch, tmp_path):
    """`toy` is the only experiment, and nothing is recorded."""
    monkeypatch.setattr("supertf.experiments.sweep.results.RECORDED", tmp_path / "recorded")
    others = dict(EXPERIMENTS)
    EXPERIMENTS.clear()
    EXPERIMENTS["toy"] = toy
    yield
    EXPERIMENTS.clear()
    EXPERIMENTS.update(others)


def test_list_tells_the_question_the_size_and_what_is_recorded(registered, toy, supertf):
    text = "toy: Does the level matter?\n  2 variants x 3 seeds, not recorded\n"
    assert supertf("experiment list").out == text
    assert supertf("experiment run toy --record").code == 0
    assert supertf("experiment list --json").json["toy"] == {
        "question": "Does the level matter?",
        "variants": ["low", "high"],
        "seeds": [0, 1, 2],
        "cells": 6,
        "recorded": "recorded",
        "recorded_seconds": recorded("toy").meta["seconds"],
        "changed_code": [],
    }
    EXPERIMENTS["toy"] = toy.narrowed(changes={"steps": 1})
    assert "recorded, but out of date" in supertf("experiment list").out


def test_list_and_record_say_which_code_has_changed_since(registered, toy, supertf):
    assert "toy: replaces" not in supertf("experiment run toy --record").err
    path = recorded_path("toy")
    results = Results.load(path)
    older = {**results.meta["code"], "supertf.errors": "another"}
    dataclasses.replace(results, meta={**results.meta, "code": older}).save(path)
    assert "recorded (supertf.errors changed since) in" in supertf("experiment list").out
    said = supertf("experiment run toy --record")
    assert "toy: replaces results that were made by other code of supertf.errors" in said.err
    assert Results.load(path).meta["code"] == results.meta["code"]
    dataclasses.replace(results, meta={k: v for k, v in results.meta.items() if k != "code"}).save(path)
    said = supertf("experiment list")
    assert "recorded (its code was not noted)" in said.out  # as what was recorded at first
    assert recorded("toy").changed_code() is None


def test_run_prints_means_with_intervals(registered, supertf):
    said = supertf("experiment run toy")
    lines = said.out.splitlines()
    assert said.code == 0 and lines[0].startswith("toy: 6 cells, measured in ")
    assert lines[1] == "  variant  number        mean [95% interval]"
    assert "  low      accuracy 64   1.15 [0.97, 1.33] (n=3)" in lines
    assert "  low      loss          none on 3 of 3 seeds" in lines
    assert "  high     loss          133.333 [133.333, 133.333] (n=3)" in lines
    assert "6/6" in said.err


def test_json_is_the_results_and_nothing_else(registered, supertf, tmp_path):
    path = tmp_path / "out.json"
    line = "experiment run toy --seeds 0 1 --variants low high --set steps=30 mishap=null --json --output"
    printed = supertf(line, path).json
    assert printed == Results.load(path).to_dict()
    assert printed["cells"][0]["settings"]["steps"] == 30 and len(printed["cells"]) == 4


def test_quick_changes_settings_and_set_goes_on_top(registered, supertf):
    quick = "experiment run toy --quick --seeds 0 --json"
    assert supertf(quick).json["experiment"]["settings"]["steps"] == 10
    assert supertf(f"{quick} --set steps=20").json["experiment"]["settings"]["steps"] == 20


def test_all_runs_every_experiment_and_says_how_long_it_took(registered, supertf):
    assert supertf("experiment run all --record").out.splitlines()[-1].startswith("all: ")
    assert recorded("toy").meta["command"] == "supertf experiment run toy"
    printed = supertf("experiment run all --json").json
    assert list(printed["experiments"]) == ["toy"] and printed["seconds"] > 0


def test_an_error_within_a_cell_is_one_line(registered, supertf):
    said = supertf("experiment run toy --set", 'mishap=["refuse", 1]')
    assert said.code == 2 and said.out == "" and "toy, low, seed 1: there is no room" in said.line


def test_an_interrupted_sweep_says_how_to_go_on_and_records_nothing(registered, supertf):
    said = supertf("experiment run toy --set", 'mishap=["interrupt", 1]')
    last = "supertf experiment: toy: interrupted after 2 of 6 cells; run the same command again to go on"
    assert (said.code, said.line) == (130, last)


def test_a_setting_is_json_or_else_a_text():
    assert [setting(text)[1] for text in ("a=1", "a=1e-3", "a=true", "a=null", "a=ssmax", "a=x=y")] == [
        1,
        1e-3,
        True,
        None,
        "ssmax",
        "x=y",
    ]


def test_registered_experiments_can_be_listed(supertf):
    assert set(supertf("experiment list --json").json) == set(EXPERIMENTS)


def test_claims_are_judged_by_the_recorded_results(supertf, tmp_path):
    shown = supertf("experiment claims removals").out
    assert "Without the super weight the perplexity at least doubles" in shown and "holds" in shown
    found = supertf("experiment claims --json").json["removals"]
    assert {"claim", "verdict", "p", "intervals", "holds_alone_in"} <= found[0].keys()
    page = tmp_path / "claims.md"
    assert supertf(f"experiment claims --output {page}").code == 0
    assert page.read_text().startswith("# What the lab claims")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("removals --output page.md", "leave out the experiment's name"),
        ("toys", "no claims are made about 'toys'"),
    ],
)
def test_claims_that_cannot_be_judged_are_one_line(supertf, options, said):
    found = supertf(f"experiment claims {options}")
    assert found.code == 2 and said in found.line
