"""Training: what cannot be trained is refused in one line, before anything is written."""

import math
import sys
from types import ModuleType

import pytest
import torch
from tiny import tiny_config, tiny_tokens
from tiny import tiny_settings as settings

from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.training.loop import train
from supertf.training.settings import TrainSettings
from supertf.training.task_training import TaskSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tiny_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (TrainSettings, {"steps": 0}, "steps is 0, expected at least 1"),
        (TrainSettings, {"batch_size": 0}, "batch_size is 0"),
        (TrainSettings, {"grad_accumulation": 0}, "grad_accumulation is 0"),
        (TrainSettings, {"lr": 0.0}, "lr is 0.0"),
        (TrainSettings, {"lr": math.nan}, "lr is nan"),
        (TrainSettings, {"clip": -1.0}, "clip is -1.0"),
        (TrainSettings, {"weight_decay": math.inf}, "weight_decay is inf"),
        (TrainSettings, {"warmup": -1}, "warmup is -1"),
        (TrainSettings, {"save_every": -1}, "save_every is -1"),
        (TrainSettings, {"seed": -1}, "seed is -1"),
        (TrainSettings, {"seed": 2**63}, "seed is"),
        (TaskSettings, {"steps": 0}, "steps is 0, expected at least 1"),
        (TaskSettings, {"length": (8, 0)}, r"length is \(8, 0\), expected at least 1"),
    ],
)
def test_settings_out_of_range_are_named(kind, change, message):
    with pytest.raises(UserError, match=message):
        kind(**change)


def test_a_device_whose_memory_is_full_is_one_clear_line(tokens, monkeypatch):
    def full(self, x, targets):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.89 GiB"
        )

    monkeypatch.setattr(GPT, "loss", full)
    with pytest.raises(UserError, match=r"^CUDA out of memory: use a smaller batch_size"):
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


def test_what_cannot_be_trained_is_refused_before_anything_is_written(tokens, tmp_path):
    with pytest.raises(UserError, match="vocabulary has 100 tokens"):
        train(tiny_config(vocab_size=100), *tokens, settings(), tmp_path / "run")
    with pytest.raises(UserError, match="fewer than"):
        train(tiny_config(n_ctx=100_000), *tokens, settings(), tmp_path / "run")
    with pytest.raises(UserError, match="pip install clearml"):
        train(tiny_config(), *tokens, settings(tracker="clearml"), tmp_path / "run")
    with pytest.raises(UserError, match="nothing to resume"):
        train(tiny_config(), *tokens, settings(), resume=True)
    with pytest.raises(UserError, match="make one with `supertf data`"):
        train(tiny_config(), tmp_path / "no.bin", tokens[1], settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
