"""Checkpoints: whole or absent, checked when read, safe against kills, damage and full disks."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tiny import command_here, tiny_config, tiny_tokens

from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.model.checkpoint import locate, trained_with_bos
from supertf.model.gpt import GPT
from supertf.model.pretrained import load_model
from supertf.training import checkpoint
from supertf.training.optimizer import make_optimizer


def make(seed: int = 0):
    """A model and its optimizer after one step."""
    torch.manual_seed(seed)
    model = GPT(tiny_config(attention="ssmax"))
    optimizer = make_optimizer(model, 1e-2, 0.1)
    ids = torch.randint(0, 257, (2, 17))
    model(ids[:, :-1], ids[:, 1:]).loss.backward()
    optimizer.step()
    return model, optimizer


def save(run: Path, step: int, best: bool = False, seed: int = 0) -> Path:
    model, optimizer = make(seed)
    state = {"step": step, "settings": {"bos": True}}
    random = {"cpu": torch.get_rng_state()[None]}
    moments = checkpoint.optimizer_tensors(model, optimizer)
    return checkpoint.save(run, model, moments, random, state, load_tokenizer("bytes"), best)


def test_everything_comes_back(tmp_path):
    model, optimizer = make()
    save(tmp_path, 3)
    saved = checkpoint.load(tmp_path)
    assert saved.state["step"] == 3
    assert torch.equal(load_model(tmp_path).wte.weight, model.wte.weight)
    fresh, other = make(seed=1)
    fresh.load_state_dict({**saved.model, "lm_head.weight": saved.model["wte.weight"]})
    checkpoint.load_optimizer(fresh, other, saved.optimizer)
    for (name, a), b in zip(model.named_parameters(), fresh.parameters(), strict=True):
        assert torch.equal(a, b), name
        for key, value in optimizer.state[a].items():
            assert torch.equal(value, other.state[b][key]), (name, key)


def test_only_last_and_best_stay(tmp_path):
    for step, best in ((1, True), (2, False), (3, True), (4, False), (5, False)):
        save(tmp_path, step, best)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints.json",
        "step-00000003",
        "step-00000005",
    ]
    assert locate(tmp_path).name == "step-00000003"
    assert locate(tmp_path, prefer="last").name == "step-00000005"
    assert locate(tmp_path / "last").name == "step-00000005"
    assert trained_with_bos(tmp_path) is True
    assert trained_with_bos("smollm2-135m") is False


def test_there_is_nothing_but_safetensors_and_json(tmp_path):
    save(tmp_path, 1)
    files = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {".json", ".safetensors"}
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_leftovers_of_a_kill_are_cleared(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / "step-00000002").mkdir()  # renamed, but the pointer was never moved
    (tmp_path / "step-00000002" / "model.safetensors").write_bytes(b"old")
    assert checkpoint.load(tmp_path).state["step"] == 1
    save(tmp_path, 2)
    assert checkpoint.load(tmp_path).state["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints.json", "step-00000002"]


@pytest.fixture(scope="module")
def saved_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    save(run, 7)
    return run


def files_of(run: Path) -> list[Path]:
    return sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_one_clear_line(saved_run, tmp_path_factory, data):
    """A flipped bit, a cut, a missing or an exchanged file: `UserError`, whichever file it is."""
    run = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(saved_run, run)
    files = files_of(run)
    path = run / data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    damage = data.draw(st.sampled_from(["flip", "cut", "remove", "exchange"]))
    if damage == "flip":
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: data.draw(st.integers(0, len(content) - 2))])  # the last is a newline
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(
            (run / data.draw(st.sampled_from([f for f in files if run / f != path]))).read_bytes()
        )
    try:
        checkpoint.load(run)
    except UserError as error:
        assert "\n" not in str(error)
    else:  # harmless only where nothing that is read has changed: white space in the pointer
        assert path.name == "checkpoints.json"
        assert json.loads(bytes(path.read_bytes())) == json.loads((saved_run / path.name).read_text())
    shutil.rmtree(run)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_loading_a_model_notices_damage(saved_run, tmp_path, name):
    run = shutil.copytree(saved_run, tmp_path / "run")
    path = run / "step-00000007" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name} was changed"):
        load_model(run)


def test_a_renamed_checkpoint_is_missed_by_name(saved_run, tmp_path):
    run = shutil.copytree(saved_run, tmp_path / "run")
    (run / "step-00000007").rename(run / "step-7")
    with pytest.raises(UserError, match=r"points to .*step-00000007"):
        load_model(run)
    assert load_model(run / "step-7").config == tiny_config(attention="ssmax")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    """A limit on file size stands in for the full disk: the write itself fails, whoever runs the test."""
    resource = pytest.importorskip("resource")
    save(tmp_path, 1)
    before = {path: (tmp_path / path).read_bytes() for path in files_of(tmp_path)}
    size = (tmp_path / "step-00000001" / "model.safetensors").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(UserError, match=r"could not write .*unchanged"):
            save(tmp_path, 2, seed=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: (tmp_path / path).read_bytes() for path in files_of(tmp_path)} == before


# --- kills ---

STEPS = 60


def flags(tokens: Path, run: Path, *more: str) -> list[str]:
    """`supertf train` on the tiny model; dropout would need its random states."""
    command = ["train", "--train_data", str(tokens / "train.bin")]
    command += ["--test_data", str(tokens / "validation.bin"), "--output_dir", str(run), "--device", "cpu"]
    command += ["--max_len", "16", "--batch_size", "2", "--steps", str(STEPS), "--ssmax", "True"]
    return [*command, "--validation_step", "10", "--save_model", "2", *more]


def start(tokens: Path, run: Path, *more: str) -> subprocess.Popen:
    """The command as users start it."""
    command = [sys.executable, "-m", "supertf.cli.main", *flags(tokens, run, *more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def resume(tokens: Path, run: Path) -> BaseProcess:
    """The same from its checkpoint, in a process that needs no seconds to import PyTorch where it can be
    forked from one that has."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["supertf.training.loop", "torch._dynamo"])  # which optimizers import
    else:
        context = multiprocessing.get_context("spawn")
    arguments = (flags(tokens, run, "--resume"), errors_of(run))
    process = context.Process(target=command_here, args=arguments)
    process.start()
    return process


def errors_of(run: Path) -> Path:
    """Where a resumed run says what went wrong."""
    return run.with_suffix(".log")


def steps_done(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(run: Path, step: int, goes_on: Callable[[], bool], errors: Callable[[], str | bytes]) -> None:
    """Until the run has logged `step` steps; fails with its errors if it ends before."""
    deadline = time.monotonic() + 1800  # a hang; a busy machine is only slow
    while steps_done(run) < step:
        assert goes_on(), errors()
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.002)


def weights(run: Path) -> bytes:
    """The file of a finished run."""
    return (run / f"step-{STEPS:08d}" / "model.safetensors").read_bytes()


def test_a_run_killed_ten_times_ends_with_the_same_weights(tmp_path):
    """SIGKILL at random moments of one run; it must end as a run that was left in peace."""
    tiny_tokens(tmp_path)
    peace, run = tmp_path / "peace", tmp_path / "killed"
    process = start(tmp_path, peace)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors.decode()
    random = torch.Generator().manual_seed(1)
    steps = sorted(torch.randperm(STEPS - 2, generator=random)[:10].tolist())
    for step, delay in zip(steps, torch.rand(10, generator=random).tolist(), strict=True):
        resumed = resume(tmp_path, run)
        wait_for(run, step, resumed.is_alive, errors_of(run).read_text)
        time.sleep(delay * 0.02)  # somewhere within a step, often within a save
        resumed.kill()
        resumed.join()
    resumed = resume(tmp_path, run)
    resumed.join(timeout=1800)
    assert resumed.exitcode == 0, errors_of(run).read_text()
    assert weights(run) == weights(peace)


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent differently on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_leaves_cleanly(tmp_path, number):
    tiny_tokens(tmp_path)
    process = start(tmp_path, tmp_path / "run", "--steps", "100000", "--save_model", "0", "--json")
    wait_for(tmp_path / "run", 5, lambda: process.poll() is None, lambda: process.stderr.read())
    process.send_signal(number)
    output, errors = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert "Traceback" not in errors.decode()
    result = json.loads(output)
    assert result["interrupted"] is True
    assert checkpoint.load(tmp_path / "run").state["step"] == result["steps"] == steps_done(tmp_path / "run")
