"""`supertf notebooks`: what it lists, runs and refuses."""

import builtins
import json

import nbformat
import pytest
from a_notebook import a_notebook

from supertf.lab.book import batch


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """Two small notebooks, the second of which fails; no processes of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name, body in (("00_good", ""), ("01_bad", "assert STEPS > 9, 'too few'")):
        nbformat.write(a_notebook(name, body), tmp_path / "notebooks" / f"{name}.ipynb")
    (tmp_path / "notebooks" / "seconds.json").write_text('{"00_good": 12}')
    monkeypatch.setattr(batch, "side_by_side", lambda call, jobs, lanes: (call(*job) for job in jobs))


def test_list_tells_names_seconds_and_parameters(lab, supertf):
    assert supertf("notebooks list").out == "00_good (12 s)\n  STEPS: 5\n01_bad\n  STEPS: 5\n"
    assert supertf("notebooks list 01_bad --json").json == {
        "01_bad": {"seconds": None, "parameters": {"STEPS": 5}}
    }


@pytest.mark.slow
def test_run_says_what_became_of_each_and_fails_if_one_did(lab, supertf):
    said = supertf("notebooks run --json")
    found = json.loads(said.out)
    assert said.code == 1 and found["failed"] == ["01_bad"]
    assert {one["notebook"]: one["state"] for one in found["notebooks"]} == {
        "00_good": "passed",
        "01_bad": "failed",
    }
    said = supertf("notebooks run -y", "{STEPS: 10}")
    assert said.code == 0 and "passed       01_bad" in said.out
    assert "done before  01_bad" in supertf("notebooks run 01_bad -y", "STEPS: 10").out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("notebooks run 02_none", "no notebook called 02_none; there are 00_good, 01_bad"),
        ("notebooks run --profile fast", "profile is 'fast'; expected one of smoke, lab, full"),
        ("notebooks run -y STEPS=3", "expected parameters such as 'STEPS: 300', got 'STEPS=3'"),
        ("notebooks run -y {STEP:3}", "no notebook here has a parameter STEP:3; they have STEPS"),
    ],
)
def test_a_mistake_is_one_line(lab, supertf, words, line):
    said = supertf(words)
    assert said.code == 2 and said.line == f"supertf notebooks: {line}"


def test_without_papermill_it_says_what_to_install(lab, supertf, monkeypatch):
    real = builtins.__import__

    def without(name, *more):
        if name == "papermill":
            raise ImportError(name=name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert supertf("notebooks list").line.endswith(
        "running notebooks needs papermill: pip install papermill pyyaml"
    )
