"""Descriptions of experiments: they survive JSON, their hashes are stable, mistakes are one line."""

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supertf.errors import UserError
from supertf.experiments.sweep.catalogue import EXPERIMENTS, experiment, find
from supertf.experiments.sweep.cells import measure_of
from supertf.experiments.sweep.description import Experiment, cell_hash
from supertf.experiments.sweep.results import recorded_path

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
settings_dicts = st.dictionaries(st.text(), json_values, max_size=4)


@st.composite
def descriptions(draw):
    settings = draw(settings_dicts)
    labels = draw(st.lists(st.text(), min_size=1, max_size=3, unique=True))
    return Experiment(
        name=draw(st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True)),
        question=draw(st.text()),
        measure=draw(st.sampled_from(["measure_recall:recall", "some.where:f"])),
        settings=settings,
        variants={label: {**draw(settings_dicts), "which variant": i} for i, label in enumerate(labels)},
        lengths=tuple(draw(st.lists(st.integers(min_value=1), max_size=3, unique=True))),
        seeds=tuple(draw(st.lists(st.integers(min_value=0), min_size=1, max_size=3, unique=True))),
        quick=draw(st.sampled_from([{}, settings])),
    )


@given(descriptions())
def test_a_description_survives_json(described):
    back = Experiment.from_dict(json.loads(json.dumps(described.to_dict())))
    assert back == described
    assert [cell_hash(c) for c in back.cells()] == [cell_hash(c) for c in described.cells()]
    assert described.differences(back) == []


@given(descriptions(), st.randoms())
def test_a_cell_s_hash_does_not_depend_on_the_order_of_settings(described, random):
    for one in described.cells():
        names = list(one["settings"])
        random.shuffle(names)
        shuffled = {**one, "settings": {name: one["settings"][name] for name in names}}
        assert cell_hash(shuffled) == cell_hash(one)


@given(descriptions())
def test_cells_of_one_experiment_have_different_hashes(described):
    hashes = {cell_hash(one) for one in described.cells()}
    assert len(hashes) == len(described.variants) * len(described.seeds)


def test_a_hash_is_over_what_determines_the_result_and_not_over_labels(toy):
    one = toy.cells()[0]
    for name, value in [
        ("measure", "toy_lab.measures:other"),
        ("settings", {**one["settings"], "steps": 401}),
        ("seed", 1),
        ("lengths", [64]),
    ]:
        assert cell_hash({**one, name: value}) != cell_hash(one)
    assert cell_hash({**one, "variant": "lowest", "experiment": "toys"}) == cell_hash(one)


def test_hashes_are_those_of_the_names_in_recorded_results():
    for described in EXPERIMENTS.values():
        recorded = json.loads(recorded_path(described.name).read_text())["experiment"]["measure"]
        assert described.to_dict()["measure"] == recorded
        for one in described.cells():
            assert cell_hash({**one, "measure": recorded}) == cell_hash(one)


def test_another_process_finds_the_same_hash_and_needs_no_torch(toy):
    code = (
        "import json, sys; from supertf.experiments.sweep.description import Experiment, cell_hash; "
        "one = Experiment.from_dict(json.load(sys.stdin)).cells()[0]; "
        "print(cell_hash(one), 'torch' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(toy.to_dict()),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out.split() == [cell_hash(toy.cells()[0]), "False"]


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("variants", {}, "expected at least one seed and one variant"),
        (
            "variants",
            {"low": {"level": 1}, "again": {"level": 1}},
            "'low' and 'again' have the same settings",
        ),
        ("seeds", (), "expected at least one seed"),
        ("seeds", (1, 1), r"seeds \(1, 1\): expected different numbers"),
        ("lengths", (64, 64), r"lengths \(64, 64\): expected different numbers"),
    ],
)
def test_a_malformed_description_is_refused(toy, part, value, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(toy, **{part: value})


def test_narrowing_keeps_the_order_and_changes_hold_for_every_variant(toy):
    narrowed = toy.narrowed(seeds=[7, 1], variants=["high"], lengths=[32], changes={"level": 5, "steps": 1.5})
    assert [(one["variant"], one["seed"]) for one in narrowed.cells()] == [("high", 7), ("high", 1)]
    assert narrowed.settings_of("high") == {"level": 5, "steps": 1.5, "mishap": None}
    assert narrowed.lengths == (32,)
    assert toy.narrowed() == toy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variants": ["middle"]}, "has no variant 'middle'; choose from 'low', 'high'"),
        ({"variants": []}, "expected at least one seed and one variant"),
        ({"changes": {"stepps": 1}}, "has no setting 'stepps'; choose from level, mishap, steps"),
        ({"changes": {"steps": "many"}}, "steps is 400, got 'many'; expected a number"),
        ({"changes": {"steps": True}}, "steps is 400, got True; expected a number"),
        ({"changes": {"level": 3}}, "the variants 'low' and 'high' have the same settings"),
    ],
)
def test_narrowing_to_what_is_not_there_is_refused(toy, options, message):
    with pytest.raises(UserError, match=message):
        toy.narrowed(**options)


def test_lengths_are_refused_where_an_experiment_has_none(toy):
    with pytest.raises(UserError, match="toy has no lengths to choose from"):
        dataclasses.replace(toy, lengths=()).narrowed(lengths=[64])


def test_differences_name_each_part_that_determines_results(toy):
    other = dataclasses.replace(
        toy,
        question="Another one?",
        settings={**toy.settings, "steps": 500},
        variants={"low": {"level": 1}, "top": {"level": 9}},
        lengths=(64,),
    )
    assert toy.differences(other) == [
        "lengths (64, 128), now (64,)",
        "steps 400, now 500",
        "variant high {'level': 2}, now absent",
        "variant top absent, now {'level': 9}",
    ]


def test_an_unknown_experiment_is_one_line():
    with pytest.raises(UserError, match="unknown experiment 'nonsense'; choose from "):
        experiment("nonsense")


ANOTHER = """
from supertf.experiments.sweep.description import Experiment

EXPERIMENT = Experiment(
    name="{name}",
    question="Is it found?",
    measure="toy_lab.{module}:answer",
    settings={{"answer": 42}},
    variants={{"only": {{}}}},
    seeds=(0,),
)


def answer(settings, seed, lengths):
    return settings
"""


def test_one_more_file_is_one_more_experiment(toy, tmp_path):
    folder = tmp_path / "toy_lab"  # which has modules without an experiment, as the lab's package has
    for module, name in (("some", "second"), ("other", "first"), ("early", "swap")):
        (folder / f"{module}.py").write_text(ANOTHER.format(name=name, module=module))
    found = find("toy_lab", folder)
    assert list(found) == ["swap", "first", "second"]  # those of the notebooks, then by name
    assert measure_of(found["first"].measure)({"answer": 42}, 0, ()) == {"answer": 42}
    (folder / "copy.py").write_text(ANOTHER.format(name="first", module="copy"))
    with pytest.raises(UserError, match="another file describes first as well; rename one"):
        find("toy_lab", folder)


def test_every_registered_experiment_has_its_measure_and_a_quick_form():
    for name, described in EXPERIMENTS.items():
        assert name == described.name and described.question
        assert callable(measure_of(described.measure))
        assert described.narrowed(changes=described.quick).cells()
