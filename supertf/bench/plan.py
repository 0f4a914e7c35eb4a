"""`supertf bench plan`: what plans say of time and memory, against training steps on this processor.

One shape is timed to learn which share of the processor's matrix products a whole step reaches; the others
are planned with that share and timed in the same rounds.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from supertf.bench.timing import interleave, machine, matmul_gflops
from supertf.bench.train import our_step
from supertf.device import pick_device_dtype
from supertf.model import GPT, GPTConfig
from supertf.training import Device, Plan, TrainSettings, plan_training, this_device

BASE: dict[str, Any] = {"vocab_size": 4096, "n_ctx": 256, "n_layer": 4, "n_head": 4, "n_embd": 256}
SHAPES: dict[str, tuple[dict[str, Any], int]] = {  # changes, and windows of a step; the first teaches
    "4 layers of width 256": ({}, 8),
    "8 layers": ({"n_layer": 8}, 8),
    "width 384": ({"n_embd": 384, "n_head": 6}, 8),
    "windows of 512 tokens": ({"n_ctx": 512}, 4),
    "a vocabulary of 50,257": ({"vocab_size": 50257}, 4),
}


def run(repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Seconds and bytes of a step in float32, and how many times what was planned they are.

    Args:
        repeats: rounds, in each of which every shape takes a step.

    Yields:
        The result so far, after every shape.
    """
    here = this_machine("cpu", "fp32")
    configs = {name: (GPTConfig(**BASE | changes), windows) for name, (changes, windows) in SHAPES.items()}
    steps = {name: step_of(*shape) for name, shape in configs.items()}
    seconds = {name: statistics.median(times) for name, times in interleave(steps, repeats).items()}
    first, *_ = configs
    whole = planned(*configs[first], here, 1.0)
    reached = min(1.0, whole.tokens_per_step / whole.tokens_per_second / seconds[first])
    result: dict[str, Any] = {"machine": machine(), "repeats": repeats, "share_of_matmul_rate": reached}
    for name, (config, windows) in configs.items():
        if name not in seconds:  # left out: its steps would take minutes here
            continue
        plan = planned(config, windows, here, reached)
        gigabytes = peak_bytes(steps[name], config) / 1e9
        result[name] = {
            "seconds": seconds[name],
            "times_the_planned_seconds": seconds[name] * plan.tokens_per_second / plan.tokens_per_step,
            "gb": gigabytes,
            "times_the_planned_gb": gigabytes * 1e9 / sum(plan.memory.values()),
        }
        yield result


def this_machine(device: str | None = None, precision: str | None = None) -> Device:
    """What computes here, for plans: see `this_device`, with the rate of its matrix products measured."""
    where, dtype, _ = pick_device_dtype(device, precision)
    return this_device(device, precision, matmul_gflops(dtype, device=str(where)) * 1e9)


def planned(config: GPTConfig, windows: int, device: Device, utilisation: float) -> Plan:
    """The plan of one step."""
    settings = TrainSettings(steps=1, batch_size=windows, precision="fp32")
    return plan_training(config, settings, device, utilisation=utilisation)


def step_of(config: GPTConfig, windows: int) -> Callable[[], None]:
    """A training step of ours on random tokens."""
    rows = torch.randint(0, config.vocab_size, (windows, config.n_ctx + 1))
    return our_step(config, rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), autocast=False)


def peak_bytes(step: Callable[[], None], config: GPTConfig) -> float:
    """The most bytes that are allocated at once in a step: `profiled_bytes`, and before it the weights and
    the optimizer's two numbers for each."""
    with torch.device("meta"):
        parameters = GPT(config).num_parameters()
    return 3 * 4 * parameters + profiled_bytes(step)


def profiled_bytes(call: Callable[[], Any]) -> float:
    """The most bytes that a call holds at once, beyond those that were there before: what PyTorch's profiler
    counts."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as seen:
        call()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    now = most = 0
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return float(most)
