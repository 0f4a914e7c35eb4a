"""Results: found by name, whole in their file, and recorded ones trusted only for the settings of today."""

import dataclasses
import json

import pytest

from supertf.errors import UserError
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.results import Results, recorded
from supertf.experiments.sweep.runner import run


@pytest.fixture
def results(toy):
    return run(toy, progress=False)


@pytest.fixture
def place(toy, monkeypatch, tmp_path):
    """`toy` is a registered experiment; the file of its recorded results."""
    monkeypatch.setattr("supertf.experiments.sweep.results.RECORDED", tmp_path)
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    return tmp_path / "toy.json"


def test_a_file_gives_back_the_results_to_six_digits(results, tmp_path):
    results.save(tmp_path / "toy.json")
    back = Results.load(tmp_path / "toy.json")
    assert back.experiment == results.experiment
    for variant in results.variants:
        assert back.seeds(variant) == results.seeds(variant)
        for path in (("accuracy", 128), ("curve", 2)):
            assert back.values(variant, *path) == pytest.approx(results.values(variant, *path), rel=1e-5)
    assert back.values("low", "loss") == [None, None, None]
    assert back.values("high", "loss") == [133.333] * 3
    assert back.meta["versions"] == results.meta["versions"]
    back.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "toy.json").read_bytes()
    lines = (tmp_path / "toy.json").read_text().splitlines()
    assert len(lines) == len(results.cells) + 2  # one each, so that a change shows as such


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-10], "not a readable JSON file"),
        (lambda text: text.replace('"seed": 1', '"seed": 7', 1), "was changed since they were written"),
        (lambda text: json.dumps({"format": "another"}), "does not hold results of supertf"),
        (lambda text: json.dumps({"cells": []}), "does not hold results of supertf"),
    ],
)
def test_a_damaged_file_or_another_is_refused(results, tmp_path, damage, message):
    path = tmp_path / "toy.json"
    results.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=message):
        Results.load(path)


@pytest.mark.parametrize(
    ("variant", "path", "message"),
    [
        ("middle", ("loss",), "has no variant 'middle'; choose from 'low', 'high'"),
        (
            "low",
            ("acuracy", 64),
            "no acuracy / 64 in the results of 'low' on seed 0: at 'acuracy' there is accuracy, curve",
        ),
        ("low", ("accuracy", 65), "at 65 there is 64, 128"),
        ("low", ("curve", 3), "at 3 there is list"),
        ("low", ("curve", "first"), "at 'first' there is list"),
        ("low", ("loss", "mean"), "at 'mean' there is None"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(results, variant, path, message):
    with pytest.raises(UserError, match=message):
        results.values(variant, *path)


def test_recorded_results_are_of_the_registered_experiment(results, place):
    with pytest.raises(
        UserError, match="no recorded results of toy: make them with supertf experiment run toy"
    ):
        recorded("toy")
    results.save(place)
    assert recorded("toy").values("low", "loss") == [None] * 3
    with pytest.raises(UserError, match="unknown experiment 'nonsense'"):
        recorded("nonsense")


def test_recorded_results_of_other_settings_are_refused_and_other_words_are_not(
    results, place, toy, monkeypatch
):
    results.save(place)
    monkeypatch.setitem(EXPERIMENTS, "toy", dataclasses.replace(toy, question="Why?", quick={"steps": 1}))
    assert len(recorded("toy").cells) == 6
    monkeypatch.setitem(EXPERIMENTS, "toy", toy.narrowed(changes={"steps": 500}))
    with pytest.raises(UserError) as refused:
        recorded("toy")
    assert str(refused.value) == (
        "recorded results of toy were made with other settings (steps 400, now 500): "
        "rebuild them with supertf experiment run toy --record"
    )
    many = toy.narrowed(variants=["low"], seeds=[3], lengths=[32], changes={"steps": 500})
    monkeypatch.setitem(EXPERIMENTS, "toy", many)
    with pytest.raises(UserError, match=r"now \(32,\); seeds .*; steps 400, now 500; and 1 more\)"):
        recorded("toy")


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_experiment_of_the_lab_is_recorded_as_it_is_described(name):
    results = recorded(name)
    assert len(results.cells) == len(results.experiment.cells())
    assert results.meta["command"].startswith(f"supertf experiment run {name}") and results.meta["versions"]
