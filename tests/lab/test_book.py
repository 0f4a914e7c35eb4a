"""The book: what counts as a failure, what is stored, what is rendered."""

import base64
import io
import os
import re
import signal
import subprocess
import sys
import time

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from supertf.errors import UserError
from supertf.lab import book, book_lanes, book_progress
from supertf.lab.badges import repository, set_repository
from supertf.lab.book_html import page, title_and_promise, write_index
from supertf.lab.executed import KERNELSPEC, cleaned, outputs_of, problems, solved, with_palette
from supertf.lab.notebook import CHECK_MIME, FIGURES_MIME

PYPROJECT = '[project.urls]\nRepository = "https://github.com/old/lab"\n'
GOOD = """
from supertf.lab.notebook import check, record
{extra}
check("double", double(2), 4, hint="twice as much")
record("{name}", steps=STEPS, ratio=5.123456789)
"""


def a_notebook(name: str, extra: str = "") -> nbformat.NotebookNode:
    """Parameters, one exercise, a widget-free body with `extra` in it, headline figures."""
    cells = [
        new_markdown_cell("# A title\n\nA promise about $n^2$,\non two lines.\n\nMore."),
        new_code_cell("STEPS = 5", metadata={"tags": ["parameters"]}),
        new_code_cell("def double(x): ...", metadata={"tags": ["exercise"]}),
        new_markdown_cell("<details><summary>Hint</summary>\n\nAdd it to itself.\n</details>"),
        new_markdown_cell("<details>\n\n```python\ndef double(x):\n    return 2 * x\n```\n</details>"),
        *[new_code_cell(text.strip()) for text in GOOD.format(name=name, extra=extra).split("\n\n")],
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC})


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """An empty repository; returns a function that puts a notebook into it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "tests").mkdir()

    def put(name: str, extra: str = "", parameters: str = "{STEPS: 2}"):
        path = tmp_path / "notebooks" / f"{name}.ipynb"
        nbformat.write(a_notebook(name, extra), path)
        with open(tmp_path / "tests" / "smoke.yaml", "a") as file:
            file.write(f"{name}: {parameters}\n")
        return path

    return put


# --- running ----------------------------------------------------------------------------------------------


@pytest.fixture
def one_process(monkeypatch):
    """Notebooks run one after the other from the test's process: a lane first imports the book anew.

    Kernels are real all the same, and lanes are in the tests of what runs at the same time.
    """
    monkeypatch.setattr(book, "side_by_side", lambda call, jobs: (call(*job) for job in jobs))


WIDGET = "from ipywidgets import interact\ninteract(lambda k: 1 / 0, k=(1, 3));"


@pytest.mark.slow
def test_run_reports_every_kind_of_failure_and_continues(lab, one_process, capsys, monkeypatch):
    monkeypatch.setattr(book, "CELL_SECONDS", 15)
    lab("00_raises", "assert STEPS > 99, 'too few'")
    lab("01_widget", WIDGET)
    lab("02_exits", "raise SystemExit(0)")
    lab("03_hangs", "import time; time.sleep(3600)")
    lab("04_dies", "import os; os._exit(1)")
    lab("05_good")
    assert book.main(["run"]) == 1
    lines = sorted(line for line in capsys.readouterr().out.splitlines() if re.match(r"0\d_\w+ ", line))
    expected = [
        "AssertionError: too few",
        "inside a widget: ZeroDivisionError",
        "SystemExit",
        "`from supertf.lab.notebook import check, record`: timed out after 15 s; load average",
        "died",
    ]
    for line, problem in zip(lines, expected, strict=False):
        assert "FAILED: cell" in line and problem in line
    assert re.fullmatch(r"05_good +\d+\.\d s  steps 5, ratio 5\.123", lines[5])
    index = (book.Path("build/book") / "index.html").read_text()
    assert index.count('class="failed"') == 5 and "ratio 5.123" in index and "05_good.html" in index
    assert all(state not in index for state in ("running<", "to come", "not run", "refresh"))


LOOK = """
import time
from pathlib import Path
book = Path("../build/book")
while not Path("begun").exists():  # the other one that runs
    time.sleep(0.05)
index = (book / "index.html").read_text()
Path("looked").touch()
assert (book / "00_good.html").exists() and 'href="00_good.html"' in index and "ratio 5.123" in index
assert index.count("running</span>") == 2 and "to come</span>" in index and "refresh" in index
assert 'href="01_looks.html"' not in index and not (book / "09_old.html").exists()
"""
BESIDE = """
import time
from pathlib import Path
Path("begun").touch()
while not Path("looked").exists():
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_the_first_page_can_be_read_while_the_others_run(lab, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(book_progress, "TICK", {False: 0.2})
    monkeypatch.setattr(book_lanes, "LANES", 2)
    monkeypatch.setattr(book, "LANES", 2)
    lab("00_good")
    lab("01_looks", LOOK)
    lab("02_good", BESIDE)
    lab("03_good")
    old = tmp_path / "build/book/09_old.html"
    old.parent.mkdir(parents=True)
    old.touch()
    assert book.main(["run"]) == 0
    out = capsys.readouterr().out
    assert out.index("read from now on: build/book/00_good.html") < out.index("01_looks")
    assert re.search(r"1 of 4 done, about \d+ s left \| 01_looks for \d+ s, .* \| 02_good for", out)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_an_interrupt_ends_the_run_and_the_index_says_so(lab, tmp_path):
    lab("00_hangs", "open('begun', 'w').close()\nimport time; time.sleep(3600)")
    lab("01_good")
    command = [sys.executable, "-m", "supertf.lab.book", "run"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        while not (tmp_path / "notebooks/begun").exists():
            assert run.poll() is None
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=1800)
    assert run.returncode == 130 and out.decode().endswith("stopped; what was done before is kept\n")
    index = (tmp_path / "build/book/index.html").read_text()
    assert index.count("not run</span>") == 2 and "refresh" not in index


@pytest.mark.slow
def test_smoke_injects_parameters_and_runs_the_solutions(lab, one_process, capsys):
    source = lab("00_good")
    before = source.read_bytes()
    assert book.main(["smoke"]) == 0
    assert re.match("00_good .* steps 2, ratio 5.123", capsys.readouterr().out)
    executed = nbformat.read("build/smoke/00_good.ipynb", as_version=4)
    assert [outcome["status"] for outcome in outputs_of(executed, CHECK_MIME)] == ["passed"]
    assert source.read_bytes() == before


@pytest.mark.slow
def test_save_stores_outputs_without_traces_of_the_run(lab, capsys):
    good = lab(
        "00_good",
        "import sys\nprint('50%', file=sys.stderr)\nfrom ipywidgets import IntSlider\ndisplay(IntSlider())",
    )
    bad = lab("01_bad", "1 / 0")
    before = bad.read_bytes()
    assert book.main(["save"]) == 1
    assert bad.read_bytes() == before
    saved = nbformat.read(good, as_version=4)
    assert set(saved.metadata) == {"kernelspec", "language_info"}
    assert [cell.metadata for cell in saved.cells if cell.metadata] == [
        {"tags": ["parameters"]},
        {"tags": ["exercise"]},
    ]
    assert outputs_of(saved, FIGURES_MIME)[0]["figures"] == [["steps", 5], ["ratio", 5.12346]]
    assert list(book.usual_seconds()) == ["00_good"], "a guide for later runs, of what was stored"
    assert not any(o.get("name") == "stderr" for c in saved.cells for o in c.get("outputs", []))
    assert "widget-view" not in good.read_text() and "interactive control" in good.read_text()


PLOT = """
from PIL import Image
shades = Image.linear_gradient("L").convert("RGB")
for color in ("red", "blue"):
    display(Image.blend(shades, Image.new("RGB", shades.size, color), 0.5))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_save_also_stores_the_picture_shown_elsewhere(lab, capsys, monkeypatch, number):
    picture = book.NOTEBOOKS / "images/good.png"
    monkeypatch.setattr(book, "PICTURES", {"00_good": (number, picture)})
    path = lab("00_good", PLOT)
    before = path.read_bytes()
    failed = book.main(["save"])
    if number == 1:
        assert not failed
        second = outputs_of(nbformat.read(path, as_version=4), "image/png")[1]
        assert picture.read_bytes() == base64.b64decode(second), "the one that the notebook shows"
        red, green, blue = Image.open(picture).convert("RGB").getpixel((0, 0))
        assert blue > 100 > red + green and Image.open(picture).mode == "P"
    else:
        assert failed and "it has 2 pictures" in capsys.readouterr().out
        assert path.read_bytes() == before and not picture.exists()


@pytest.mark.slow
def test_save_refuses_a_notebook_that_is_too_large(lab, capsys, monkeypatch):
    path = lab("00_good")
    before = path.read_bytes()
    monkeypatch.setattr(book, "MAX_BYTES", 1000)
    assert book.main(["save"]) == 1
    assert "exceed 1 kB" in capsys.readouterr().out and path.read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "07_none"], "no notebook called 07_none"),
        (["smoke"], "00_good has no parameter STEP; it has STEPS"),
    ],
)
def test_misspelt_names_are_refused_before_anything_runs(lab, capsys, argv, message):
    lab("00_good", parameters="{STEP: 2}")
    assert book.main(argv) == 2
    assert message in capsys.readouterr().err


def test_smoke_needs_an_entry_per_notebook_and_a_notebook_per_entry(lab, capsys):
    lab("00_good").unlink()
    lab("01_good")
    assert book.main(["smoke"]) == 2
    assert "disagree on 00_good" in capsys.readouterr().err


def test_a_parameter_that_a_notebook_lacks_stops_any_run_of_it(lab, tmp_path):
    path = lab("00_good")
    with pytest.raises(UserError, match="00_good has no parameter SEED, STEP; it has STEPS"):
        book.execute(path, tmp_path / "out/00_good.ipynb", {"STEP": 1, "SEED": 2, "STEPS": 3}, {"passed"})
    assert not (tmp_path / "out").exists()


def test_outside_a_repository_it_says_where_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert book.main(["run"]) == 2
    assert "repository's root" in capsys.readouterr().err


# --- judging an executed notebook -------------------------------------------------------------------------


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
        with pytest.raises(UserError, match=r"def double\(x\).*no <details>"):
            solved(new_notebook(cells=a_notebook("x").cells[cut]))


def test_cleaning_keeps_folded_cells_and_the_wish_for_a_gpu():
    folded = a_notebook("x")
    folded.metadata |= {"accelerator": "GPU", "papermill": {}, "widgets": {}}
    folded.cells[1].metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}, "execution": {}}
    clean = cleaned(folded)
    assert set(clean.metadata) == {"accelerator", "kernelspec", "language_info"}
    assert set(clean.cells[1].metadata) == {"tags", "cellView", "jupyter"}


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
    assert np.abs(np.subtract(*(np.asarray(image, dtype=float) for image in pixels))).max() < 12


# --- rendering --------------------------------------------------------------------------------------------


def test_pages_load_nothing_from_the_network():
    shown_ = a_notebook("x")
    badge = "[![Open in Colab](https://example.org/badge.svg)](https://example.org/x)"
    shown_.cells.insert(0, new_markdown_cell(badge + "\n\n$$\\frac{a}{b}$$ and $\\frac{$"))
    text = page("x", shown_)
    assert re.findall(r'(?:src|<link[^>]*href)="?(?:https?:)?//[^"]+', text) == []
    assert "<script" not in text
    assert "<mfrac>" in text and "Open in Colab" in text
    assert "<code>\\frac{</code>" in text  # a formula that is none is shown as written
    assert 'href="index.html"' in text


def test_links_between_notebooks_lead_to_their_pages():
    shown_ = a_notebook("x")
    shown_.cells[0].source = "[one](01_a.ipynb), [part](01_a.ipynb#two), [other](https://x.org/01_a.ipynb)"
    links = re.findall(r'href="([^"]*01_a[^"]*)"', page("x", shown_))
    assert links == ["01_a.html", "01_a.html#two", "https://x.org/01_a.ipynb"]


def test_a_long_failure_has_a_row_of_its_own(tmp_path):
    notebook_ = a_notebook("x")
    failed = book.Result(
        "00_failed", 61.2, notebook_, ["cell [3] `f()`: ValueError: " + "x" * 300, "<other>"]
    )
    index = write_index(tmp_path, {"00_failed": notebook_}, [failed]).read_text()
    assert index.count("<tr") == 3, "head, notebook, problems"
    problems_ = index[index.rindex("<tr") :]
    assert 'colspan="4"' in problems_ and "x" * 300 in problems_ and "&lt;other&gt;" in problems_
    assert ".problems { border: 0; padding-top: 0; overflow-wrap: anywhere; }" in index


def test_the_promise_is_the_paragraph_after_the_title():
    assert title_and_promise(a_notebook("x")) == ("A title", "A promise about $n^2$, on two lines.")
    assert title_and_promise(new_notebook()) == ("", "")


# --- the repository's address -----------------------------------------------------------------------------


def test_badges_follow_the_address_and_citations_stay(lab, tmp_path):
    citation = "Based on https://github.com/old/lab."
    badge = "[![x](y)](https://colab.research.google.com/github/old/lab/blob/main/notebooks/00_good.ipynb)"
    other = "git+https://github.com/old/lab-other"
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "README.md").write_text(f"{badge} {citation} {other}")
    path = lab("00_good")
    loaded = nbformat.read(path, as_version=4)
    loaded.cells[0].source = f"{badge}\n%pip install git+https://github.com/old/lab"
    nbformat.write(loaded, path)
    changed = set_repository("new/name", tmp_path)
    assert {p.name for p in changed} == {"pyproject.toml", "README.md", "00_good.ipynb"}
    assert repository(tmp_path) == "new/name"
    readme = (tmp_path / "README.md").read_text()
    assert "github/new/name/blob" in readme and citation in readme and other in readme
    assert "old/lab" not in path.read_text()
    assert set_repository("new/name", tmp_path) == []


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "https://github.com/a/b", "a b/c"])
def test_a_wrong_address_changes_nothing(tmp_path, repo):
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    with pytest.raises(UserError, match="owner/name"):
        set_repository(repo, tmp_path)
    assert (tmp_path / "pyproject.toml").read_text() == PYPROJECT
