"""Executed notebooks: what counts as a problem, which solution replaces a stub, what is stored."""

import base64
import io
import json

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from a_notebook import a_notebook
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from supertf.errors import UserError
from supertf.lab.book.executed import cleaned, problems, solved, with_palette, written
from supertf.lab.explorers import PLOTLY_MIME
from supertf.lab.notebook import CHECK_MIME, FIGURES_MIME
from supertf.lab.plots import COLORS


def executed(*outputs, **cell):
    figures = new_output("display_data", {FIGURES_MIME: {"name": "x", "figures": [["a", 1]]}})
    code = new_code_cell("body()", execution_count=1, outputs=[*outputs, figures])
    code.update(cell)
    return new_notebook(cells=[code])


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
FAILED_CHECK = new_output("display_data", {CHECK_MIME: {"name": "one", "status": "failed"}})


@pytest.mark.parametrize(
    ("notebook_", "problem"),
    [
        (executed(ERROR), "ValueError: no"),
        (executed(execution_count=None), "was not executed"),
        (executed(outputs=[]), "no headline figures"),
        (executed(FAILED_CHECK), "the check 'one' says failed"),
        (new_notebook(), "no code cells"),
    ],
)
def test_problems_that_stopped_nothing_are_found(notebook_, problem):
    assert any(problem in found for found in problems(notebook_, {"passed", "unsolved"}))


def test_an_expected_error_is_no_problem():
    assert problems(executed(ERROR, metadata={"tags": ["raises-exception"]}), {"passed"}) == []


def test_a_stub_without_solution_is_named():
    for cut in (slice(0, 4), slice(0, 3)):
        with pytest.raises(UserError, match=r"def visible\(T, past\).*no <details>"):
            solved(new_notebook(cells=a_notebook("x").cells[cut]))


def test_cleaning_keeps_folded_cells_and_the_wish_for_a_gpu():
    folded = a_notebook("x")
    folded.metadata |= {"accelerator": "GPU", "papermill": {}, "widgets": {}}
    folded.cells[1].metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}, "execution": {}}
    clean = cleaned(folded)
    assert set(clean.metadata) == {"accelerator", "kernelspec", "language_info"}
    assert set(clean.cells[1].metadata) == {"tags", "cellView", "jupyter"}


def test_explorers_are_stored_on_a_line_each_and_read_back_as_they_were():
    figures = [{"data": [{"y": [i, 0.5, "„x“"] * 9}], "layout": {}} for i in range(12)]
    outputs = [new_output("display_data", {PLOTLY_MIME: one, "text/plain": "[it]"}) for one in figures]
    notebook = executed(*outputs)
    text = written(notebook)
    assert nbformat.reads(text, 4) == notebook
    for one in figures:
        assert json.dumps(one, ensure_ascii=False, separators=(",", ":")) in text


def test_cleaning_makes_pictures_smaller_and_not_different():
    buffer = io.BytesIO()
    hinting = matplotlib.rcParamsDefault["text.hinting"]  # whatever a test before has set
    with plt.rc_context({"text.hinting": hinting}):
        figure, ax = plt.subplots()
        ax.plot([1, 3, 2])
        figure.savefig(buffer, format="png")
        plt.close(figure)
    before = base64.b64encode(buffer.getvalue()).decode()
    after = with_palette(before)
    assert len(after) < len(before) / 2
    pixels = [Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB") for png in (before, after)]
    first, then = (np.asarray(image, dtype=int) for image in pixels)
    assert np.abs(then - first).max() < 20 and (then[first == 255] == 255).all()


def test_small_dots_keep_their_colours():
    """On each row another of the lab's colours, half transparent, beside many greys of text."""
    _, ax = plt.subplots()
    for row, color in enumerate(COLORS):
        ax.plot([1, 2], [row, row], "o", color=color, alpha=0.6)
        ax.text(1.2, row, "letters in many shades of grey", fontsize=7)
    buffer = io.BytesIO()
    plt.gcf().savefig(buffer, format="png")
    before = Image.open(buffer).convert("RGB")
    small = with_palette(base64.b64encode(buffer.getvalue()).decode())
    after = Image.open(io.BytesIO(base64.b64decode(small))).convert("RGB")
    first, then = (np.asarray(image, dtype=int) for image in (before, after))
    colourful = first.max(-1) - first.min(-1) > 60
    assert colourful.sum() > 200 and np.abs(then - first)[colourful].max() < 40
