"""Plans: the memory that a step takes, as it is gone through without numbers, against real steps."""

import dataclasses

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker

from supertf.bench.plan import peak_bytes
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT
from supertf.training.optimizer import make_optimizer
from supertf.training.plan import DEVICES, GB, Device, plan_training, step_memory
from supertf.training.settings import TrainSettings
from supertf.training.sliced_loss import sliced_head

SHAPE = {"vocab_size": 4500, "n_ctx": 96, "n_layer": 5, "n_head": 4, "n_embd": 64, "norm": "rmsnorm"}
SMALL = Device("a small one", 0.2 * GB, {"fp32": 1e12, "bf16": 4e12})


def real_step(config: GPTConfig, batch_size: int, narrow: bool, accumulating: bool):
    """Returns a model, its optimizer with state, and a step."""
    model = GPT(config).train()
    optimizer = make_optimizer(model, 1e-3, 0.1)
    idx = torch.randint(config.vocab_size, (batch_size, config.n_ctx))

    def backward():
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow), sliced_head(model):
            loss = model(idx, idx).loss
        loss.backward()

    def update():
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    backward()
    update()
    if not accumulating:
        optimizer.zero_grad()
    return model, optimizer, backward, update


@pytest.mark.parametrize(
    ("changes", "batch_size", "narrow", "accumulating"),
    [
        ({}, 6, False, False),
        ({}, 6, True, True),
        ({"mlp": "swiglu", "n_inner": 160}, 6, True, False),
        ({"position": "alibi"}, 6, False, True),
        ({"attention": "ssmax_bias"}, 6, True, False),
        ({"vocab_size": 9000}, 1, True, True),  # most is needed while the head computes
        ({"n_layer": 15, "n_embd": 32}, 2, False, False),
    ],
)
def test_a_step_needs_what_was_planned(changes, batch_size, narrow, accumulating, one_thread):
    config = GPTConfig(**SHAPE | changes)
    model, optimizer, backward, update = real_step(config, batch_size, narrow, accumulating)
    most = 0
    for phase in (backward, update):
        tracker = MemTracker()
        tracker.track_external(model, optimizer)
        with tracker:
            phase()
        [found] = tracker.get_tracker_snapshot("peak").values()
        most = max(most, sum(size for name, size in found.items() if "Total" not in str(name)))
    planned = sum(step_memory(config, batch_size, config.n_ctx, narrow, accumulating).values())
    assert planned == pytest.approx(most, rel=0.1)


def test_what_is_planned_is_what_the_allocator_gives(one_thread):
    """PyTorch's profiler counts every allocation, and knows nothing of parts."""
    config = GPTConfig(**SHAPE)
    *_, backward, update = real_step(config, 16, False, False)

    def step():
        backward()
        update()

    planned = sum(step_memory(config, 16, config.n_ctx).values())
    assert planned == pytest.approx(peak_bytes(step, config), rel=0.1)


def test_a_plan_says_what_fits_and_which_setting_to_change_by_how_much():
    config = GPTConfig(**SHAPE)
    settings = TrainSettings(steps=1000, batch_size=64, precision="fp32")
    whole = plan_training(config, settings, SMALL)
    assert not whole.fits and "take batch_size" in whole.advice()
    assert (
        "take batch_size 8 and 8 times the grad_accumulation"
        in dataclasses.replace(
            whole,
            per_window=(whole.needed - SMALL.memory) / 50,  # 14 windows fit, of which 64 are no multiple
        ).advice()
    )
    smaller = dataclasses.replace(settings, batch_size=whole.largest_batch)
    assert plan_training(config, smaller, SMALL).fits
    larger = dataclasses.replace(settings, batch_size=whole.largest_batch + 2)
    assert not plan_training(config, larger, SMALL).fits
    tiny = dataclasses.replace(SMALL, memory=0.01 * GB)
    assert "a single window does not fit" in plan_training(config, settings, tiny).advice()


def test_hours_follow_from_operations_and_are_shared_by_processes():
    config, settings = GPTConfig(**SHAPE), TrainSettings(steps=1000, batch_size=4, precision="bf16")
    one, two = (plan_training(config, settings, SMALL, utilisation=0.5, processes=n) for n in (1, 2))
    assert one.tokens_per_second == pytest.approx(0.5 * 4e12 / one.flops)
    assert one.hours == pytest.approx(1000 * 4 * 96 / one.tokens_per_second / 3600)
    assert two.tokens_per_step == 2 * one.tokens_per_step and two.hours == pytest.approx(one.hours)
    assert two.device_hours == pytest.approx(2 * one.hours)


def test_a_mistake_is_one_line():
    settings = TrainSettings(precision="bf16")
    with pytest.raises(UserError, match="NVIDIA T4 has no bf16; choose from fp32, fp16"):
        plan_training(GPTConfig(**SHAPE), settings, DEVICES["t4"])
    with pytest.raises(UserError, match="utilisation is 30, expected a share above 0 and at most 1"):
        plan_training(GPTConfig(**SHAPE), TrainSettings(), DEVICES["t4"], utilisation=30)
