"""What is shown while notebooks run: how far, how long, and about how much is left."""

import io
import re
import shutil
import sys
import time
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from supertf.lab.book import progress as book_progress
from supertf.lab.book.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set."""
    now = [0.0]
    monkeypatch.setattr(book_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_what_is_left_is_guessed_at_the_pace_of_this_run(clock, tmp_path):
    progress = Progress(["a", "b", "c"], tmp_path, {"a": 10, "b": 20, "c": 30})
    progress.begin(["a"])
    assert progress.left() == 60
    clock[0] = 5
    assert progress.left() == 55
    clock[0] = 30
    progress.begin(["b", "c"])
    assert progress.took == {"a": 30} and progress.left() == 3 * 50, "three times as long as where stored"
    clock[0] = 50  # beside each other each has had ten seconds of the machine
    assert progress.left() == (20 - 10 + 30 - 10) * 50 / 30


def test_without_a_clue_nothing_is_said_of_what_is_left(clock, tmp_path):
    progress = Progress(["a", "new"], tmp_path, {})
    progress.begin(["a"])
    assert progress.left() is None and "left" not in progress.line()
    clock[0] = 30
    progress.begin(["new"])
    assert progress.left() == 30, "as long as the first"


def test_the_line_says_which_cells_run_and_for_how_long(clock, tmp_path):
    progress = Progress(["00_a", "01_b", "02_c"], tmp_path, dict.fromkeys(("00_a", "01_b", "02_c"), 300))
    progress.begin(["00_a"])
    clock[0] = 300
    progress.begin(["01_b", "02_c"])
    clock[0] = 340
    cells = [new_code_cell(text) for text in ("done()", "\n  now()\nlater()", "then()")]
    for cell, status in zip(cells, ("completed", "running", "pending"), strict=True):
        cell.metadata.papermill = {"status": status}
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Words"), *cells]), tmp_path / "01_b.ipynb")
    (tmp_path / "02_c.ipynb").write_text('{"cells": [half')
    assert progress.line() == (
        "1 of 3 done, about 9 min left | 01_b for 40 s, cell 2 of 3: now() | 02_c for 40 s, starting"
    )


def test_a_log_gets_more_lines_and_a_terminal_one_that_goes_away(monkeypatch, tmp_path):
    monkeypatch.setattr(book_progress, "LOG_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    for terminal in (True, False):
        out = io.StringIO()
        out.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stdout", out)
        progress = Progress(["a" * 200], tmp_path, {})
        progress.begin(["a" * 200])
        with progress.shown():
            time.sleep(0.1)
            progress.say("stays")
        shown = re.split(
            r"[\r\n]+", re.sub(r"\x1b\[\??\d*[A-Za-z]", "\n", out.getvalue())
        )  # no control codes
        assert "stays" in shown and ("\x1b" in out.getvalue()) == terminal
        running = [line for line in shown if line.startswith("0 of 1 done | aaa")]
        width = shutil.get_terminal_size().columns
        assert running and all((len(line) <= width) == terminal for line in running), (
            "it would wrap, and stay"
        )
