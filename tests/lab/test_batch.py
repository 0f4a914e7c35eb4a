"""Notebooks run unattended: parameters are typed and known, and what is done is not done again."""

import json

import nbformat
import pytest
from a_notebook import a_notebook

from supertf.errors import UserError
from supertf.lab.book import batch
from supertf.lab.book.batch import defaults_of, fitting, parameters_of, parse_parameters, run_batch
from supertf.lab.book.runs import find_notebooks


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Two notebooks in a repository; the second has a parameter more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tests").mkdir()
    for name, more in (("00_one", ""), ("01_two", '\nRATE = 0.5\nNAMES = ["a"]\nPROFILE = "lab"')):
        notebook = a_notebook(name, "assert STEPS > 1, 'too few'")
        notebook.cells[1].source += more
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "tests" / "smoke.yaml").write_text("00_one: {STEPS: 2}\n01_two: {STEPS: 3}\n")
    monkeypatch.setattr(batch, "side_by_side", lambda call, jobs, lanes: (call(*job) for job in jobs))
    return tmp_path


@pytest.mark.slow
def test_what_is_done_is_kept_until_something_of_it_changes(lab):
    def states(**options):
        return {result.name: before for result, before in run_batch(find_notebooks([]), **options)}

    assert states() == {"00_one": False, "01_two": False}
    assert states() == {"00_one": True, "01_two": True}
    assert states(given={"RATE": 1}) == {"00_one": True, "01_two": False}, "another parameter"
    assert states(given={"RATE": 1}, again=True) == {"00_one": False, "01_two": False}
    path = lab / "notebooks" / "00_one.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].source += "\n1 + 1"
    nbformat.write(notebook, path)
    assert states(given={"RATE": 1}) == {"00_one": False, "01_two": True}, "another cell"
    executed = nbformat.read(lab / "build" / "batch" / "01_two.ipynb", 4)
    assert any("RATE = 1.0" in cell.source for cell in executed.cells), "a fraction, as its default"


@pytest.mark.slow
def test_what_failed_is_run_again_and_says_why(lab):
    for _ in range(2):
        [(result, before)] = run_batch(find_notebooks(["00_one"]), given={"STEPS": 1})
        assert not before and "too few" in result.problems[0]
    note = json.loads((lab / "build" / "batch" / "00_one.json").read_text())
    assert note["problems"] == result.problems
    (lab / "build" / "batch" / "00_one.json").write_text("{broken")
    [(result, before)] = run_batch(find_notebooks(["00_one"]))
    assert not before and not result.problems


def test_profiles_choose_parameters_and_what_is_given_comes_on_top(lab):
    one, two = find_notebooks([])
    assert parameters_of([one, two], "lab", {}) == {one: {}, two: {}}
    assert parameters_of([one, two], "smoke", {"STEPS": 9}) == {one: {"STEPS": 9}, two: {"STEPS": 9}}
    assert parameters_of([one, two], "full", {}) == {one: {}, two: {"PROFILE": "full"}}
    assert defaults_of(two) == {"STEPS": 5, "RATE": 0.5, "NAMES": ["a"], "PROFILE": "lab"}


@pytest.mark.parametrize(
    ("profile", "given", "message"),
    [
        ("fast", {}, "profile is 'fast'; expected one of smoke, lab, full"),
        ("lab", {"STEP": 3}, "no notebook here has a parameter STEP; they have NAMES, PROFILE, RATE, STEPS"),
        ("lab", {"STEPS": "many"}, "00_one: STEPS is 'many', a str; expected int such as 5"),
        ("lab", {"STEPS": 2.5}, "STEPS is 2.5, a float"),
        ("lab", {"STEPS": True}, "STEPS is True, a bool"),
        ("lab", {"NAMES": "a"}, r"01_two: NAMES is 'a', a str; expected list such as \['a'\]"),
    ],
)
def test_what_fits_no_notebook_is_refused_before_anything_runs(lab, profile, given, message):
    with pytest.raises(UserError, match=message):
        next(run_batch(find_notebooks([]), profile, given))
    assert not (lab / "build").exists()


def test_parameters_are_read_as_yaml():
    assert parse_parameters(["STEPS: 300", "{RATE: 1e-3, NAMES: [a, b]}"]) == {
        "STEPS": 300,
        "RATE": "1e-3",  # YAML's idea of a number has a dot
        "NAMES": ["a", "b"],
    }
    with pytest.raises(UserError, match="expected parameters such as 'STEPS: 300', got 'STEPS=300'"):
        parse_parameters(["STEPS=300"])
    with pytest.raises(UserError, match="expected parameters such as"):
        parse_parameters(["[1, 2"])


def test_nothing_stands_in_for_every_type_and_whole_numbers_for_fractions():
    assert fitting("x", "KINDS", None, ["a"]) is None and fitting("x", "KINDS", ["a"], None) == ["a"]
    assert fitting("x", "RATE", 2, 0.5) == 2.0 and fitting("x", "RATE", "1e-3", 0.5) == 0.001
