"""Two processes on one machine, as `torchrun` and `accelerate launch` start them, train as one does."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from tiny import tiny_config, tiny_settings, tiny_tokens

import supertf as package
from supertf.data.token_files import TokenFile
from supertf.errors import UserError
from supertf.model.checkpoint import is_run, locate
from supertf.model.pretrained import load_model
from supertf.training.loop import train as train_here
from supertf.training.settings import TrainSettings

pytestmark = pytest.mark.slow
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "supertf.cli"]
# which starts several processes on GPUs, by the same engine, and on a processor one
ACCELERATE = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "-m", "supertf.cli"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tiny_tokens(folder)
    return folder


def command(tokens: Path, run: Path, *words: str, way: list[str] | None = None) -> dict:
    """`supertf train` in processes of its own, alone unless there is a way to start more: how to run it."""
    line = "train --device cpu --max_len 16 --batch_size 2 --validation_step 3 --save_model 3 --seed 1 --json"
    files = ("--train_data", tokens / "train.bin", "--test_data", tokens / "validation.bin")
    whole = [sys.executable, *(way or ["-m", "supertf.cli"]), *line.split(), *files, "--output_dir", run]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(package.__file__).parents[1])}
    return {"args": [*map(str, whole), *words], "env": os.environ | environment, "text": True}


def train(*where: Path, words: str, way: list[str] | None = None) -> None:
    done = subprocess.run(
        **command(*where, *words.split(), way=way), capture_output=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr


def curve(run: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        name: [line[name] for line in lines if name in line]
        for name in ("loss", "grad_norm", "validation_loss")
    }


def assert_same(run: Path, other: Path) -> None:
    for name, values in curve(other).items():
        assert curve(run)[name] == pytest.approx(values, abs=1e-5), name
    ours, theirs = (load_model(one).state_dict() for one in (run, other))
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def one(tokens, tmp_path_factory):
    """What one process trains: six steps, and then on to nine."""
    folder = tmp_path_factory.mktemp("one")
    train(tokens, folder / "six", words="--grad_accumulation 4 --steps 6")
    shutil.copytree(folder / "six", folder / "nine")
    train(tokens, folder / "nine", words="--grad_accumulation 4 --steps 9 --resume")
    return folder


def test_accelerate_launches_it(tokens, one, tmp_path):
    train(tokens, tmp_path / "run", words="--grad_accumulation 4 --steps 6", way=ACCELERATE)
    assert_same(tmp_path / "run", one / "six")


@pytest.mark.parametrize("shard", ["", "--shard"], ids=["DDP", "FSDP2"])
def test_two_processes_have_the_loss_curve_of_one_and_their_checkpoint_is_one_for_any_number(
    tokens, one, tmp_path, shard
):
    train(tokens, tmp_path / "run", words=f"--grad_accumulation 2 --steps 6 {shard}", way=TORCHRUN)
    assert_same(tmp_path / "run", one / "six")
    train(tokens, tmp_path / "run", words="--grad_accumulation 4 --steps 9 --resume")
    assert_same(tmp_path / "run", one / "nine")


def test_two_processes_that_share_a_model_go_on_where_one_has_stopped(tokens, one, tmp_path):
    shutil.copytree(one / "six", tmp_path / "run")
    train(tokens, tmp_path / "run", words="--grad_accumulation 2 --steps 9 --resume --shard", way=TORCHRUN)
    assert_same(tmp_path / "run", one / "nine")


def test_a_killed_process_ends_the_job_in_one_clear_line_and_it_resumes(tokens, tmp_path):
    run, words = tmp_path / "run", ["--grad_accumulation", "1", "--save_model", "5", "--steps"]
    job = subprocess.Popen(
        **command(tokens, run, *words, "100000", way=TORCHRUN), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 1800
    while not is_run(run):
        assert job.poll() is None and time.monotonic() < deadline, job.stderr.read()
        time.sleep(0.05)
    [victim, *_] = psutil.Process(job.pid).children()
    victim.kill()
    _, errors = job.communicate(timeout=1800)
    assert job.returncode != 0
    assert "supertf train: another process of this training is gone; the checkpoints written so far" in errors
    step = json.loads((locate(run, prefer="last") / "state.json").read_text())["step"]
    train(tokens, run, words=f"--grad_accumulation 1 --steps {step + 2} --resume", way=TORCHRUN)
    assert len(curve(run)["loss"]) == step + 2


def test_samples_need_all_of_a_model_in_one_process():
    with pytest.raises(UserError, match="samples need all of the model in one process: with shard leave"):
        TrainSettings(shard=True, sample_every=10)


def test_who_watches_needs_all_of_a_model_in_one_process(tokens):
    files = tokens / "train.bin", tokens / "validation.bin"
    with pytest.raises(UserError, match="who watches a training needs all of the model in one process"):
        train_here(tiny_config(), *files, tiny_settings(shard=True), on_step=print)


def test_two_processes_train_by_a_recipe_on_text_that_one_of_them_prepares(tmp_path):
    words = "train --recipe lab --scale 0.01 --data library-docs:train --device cpu --json --output_dir"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(package.__file__).parents[1])}
    for run, way in (("one", ["-m", "supertf.cli"]), ("two", TORCHRUN)):
        line = [sys.executable, *way, *words.split(), str(tmp_path / run)]
        done = subprocess.run(
            line, env=environment, capture_output=True, text=True, timeout=1800, check=False
        )
        assert done.returncode == 0, done.stderr
    one, two = (curve(tmp_path / run)["loss"] for run in ("one", "two"))
    assert len(two) == -(-len(one) // 2), "each step reads the windows of both"
    assert two[-1] < two[0]
    hashes = [TokenFile(tmp_path / run / "data/train.bin").manifest["sha256"] for run in ("one", "two")]
    assert hashes[0] == hashes[1]
