"""The helpers inside notebooks: parameters in range, exercises, headline figures, set-up."""

import base64
import functools
import io
import math
import sys
import types

import numpy as np
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from matplotlib_inline.backend_inline import configure_inline_support
from matplotlib_inline.config import InlineBackend
from PIL import Image

from supertf.errors import UserError
from supertf.lab import notebook
from supertf.lab.notebook import FIGURES_MIME, holding, in_range, one_of, record


@pytest.fixture
def shown(monkeypatch):
    """What `record` displays: (MIME type, value, text)."""
    displayed = []
    monkeypatch.setattr(notebook, "show", lambda *output: displayed.append(output))
    return displayed


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (lambda: in_range(200, STEPS=60), r"^STEPS is 60; expected a whole number of at least 200$"),
        (lambda: in_range(200, STEPS=200.5), "STEPS is 200.5; expected a whole number"),
        (lambda: in_range(200, STEPS="many"), "STEPS is 'many'; expected a whole number"),
        (lambda: in_range(0, STEPS=True), "STEPS is True; expected a whole number"),
        (lambda: in_range(1.0, 9.0, "so", GAP=0.5), "of at least 1.0 and at most 9.0: so$"),
        (lambda: in_range(None, 65536, LONGEST=10**6), "LONGEST is 1000000; .* number at most 65,536$"),
        (lambda: in_range(0.0, RATE=math.nan), "RATE is nan; expected a number of at least 0.0"),
        (lambda: in_range(8, LENGTHS=[16, 4]), r"LENGTHS is \[16, 4\]; expected"),
        (lambda: in_range(8, LENGTHS=[]), r"LENGTHS is \[\]; .* or several in a list"),
        (lambda: in_range(1, GOOD=1, BAD=0), "^BAD is 0"),
        (
            lambda: one_of(["lab", "full"], PROFILE="fast"),
            "PROFILE is 'fast'; expected one of 'lab', 'full'$",
        ),
        (lambda: one_of(["a", "b"], KINDS=["a", "c"]), "KINDS is .* expected one of 'a', 'b'"),
        (lambda: one_of(["a", "b"], METHODS={"c": [0.1]}), "METHODS is .* expected one of 'a', 'b'"),
        (lambda: holding([0, 1], "so", FACTORS=[0.0, 2.0]), "a list with 0, 1 in it: so"),
        (lambda: holding([0, 1], FACTORS=0), "FACTORS is 0; expected a list"),
    ],
)
def test_a_parameter_out_of_range_is_told_with_its_value_and_range(declared, message):
    with pytest.raises(UserError, match=message):
        declared()


def test_parameters_in_range_pass():
    in_range(200, 4000, STEPS=200, MORE=4000)
    in_range(0.0, 1.0, SHARES=[0, 0.5, 1.0])
    one_of(["lab", "full", None], PROFILE="lab", KINDS=["lab", "full"], NONE=None)
    holding([0, 1], FACTORS=[0.0, 0.5, 1.0])


def test_a_users_mistake_is_one_line_in_a_notebook(shell, capsys):
    assert not shell.run_cell("from supertf.lab.notebook import in_range\nin_range(1, STEPS=0)").success
    assert capsys.readouterr().out == "UserError: STEPS is 0; expected a whole number of at least 1\n"


def test_record_keeps_order_and_six_digits(shown):
    record("00_x", steps=np.int64(5000), ratio=torch.tensor(5.123456789), found=True, where="11[507]")
    ((mime, value, text),) = shown
    assert mime == FIGURES_MIME
    assert value["figures"] == [("steps", 5000), ("ratio", 5.12346), ("found", True), ("where", "11[507]")]
    assert text == "00_x: steps 5,000, ratio 5.123, found True, where 11[507]"


@pytest.mark.parametrize(
    ("figures", "error"), [({}, ValueError), ({"x": [1]}, TypeError), ({"x": math.inf}, ValueError)]
)
def test_record_refuses_what_is_no_headline_figure(shown, figures, error):
    with pytest.raises(error):
        record("00_x", **figures)


def test_setup_seeds_everything_and_says_where_it_runs_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    drawn = []
    for _ in range(2):
        device, _ = notebook.setup(seed=7)
        drawn.append((torch.rand(1).item(), np.random.rand(), notebook.random.random()))
    assert drawn[0] == drawn[1] and device.type == "cpu"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for word in (torch.__version__, "numpy", "ipywidgets", "seed 7", "SUPERTF_DEVICE"):
        assert word in lines[0]


def test_on_colab_without_a_gpu_setup_says_how_to_get_one(capsys, monkeypatch):
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    notebook.setup(seed=7)
    assert "Runtime > Change runtime type > T4 GPU" in capsys.readouterr().out


@pytest.fixture
def shell():
    """IPython's, as a notebook has it."""
    yield InteractiveShell.instance()
    InlineBackend.clear_instance()
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("backend_first", [True, False])
def test_figures_are_shown_as_they_are_without_trimming(shell, backend_first):
    figure = Figure(figsize=(4, 3), dpi=50)
    figure.add_axes((0.4, 0.4, 0.2, 0.2))  # trimmed, it would be smaller
    load = functools.partial(configure_inline_support, shell, "module://matplotlib_inline.backend_inline")
    steps = [load, notebook.draw_quickly]
    for step in steps if backend_first else reversed(steps):
        step()
    png = base64.b64decode(shell.display_formatter.format(figure)[0]["image/png"])
    assert Image.open(io.BytesIO(png)).size == (200, 150)


def test_outside_notebooks_figures_are_nobodys_business():
    notebook.draw_quickly()
