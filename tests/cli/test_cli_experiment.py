"""`supertf experiment`: what it prints, records and refuses."""

import dataclasses
import json

import pytest

from supertf.cli import main as cli
from supertf.cli.experiment import setting
from supertf.experiments.catalogue import EXPERIMENTS
from supertf.experiments.results import Results, recorded, recorded_path


@pytest.fixture
def registered(toy, monkeypatch, tmp_path):
    """`toy` is the only experiment, and nothing is recorded."""
    monkeypatch.setattr("supertf.experiments.results.RECORDED", tmp_path / "recorded")
    monkeypatch.setattr("supertf.experiments.EXPERIMENTS", {"toy": toy})
    monkeypatch.setattr("supertf.experiments.catalogue.EXPERIMENTS", {"toy": toy})
    monkeypatch.setattr("supertf.experiments.runner.EXPERIMENTS", {"toy": toy})


def experiment(*arguments: str) -> int:
    return cli.main(["experiment", *arguments])


def test_list_tells_the_question_the_size_and_what_is_recorded(registered, toy, capsys):
    assert experiment("list") == 0
    text = "toy: Does the level matter?\n  2 variants x 3 seeds, not recorded\n"
    assert capsys.readouterr().out == text
    assert experiment("run", "toy", "--record") == 0
    capsys.readouterr()
    assert experiment("list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["toy"]["cells"] == 6 and listed["toy"]["recorded"] == "recorded"
    assert listed["toy"]["recorded_seconds"] == recorded("toy").meta["seconds"]
    from supertf.experiments import catalogue

    catalogue.EXPERIMENTS["toy"] = toy.narrowed(changes={"steps": 1})
    assert experiment("list") == 0
    assert "recorded, but out of date" in capsys.readouterr().out


def test_list_and_record_say_which_code_has_changed_since(registered, toy, capsys, monkeypatch):
    experiment("run", "toy", "--record")
    assert "toy: replaces" not in capsys.readouterr().err
    path = recorded_path("toy")
    results = Results.load(path)
    older = {**results.meta["code"], "supertf.errors": "another"}
    dataclasses.replace(results, meta={**results.meta, "code": older}).save(path)
    experiment("list")
    assert "recorded (supertf.errors changed since) in" in capsys.readouterr().out
    experiment("run", "toy", "--record")
    assert "toy: replaces results that were made by other code of supertf.errors" in capsys.readouterr().err
    assert Results.load(path).meta["code"] == results.meta["code"]
    dataclasses.replace(results, meta={k: v for k, v in results.meta.items() if k != "code"}).save(path)
    experiment("list")
    assert "recorded (its code was not noted)" in capsys.readouterr().out  # as what was recorded at first
    assert recorded("toy").changed_code() is None


def test_run_prints_means_with_intervals(registered, capsys):
    assert experiment("run", "toy") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith("toy: 6 cells, measured in ")
    assert "  low   accuracy 64   1.15 [0.97, 1.33] (n=3)" in lines
    assert "  low   loss          none on 3 of 3 seeds" in lines
    assert "  high  loss          133.333 [133.333, 133.333] (n=3)" in lines
    assert "6/6" in captured.err


def test_json_is_the_results_and_nothing_else(registered, capsys, tmp_path):
    path = tmp_path / "out.json"
    arguments = ("--seeds", "0", "--variants", "low", "--set", "steps=30", "--json", "--output", str(path))
    assert experiment("run", "toy", *arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == Results.load(path).to_dict()
    assert printed["cells"][0]["settings"]["steps"] == 30 and len(printed["cells"]) == 1


def test_quick_changes_settings_and_set_goes_on_top(registered, capsys):
    assert experiment("run", "toy", "--quick", "--seeds", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["experiment"]["settings"]["steps"] == 10
    assert experiment("run", "toy", "--quick", "--set", "steps=20", "--seeds", "0", "--json") == 0
    assert json.loads(capsys.readouterr().out)["experiment"]["settings"]["steps"] == 20


def test_all_runs_every_experiment_and_says_how_long_it_took(registered, capsys):
    assert experiment("run", "all", "--record") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("all: ")
    assert recorded("toy").meta["command"] == "supertf experiment run toy"
    assert experiment("run", "all", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed["experiments"]) == ["toy"] and printed["seconds"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nonsense"], "unknown experiment 'nonsense'; choose from toy"),
        (["run", "toy", "--variants", "middle"], "has no variant 'middle'"),
        (["run", "toy", "--seeds", "-1"], "expected a whole number from 0"),
        (["run", "toy", "--set", "steps"], "expected NAME=VALUE, as in steps=100, got 'steps'"),
        (["run", "toy", "--set", "steps=many"], "steps is 400, got 'many'; expected a number"),
        (["run", "toy", "--record", "--quick", "--seeds", "0"], "leave out --seeds and --quick"),
        (["run", "all", "--output", "x.json"], "--output takes the results of one experiment"),
        (["run", "toy", "--set", 'mishap=["refuse", 1]'], "toy, low, seed 1: there is no room"),
        ([], "the following arguments are required: list|run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(registered, capsys, arguments, message):
    try:
        code = experiment(*arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert message in captured.err.splitlines()[-1]


def test_an_interrupted_sweep_says_how_to_go_on_and_records_nothing(registered, capfd):
    interrupted = ("run", "toy", "--set", 'mishap=["interrupt", 1]')
    assert experiment(*interrupted) == 130
    last = "supertf experiment: toy: interrupted after 2 of 6 cells; run the same command again to go on"
    assert capfd.readouterr().err.splitlines()[-1] == last


def test_a_setting_is_json_or_else_a_text():
    assert [setting(text)[1] for text in ("a=1", "a=1e-3", "a=true", "a=null", "a=ssmax", "a=x=y")] == [
        1,
        1e-3,
        True,
        None,
        "ssmax",
        "x=y",
    ]


def test_registered_experiments_can_be_listed(capsys):
    assert experiment("list", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == set(EXPERIMENTS)
