"""The benchmark of training beside a busy program."""

import json

import psutil
import pytest

from supertf.bench import busy as bench_busy
from supertf.cli.main import main
from supertf.errors import UserError


def test_the_busy_benchmark_ends_its_busy_process_and_says_how_threads_wait(monkeypatch, capsys):
    monkeypatch.setattr(bench_busy, "SHAPES", {"one": {"n_layer": 1}})
    assert main(["bench", "busy", "--repeats", "1", "--steps", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["one"]["ratio"] == pytest.approx(found["one"]["busy_ms"] / found["one"]["quiet_ms"])
    assert set(bench_busy.WAITING) == set(found["waiting"])
    with pytest.raises(UserError), bench_busy.one_core_busy():
        (child,) = [c for c in psutil.Process().children() if "while True" in " ".join(c.cmdline())]
        raise UserError("stop")
    assert not child.is_running()
