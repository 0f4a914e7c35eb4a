"""The setup cell: what it installs on Colab, in which order, and what it says where that fails."""

import glob
import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path

import nbformat
import pytest
from colab_setup import setup_cell

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Returns a function that runs the cell as Colab would, where pip succeeds with what has `works` in it.
    The result: what was installed, and whether the model was fetched."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    found = importlib.util.find_spec
    installed, fetched = [], []

    def run(works: str, there: bool = False):
        def pip(source):
            installed.append(source)

        def spec(name):
            ok = there or any(works in source for source in installed)
            return found(name) if name != "supertf" or ok else None

        monkeypatch.setattr(importlib.util, "find_spec", spec)
        source = setup_cell(NOTEBOOKS[0])
        source = re.sub(r"%pip install -q --no-deps gguf \{(\w+)\}", r"pip(\1)", source)
        source = source.replace("!supertf fetch", "fetched.append(1)")
        assert "%" not in source and "!" not in source.replace("!=", "")
        exec(source, {"pip": pip, "fetched": fetched})
        return installed, bool(fetched)

    return run


def test_what_is_installed_already_stays(ran):
    assert ran("", there=True) == ([], False)


def test_the_repository_is_tried_and_the_model_fetched(ran):
    installed, fetched = ran("git+https://github.com/")
    assert (
        len(installed) == 1
        and re.fullmatch(r"git\+https://github.com/[\w./-]+@main", installed[0])
        and fetched
    )


def test_a_wheel_that_was_uploaded_comes_first(ran, tmp_path):
    (tmp_path / "supertf-0.1.0-py3-none-any.whl").touch()
    assert ran("supertf-0.1.0") == (["supertf-0.1.0-py3-none-any.whl"], True)
    assert glob.glob("*.whl")


def test_where_nothing_can_be_installed_one_line_says_how_to_upload_a_wheel(ran):
    with pytest.raises(AssertionError, match=r"make wheel.*upload dist/supertf-\*\.whl") as failed:
        ran("nothing")
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_has_the_same_setup_cell_folded(path):
    first = setup_cell(NOTEBOOKS[0])
    assert setup_cell(path) == first
    cell = next(c for c in nbformat.read(path, as_version=4).cells if "google.colab" in c.source)
    assert cell.metadata["cellView"] == "form" and cell.metadata["jupyter"]["source_hidden"]
