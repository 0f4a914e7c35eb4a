"""What is told while notebooks run: how far, how long, what is left, and what else the machine does."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from supertf import book_progress
from supertf.book_progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set; the progress has no thread."""
    now = [0.0]
    monkeypatch.setattr(book_progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Progress, "_look", lambda self, over: None)
    return now


def test_what_is_left_is_told_at_the_pace_of_the_notebooks_before(clock):
    progress = Progress(["a", "b", "c"], {"a": 10, "b": 20, "c": 30})
    with progress.notebook("a", 4):
        assert progress.left(0) == 60 and progress.left(4) == 56
        assert progress.left(20) == 0 + 2 * 50, "it takes twice what it took, so the others may as well"
        clock[0] += 30  # three times
    with progress.notebook("b", 4):
        assert progress.left(10) == 50 + 90


def test_without_a_clue_nothing_is_said_of_what_is_left(clock):
    progress = Progress(["a", "new"], {})
    with progress.notebook("a", 4):
        assert progress.left(5) is None and "left" not in progress.line()
        clock[0] += 30
    with progress.notebook("new", 4):
        assert progress.left(10) == 20, "as long as the first"


def test_the_line_says_notebook_cell_and_times(clock):
    progress = Progress(["00_a", "01_b"], {"00_a": 300, "01_b": 300})
    with progress.notebook("01_b", 4):
        clock[0] = 20
        progress.begin_cell("\n  first()\nsecond()")
        clock[0] = 150
        told = progress.line()
    assert told == "[2 of 2] 01_b: cell 1 of 4 for 2 min, notebook for 2 min, about 8 min left | first()"


def test_a_terminal_gets_one_line_and_a_log_only_more_lines(monkeypatch):
    for terminal in (True, False):
        out = io.StringIO()
        out.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(book_progress, "TICK", {True: 0.01, False: 0.01})
        progress = Progress(["a" * 200], {})
        with progress.notebook("a" * 200, 4):
            time.sleep(0.1)
        progress.say("done")
        text = out.getvalue()
        assert ("\r" in text) == terminal and text.endswith("done\n")
        assert (text.count("\n") == 1) if terminal else (text.count("\n") > 2)
        width = shutil.get_terminal_size().columns
        assert not terminal or max(map(len, re.split(r"[\r\n]", text))) < width, "it would wrap, and stay"


def test_the_load_names_what_else_is_busy():
    spin = f'"{sys.executable}" -c "while True: pass" >/dev/null & echo $!'
    pid = int(subprocess.run(["sh", "-c", spin], stdout=subprocess.PIPE, check=True).stdout)  # nobody's child
    try:
        told = book_progress.machine_load(0.3)
    finally:
        os.kill(pid, signal.SIGTERM)
    assert re.search(r"load average [\d., ]+ on \d+ cores.*busiest other processes: .*\d %", told)
