"""Training: what cannot be trained is refused in one line, before anything is written."""

import math
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tiny import tiny_config, tiny_tokens
from tiny import tiny_settings as settings

from supertf.data.tasks import Task
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.training.loop import train
from supertf.training.settings import TrainSettings
from supertf.training.task_training import TaskSettings, score, task_config

pytestmark = pytest.mark.usefixtures("one_thread")
TASK = Task(keys=16, values=4, queries=3)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tiny_tokens(tmp_path_factory.mktemp("tokens"))


def made(kind, **change):
    return lambda tokens, run: kind(**change)


def trained(changes=(), **change):
    return lambda tokens, run: train(tiny_config(**dict(changes)), *tokens, settings(**change), run)


def asked(length):
    model = GPT(task_config(TASK, 40, position="learned"))
    return lambda tokens, run: score(model, TASK, length)


REFUSED = [
    (made(TrainSettings, steps=0), "steps is 0, expected at least 1"),
    (made(TrainSettings, batch_size=0), "batch_size is 0"),
    (made(TrainSettings, grad_accumulation=0), "grad_accumulation is 0"),
    (made(TrainSettings, lr=0.0), "lr is 0.0"),
    (made(TrainSettings, lr=math.nan), "lr is nan"),
    (made(TrainSettings, clip=-1.0), "clip is -1.0"),
    (made(TrainSettings, weight_decay=math.inf), "weight_decay is inf"),
    (made(TrainSettings, warmup=-1), "warmup is -1"),
    (made(TrainSettings, save_every=-1), "save_every is -1"),
    (made(TrainSettings, seed=-1), "seed is -1"),
    (made(TrainSettings, seed=2**63), "seed is"),
    (made(TaskSettings, steps=0), "steps is 0, expected at least 1"),
    (made(TaskSettings, length=(8, 0)), r"length is \(8, 0\), expected at least 1"),
    # data, trackers and folders
    (trained({"vocab_size": 100}), "vocabulary has 100 tokens"),
    (trained({"n_ctx": 100_000}), "fewer than"),
    (trained(tracker="clearml"), "pip install clearml"),
    (lambda tokens, run: train(tiny_config(), *tokens, settings(), resume=True), "nothing to resume"),
    (
        lambda tokens, run: train(tiny_config(), run, tokens[1], settings(), run),
        "make one with `supertf data`",
    ),
    # tasks
    (asked(100), "learned positions for 43 tokens and was given 103"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_mistake_is_one_line_and_nothing_is_written(call, message, tokens, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        call(tokens, tmp_path / "run")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("gigabytes", "message"),
    [
        (1e-4, r"^CUDA out of memory: it needs .* GB, and .* has 0.0: a single window does not fit; shorten"),
        (3e-4, r"^CUDA out of memory: it needs .* GB, .*: take batch_size \d+ and \d+ times the grad_acc"),
        (64, r"^CUDA out of memory: the training needs 0.0 of the 64.0 GB .* other programs hold the rest"),
    ],
)
@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError])
def test_a_device_whose_memory_is_full_is_one_line_with_advice(tokens, monkeypatch, gigabytes, message, kind):
    allocator = "" if kind is torch.OutOfMemoryError else "[enforce fail] DefaultCPUAllocator: no memory"

    def full(self, x, targets):
        raise kind(f"CUDA out of memory. Tried to allocate 20.00 GiB. {allocator}")

    monkeypatch.setattr(GPT, "loss", full)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=gigabytes * 1e9))
    with pytest.raises(UserError, match=message) as caught:
        train(tiny_config(), *tokens, settings(batch_size=64))
    assert str(caught.value).endswith("checkpoints written so far are kept")


def test_other_errors_of_the_machine_are_not_taken_for_a_full_memory(tokens, monkeypatch):
    def broken(self, x, targets):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(GPT, "loss", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train(tiny_config(), *tokens, settings())


def test_a_tracker_that_does_not_start_is_one_clear_line(tokens, tmp_path, monkeypatch):
    """The tracker and its own exception are played here: the real one wants an account."""
    wandb = ModuleType("wandb")
    wandb.Error = type("Error", (Exception,), {})

    def init_trackers(self, *args, **options):
        raise wandb.Error("api_key not configured (no-tty)")

    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("supertf.training.loop.get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr("supertf.training.loop.Accelerator.init_trackers", init_trackers)
    with pytest.raises(
        UserError, match=r"wandb did not start \(Error: api_key not configured .*`wandb login`"
    ):
        train(tiny_config(), *tokens, settings(tracker="wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
