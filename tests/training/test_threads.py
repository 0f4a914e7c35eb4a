"""How many threads compute, and how they wait: set before torch loads, fewer for small work, given back."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import T, tiny_config, tiny_settings, tiny_tokens

from supertf.data.tasks import Task
from supertf.device import SMALL, threads_for
from supertf.errors import UserError
from supertf.training.loop import train
from supertf.training.task_training import TaskSettings, task_config, train_on_task

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def waiting_after_import(**environment: str) -> dict[str, str]:
    """The environment's words on waiting after `import supertf` in a fresh process, torch not loaded yet."""
    code = "import supertf, sys, os, json; print('torch' in sys.modules or json.dumps(dict(os.environ)))"
    bare = {name: value for name, value in os.environ.items() if name not in WAITING}
    printed = subprocess.run([sys.executable, "-c", code], env=bare | environment, capture_output=True).stdout
    return {name: value for name, value in json.loads(printed).items() if name in WAITING}


def test_threads_wait_actively_for_a_moment_only_unless_the_user_says_otherwise():
    assert waiting_after_import() == {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
    for name in WAITING:
        assert waiting_after_import(**{name: "7"}) == {name: "7"}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_has_one_thread_and_the_others_come_back_also_after_an_error(two_threads):
    with pytest.raises(UserError), threads_for(SMALL):
        assert torch.get_num_threads() == 1
        raise UserError("stop")
    assert torch.get_num_threads() == 2
    with threads_for(SMALL + 1):
        assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("width", "expected"), [(16, 1), (4096, 2)])
def test_training_counts_the_numbers_of_a_batch(tmp_path, two_threads, width, expected):
    seen = []
    settings = tiny_settings(steps=1, batch_size=SMALL // (T * 4096) + 1)
    config = tiny_config(n_embd=width, n_layer=1, n_inner=1)
    train(config, *tiny_tokens(tmp_path), settings, on_metrics=lambda _: seen.append(torch.get_num_threads()))
    assert seen == [expected] and torch.get_num_threads() == 2


def test_training_on_a_task_is_small_work(two_threads, monkeypatch):
    task, seen = Task("recall"), []
    draw = Task.batch
    monkeypatch.setattr(
        Task, "batch", lambda self, *args: seen.append(torch.get_num_threads()) or draw(self, *args)
    )
    train_on_task(task_config(task, 16), task, TaskSettings(steps=2, length=16))
    assert seen == [1, 1] and torch.get_num_threads() == 2


def test_numba_leaves_pytorch_its_number_of_threads_when_it_starts_its_own():
    code = """
import numba, torch
from supertf.compression.speed.kernels import limited_threads
with limited_threads():
    print(torch.get_num_threads(), numba.get_num_threads())
print(torch.get_num_threads())
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert printed.stdout.split() == ["1", "1", "1"]
