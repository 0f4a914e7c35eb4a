"""Sweeps: cached results equal fresh ones, nothing is lost or measured twice, nothing stale is trusted."""

import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from supertf.errors import UserError
from supertf.experiments.sweep import cells
from supertf.experiments.sweep.catalogue import EXPERIMENTS
from supertf.experiments.sweep.description import cell_hash
from supertf.experiments.sweep.runner import SweepInterrupted, run
from supertf.files import cache_dir, read_json, seal, write_json

ORDER = [
    (1, 0),
    (2, 0),
    (1, 1),
    (2, 1),
    (1, 2),
    (2, 2),
]  # (level, seed): every variant of a seed, then the next


def measured() -> list[tuple[int, int]]:
    """What has been measured in this process since the last call."""
    calls = importlib.import_module("toy_lab.measures").CALLS
    copy = list(calls)
    calls.clear()
    return copy


def file_of(described, variant: str, seed: int) -> Path:
    cell = next(one for one in described.cells() if (one["variant"], one["seed"]) == (variant, seed))
    return cache_dir() / "experiments" / "toy" / f"{cell_hash(cell)}.json"


def without_pids(results) -> list[dict]:
    return [{**one["result"], "pid": None} for one in results.cells]


def test_results_are_found_by_variant_and_seed(toy):
    results = run(toy, progress=False)
    assert measured() == ORDER
    low, high = (results.values(variant, "accuracy", 64) for variant in results.variants)
    assert [b - a for a, b in zip(low, high, strict=True)] == pytest.approx([1, 1, 1])  # paired by seed
    assert len(set(low)) == 3 and results.seeds("low") == (0, 1, 2)
    assert results.values("low", "loss") == [None] * 3
    assert results.meta["threads"] == torch.get_num_threads()
    assert results.meta["seconds"] == sum(one["seconds"] for one in results.cells)
    assert {"supertf", "torch", "numpy", "python"} == set(results.meta["versions"])


def test_cached_results_are_the_fresh_ones_and_measure_nothing(toy, capsys):
    first = run(toy)
    bar = capsys.readouterr().err
    assert measured() == ORDER and "6/6" in bar and "high, seed 2" in bar
    assert run(toy, progress=False) == first
    assert measured() == []
    assert capsys.readouterr() == ("", "")
    fresh = run(toy, fresh=True, progress=False)
    assert measured() == ORDER
    assert [one["result"] for one in fresh.cells] == [one["result"] for one in first.cells]


def test_a_sweep_measures_only_what_no_earlier_one_has(toy):
    run(toy, seeds=[1], progress=False)
    run(toy, variants=["high"], progress=False)
    assert measured() == [(1, 1), (2, 1), (2, 0), (2, 2)]
    assert len(run(toy, progress=False).cells) == 6
    assert measured() == [(1, 0), (1, 2)]
    run(toy, seeds=[0], changes={"steps": 10}, progress=False)
    run(toy, seeds=[0], lengths=[64], progress=False)
    assert measured() == ORDER[:2] * 2


def reseal(path: Path, change) -> None:
    record = read_json(path)
    change(record)
    write_json(path, seal(record))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path, _: path.write_bytes(path.read_bytes()[:-20]), "is damaged"),
        (lambda path, _: path.write_bytes(b"\xff\x00"), "is damaged"),
        (lambda path, _: path.write_text("[]"), "is damaged"),
        (lambda path, _: path.write_text(path.read_text().replace('"seed": 1', '"seed": 2')), "is damaged"),
        (lambda path, other: shutil.copy(other, path), "is of another configuration"),
        (
            lambda path, _: reseal(path, lambda record: record["made_with"].update(torch="1.0")),
            f"was made with torch 1.0 and not {torch.__version__}",
        ),
        (
            lambda path, _: reseal(path, lambda record: record["made_with"].update(device="tpu")),
            "was made with device tpu and not ",
        ),
    ],
)
def test_a_cell_that_cannot_be_trusted_is_measured_again_and_no_other(toy, capsys, damage, reason):
    first = run(toy, progress=False)
    measured()
    others = {path: path.stat().st_mtime_ns for path in file_of(toy, "low", 1).parent.iterdir()}
    damage(file_of(toy, "low", 1), file_of(toy, "low", 2))
    again = run(toy, progress=False)
    assert measured() == [(1, 1)]
    assert [one["result"] for one in again.cells] == [one["result"] for one in first.cells]
    told = capsys.readouterr().err
    assert told.startswith(f"toy: measuring 1 of 6 cells again: the kept result {reason}")
    assert told.count("\n") == 1
    del others[file_of(toy, "low", 1)]
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in others.items())
    assert run(toy, progress=False) == again and measured() == []


def test_changed_code_of_the_measure_is_run_again_and_changed_words_are_not(toy, capsys):
    run(toy, progress=False)
    module = importlib.import_module("toy_lab.measures")
    source = Path(module.__file__)
    source.write_text("# More is said here.\nEXPERIMENT = 'another description'\n" + source.read_text())
    importlib.reload(module)
    run(toy, progress=False)
    assert module.CALLS == []
    source.write_text(source.read_text().replace("gauss(0, 0.1)", "gauss(0, 0.2)"))
    importlib.reload(module)
    run(toy, progress=False)
    assert module.CALLS == ORDER
    told = "6 of 6 cells again: the kept result was made with other code of toy_lab.measures\n"
    assert told in capsys.readouterr().err


def test_code_that_the_measure_only_imports_counts_as_much(toy, capsys):
    module = importlib.import_module("toy_lab.measures")
    source, helper = Path(module.__file__), Path(module.__file__).with_name("helper.py")
    helper.write_text('"""What it is for."""\nFACTOR = 1\n')
    source.write_text(source.read_text() + "\n\ndef late():\n    from .helper import FACTOR\n")
    importlib.reload(module)
    run(toy, progress=False)
    module.CALLS.clear()
    helper.write_text('"""In other words."""\n# and more of them\nFACTOR = (1)\n')
    run(toy, progress=False)
    assert module.CALLS == []
    helper.write_text("FACTOR = 2\n")
    run(toy, progress=False)
    assert module.CALLS == ORDER
    assert "was made with other code of toy_lab.helper\n" in capsys.readouterr().err


def test_cells_of_a_cache_that_did_not_note_the_code_are_measured_again(toy, capsys):
    run(toy, progress=False)
    measured()
    reseal(file_of(toy, "low", 1), lambda record: record["made_with"].pop("code"))
    run(toy, progress=False)
    assert measured() == [(1, 1)]
    told = "1 of 6 cells again: the kept result was made with code that was not noted\n"
    assert told in capsys.readouterr().err


def test_a_sweep_whose_code_is_edited_meanwhile_is_refused(toy, monkeypatch):
    codes = iter([{"supertf": "a"}, {"supertf": "b"}])
    real = cells.code_of
    monkeypatch.setattr(cells, "code_of", lambda module: {**real(module), **next(codes)})
    with pytest.raises(
        UserError, match="low, seed 0: it would be measured with other code of supertf, since"
    ):
        run(toy, seeds=[0], fresh=True, progress=False)


def test_a_mistake_in_a_cell_names_it_and_keeps_the_others(toy):
    with pytest.raises(UserError, match=r"^toy, low, seed 1: there is no room$"):
        run(toy, changes={"mishap": ["refuse", 1]}, progress=False)
    assert measured() == ORDER[:3]
    with pytest.raises(UserError, match="no room"):
        run(toy, changes={"mishap": ["refuse", 1]}, progress=False)
    assert measured() == ORDER[2:3]


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("toy_lab.measures:absent", "module 'toy_lab.measures' has no attribute 'absent'"),
        ("toy_lab.nothing:levels", "No module named 'toy_lab.nothing'"),
        ("measure_nothing:levels", "No module named 'supertf.experiments.measure_nothing'"),
        ("toy_lab.measures:not_json", "toy, low, seed 0: the measure's result is not made of JSON values"),
    ],
)
def test_a_measure_that_is_not_one_is_refused(toy, measure, message):
    described = type(toy).from_dict({**toy.to_dict(), "measure": measure})
    with pytest.raises(UserError, match=message):
        run(described, progress=False)


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="unknown experiment 'nonsense'"):
        run("nonsense")


def test_ctrl_c_loses_the_cell_that_runs_and_the_next_run_goes_on(toy):
    part = {"changes": {"mishap": ["interrupt once", 1]}, "progress": False}
    with pytest.raises(SweepInterrupted, match="interrupted after 2 of 6 cells; run the same command again"):
        run(toy, **part)
    assert measured() == ORDER[:3]
    assert len(list(file_of(toy, "low", 0).parent.iterdir())) == 2
    assert len(run(toy, **part).cells) == 6
    assert measured() == ORDER[2:]


def test_cells_of_one_process_take_turns_also_where_it_has_threads(toy):
    described = type(toy).from_dict({**toy.to_dict(), "measure": "toy_lab.measures:alone"})
    run(described, backend="threading", jobs=3, progress=False)


def test_what_two_machines_measured_is_merged_by_copying_their_files(toy, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    run(toy, seeds=[0, 1], folder=here, progress=False)
    run(toy, seeds=[1, 2], folder=there, progress=False)
    shutil.copytree(there, here, dirs_exist_ok=True)
    measured()
    merged = run(toy, folder=here, progress=False)
    assert measured() == []
    assert [one["result"] for one in merged.cells] == [
        one["result"] for one in run(toy, progress=False).cells
    ]


def test_the_command_is_known_for_registered_experiments(toy, monkeypatch):
    assert run(toy, progress=False).meta["command"] is None
    monkeypatch.setitem(EXPERIMENTS, "toy", toy)
    assert run("toy", progress=False).meta["command"] == "supertf experiment run toy"
    results = run("toy", seeds=[0], variants=["low"], lengths=[64], changes={"steps": 10}, progress=False)
    command = "supertf experiment run toy --seeds 0 --variants low --lengths 64 --set steps=10"
    assert results.meta["command"] == command


@pytest.mark.slow  # new processes import torch
def test_processes_give_the_same_results_and_share_the_cores(toy):
    here, there = run(toy, progress=False), run(toy, fresh=True, jobs=2, progress=False)
    assert without_pids(there) == without_pids(here)
    pids = {one["result"]["pid"] for one in there.cells}
    assert os.getpid() not in pids and len(pids) <= 2
    assert there.meta["threads"] == max(1, os.cpu_count() // 2)
    assert run(toy, progress=False).cells == there.cells
    assert psutil.wait_procs(map(psutil.Process, pids & set(psutil.pids())), timeout=1800)[1] == []


@pytest.mark.slow
def test_a_mistake_in_a_process_is_named_and_what_is_finished_is_kept(toy):
    part = {"changes": {"mishap": ["refuse", 2]}, "progress": False}
    with pytest.raises(UserError, match=r"^toy, (low|high), seed 2: there is no room$"):
        run(toy, jobs=2, **part)
    run(toy, seeds=[0, 1], **part)
    assert len(measured()) <= 1  # one more may have been running


@pytest.mark.slow
def test_a_process_that_dies_takes_only_what_was_running(toy):
    part = {"changes": {"mishap": ["die once", 2]}, "progress": False}
    with pytest.raises(UserError, match="a process of the sweep died, most likely for lack of memory"):
        run(toy, jobs=2, **part)
    assert len(run(toy, **part).cells) == 6
    assert 1 <= len(measured()) <= 3  # it, one that was running, and one that was not begun


@pytest.fixture
def sleeping_sweep(toy, tmp_path):
    """A command with two processes, stuck in the cells of seed 1 after it has finished those of seed 0."""
    description = tmp_path / "toy.json"
    description.write_text(json.dumps(toy.to_dict()))
    code = f"""
import json, sys
from supertf.cli import main as cli
from supertf.experiments.sweep import catalogue
toy = catalogue.Experiment.from_dict(json.load(open({str(description)!r})))
catalogue.EXPERIMENTS["toy"] = toy
sys.exit(cli.main(["experiment", "run", "toy", "--jobs", "2", "--set", 'mishap=["sleep", 1]']))
"""
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives a command
    )
    folder = cache_dir() / "experiments" / "toy"
    deadline = time.monotonic() + 1800  # a hang; a busy machine is only slow
    while len(list(folder.glob("*.json"))) < 2:
        assert command.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    started = psutil.Process(command.pid).children()
    assert len(started) >= 2
    yield command, started
    for process in psutil.wait_procs(started, timeout=0)[1]:
        process.kill()
    command.kill()
    command.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals to a process group")
def test_ctrl_c_in_a_terminal_ends_every_process_without_a_traceback(sleeping_sweep):
    command, started = sleeping_sweep
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(timeout=1800) == 130
    said = command.stderr.read()
    last = "supertf experiment: toy: interrupted after 2 of 6 cells; run the same command again to go on\n"
    assert said.endswith(last) and "Traceback" not in said
    assert psutil.wait_procs(started, timeout=1800)[1] == []


def test_a_cell_that_waits_is_measured_again_and_replaces_nothing(toy, tmp_path):
    toy = dataclasses.replace(toy, measure="toy_lab.measures:waits", seeds=(0,))
    for _ in range(2):
        first = run(toy, folder=tmp_path, progress=False)
        assert measured() == [(1, 0), (2, 0)], "not taken from the cache"
    known = dataclasses.replace(first, cells=[{**cell, "result": {"a": 1}} for cell in first.cells])
    assert [cell["result"] for cell in first.with_waiting_from(known).cells] == [{"a": 1}] * 2
    assert known.with_waiting_from(first).cells == known.cells
    other = dataclasses.replace(known, cells=[{**cell, "seed": 5} for cell in known.cells])
    assert first.with_waiting_from(other).cells == first.cells
