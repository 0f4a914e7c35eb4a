"""The book: what counts as a failure, what is shown while it runs, what is stored."""

import base64
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from a_notebook import a_notebook
from PIL import Image

from supertf.errors import UserError
from supertf.lab.book import execution, progress, runs
from supertf.lab.book.__main__ import main
from supertf.lab.book.executed import outputs_of
from supertf.lab.notebook import CHECK_MIME, FIGURES_MIME


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


@pytest.fixture
def one_process(monkeypatch):
    """Notebooks run one after the other from the test's process: a lane first imports the book anew.

    Kernels are real all the same, and lanes are in the tests of what runs at the same time.
    """
    monkeypatch.setattr(runs, "side_by_side", lambda call, jobs: (call(*job) for job in jobs))


WIDGET = "from ipywidgets import interact\ninteract(lambda k: 1 / 0, k=(1, 3));"


@pytest.mark.slow
def test_run_reports_every_kind_of_failure_and_continues(lab, one_process, capsys, monkeypatch):
    monkeypatch.setattr(runs, "CELL_SECONDS", 15)
    lab("00_raises", "assert STEPS > 99, 'too few'")
    lab("01_widget", WIDGET)
    lab("02_exits", "raise SystemExit(0)")
    lab("03_hangs", "import time; time.sleep(3600)")
    lab("04_dies", "import os; os._exit(1)")
    lab("05_good")
    assert main(["run"]) == 1
    lines = sorted(line for line in capsys.readouterr().out.splitlines() if re.match(r"0\d_\w+ ", line))
    expected = [
        "AssertionError: too few",
        "inside a widget: ZeroDivisionError",
        "SystemExit",
        "`from supertf.lab import check, record`: timed out after 15 s; load average",
        "died",
    ]
    for line, problem in zip(lines, expected, strict=False):
        assert "FAILED: cell" in line and problem in line
    assert re.fullmatch(r"05_good +\d+\.\d s  steps 5, ratio 5\.123", lines[5])
    index = Path("build/book/index.html").read_text()
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
assert index.count("running</p>") == 2 and "to come</p>" in index and "refresh" in index
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
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.2)
    monkeypatch.setattr(execution, "LANES", 2)
    monkeypatch.setattr(runs, "LANES", 2)
    lab("00_good")
    lab("01_looks", LOOK)
    lab("02_good", BESIDE)
    lab("03_good")
    old = tmp_path / "build/book/09_old.html"
    old.parent.mkdir(parents=True)
    old.touch()
    assert main(["run"]) == 0
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
    assert index.count("not run</p>") == 2 and "refresh" not in index


@pytest.mark.slow
def test_smoke_injects_parameters_and_runs_the_solutions(lab, one_process, capsys):
    source = lab("00_good")
    before = source.read_bytes()
    assert main(["smoke"]) == 0
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
    assert main(["save"]) == 1
    assert bad.read_bytes() == before
    saved = nbformat.read(good, as_version=4)
    assert set(saved.metadata) == {"kernelspec", "language_info"}
    assert [cell.metadata for cell in saved.cells if cell.metadata] == [
        {"tags": ["parameters"]},
        {"tags": ["exercise"]},
    ]
    assert outputs_of(saved, FIGURES_MIME)[0]["figures"] == [["steps", 5], ["ratio", 5.12346]]
    assert list(runs.usual_seconds()) == ["00_good"], "a guide for later runs, of what was stored"
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
    picture = runs.NOTEBOOKS / "images/good.png"
    monkeypatch.setattr(runs, "PICTURES", {"00_good": (number, picture)})
    path = lab("00_good", PLOT)
    before = path.read_bytes()
    failed = main(["save"])
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
    monkeypatch.setattr(runs, "MAX_BYTES", 1000)
    assert main(["save"]) == 1
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
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_smoke_needs_an_entry_per_notebook_and_a_notebook_per_entry(lab, capsys):
    lab("00_good").unlink()
    lab("01_good")
    assert main(["smoke"]) == 2
    assert "disagree on 00_good" in capsys.readouterr().err


def test_a_parameter_that_a_notebook_lacks_stops_any_run_of_it(lab, tmp_path):
    path = lab("00_good")
    with pytest.raises(UserError, match="00_good has no parameter SEED, STEP; it has STEPS"):
        execution.execute(path, tmp_path / "out/00_good.ipynb", {"STEP": 1, "SEED": 2}, {"passed"}, tmp_path)
    assert not (tmp_path / "out").exists()


def test_outside_a_repository_it_says_where_to_run_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 2
    assert "repository's root" in capsys.readouterr().err
