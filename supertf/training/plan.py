"""What a training needs before anything is allocated: memory by part, operations, hours."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from supertf.device import pick_device_dtype, processor
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig, computing_as, flops_per_token
from supertf.training.optimizer import make_optimizer
from supertf.training.settings import TrainSettings
from supertf.training.sliced_loss import SlicedHeadGPT

GB = 1e9
CONTEXT = 0.6 * GB  # of a GPU: the driver's context and libraries' workspaces
PARTS = {  # what torch's tracker calls them
    "weights": ("Parameter", "Buffer"),
    "gradients": ("Gradient",),
    "optimizer": ("Optstate",),
    "activations": ("Activation",),
    "temporary": ("Temp", "Other"),
}
# Layers, from which deeper models follow: all their blocks are alike. From fewer they do not follow: a
# shallow model may need most while its output head computes, a deep one while its last block does.
DEEP = (6, 12)


@dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        name: for people.
        memory: bytes.
        flops: operations a second that its matrix products reach at most, by precision.
        reserved: bytes that are gone before the first tensor: the driver's context, libraries' workspaces.
    """

    name: str
    memory: float
    flops: Mapping[str, float]
    reserved: float = 0.0

    @property
    def precision(self) -> str:
        """The narrowest that is fast here: bf16, else fp16, else fp32."""
        return next(name for name in ("bf16", "fp16", "fp32") if name in self.flops)


# The makers' data sheets: dense matrix products on tensor cores, SXM where there is a choice.
DEVICES = {
    "t4": Device("NVIDIA T4", 15.8 * GB, {"fp32": 8.1e12, "fp16": 65e12}, CONTEXT),
    "l4": Device("NVIDIA L4", 23.7 * GB, {"fp32": 30.3e12, "bf16": 121e12}, CONTEXT),
    "v100": Device("NVIDIA V100 16 GB", 16.9 * GB, {"fp32": 15.7e12, "fp16": 125e12}, CONTEXT),
    "a100": Device("NVIDIA A100 40 GB", 42.4 * GB, {"fp32": 19.5e12, "bf16": 312e12}, CONTEXT),
    "a100-80gb": Device("NVIDIA A100 80 GB", 85.1 * GB, {"fp32": 19.5e12, "bf16": 312e12}, CONTEXT),
    "h100": Device("NVIDIA H100", 85.0 * GB, {"fp32": 67e12, "bf16": 989e12}, CONTEXT),
    "h200": Device("NVIDIA H200", 150.0 * GB, {"fp32": 67e12, "bf16": 989e12}, CONTEXT),
}
PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
UTILISATION = 0.3  # of a device's matrix products, by a whole step: an assumption, not a measurement


def this_device(device: str | None = None, precision: str | None = None, flops: float = 1.0) -> Device:
    """What computes here, with its memory.

    Args:
        device: such as "cpu" or "cuda"; None: the best there is.
        precision: "fp32", "bf16" or "fp16"; None: what suits the device.
        flops: operations a second of its matrix products, where they matter.

    Raises:
        UserError: there is no such device, or it does not compute in that precision.
    """
    where, dtype, _ = pick_device_dtype(device, precision)
    rates = {PRECISIONS[dtype]: flops}
    if where.type == "cuda":
        found = torch.cuda.get_device_properties(where)
        return Device(found.name, float(found.total_memory), rates, CONTEXT)
    return Device(processor(), float(psutil.virtual_memory().total), rates)


@dataclass(frozen=True)
class Plan:
    """What a training needs on a device.

    Attributes:
        device: on which; `precision` in which.
        parameters: of the model.
        tokens_per_step: of all processes.
        steps: updates of the weights.
        flops: operations per token, see `flops_per_token`.
        memory: bytes by part at the moment when a process needs most.
        per_window: bytes that one more window in a micro-batch needs.
        batch_size: windows of a micro-batch.
        utilisation: share of the device's operations a second.
        processes: devices that share the work, each with all of the model.
    """

    device: Device
    precision: str
    parameters: int
    tokens_per_step: int
    steps: int
    flops: int
    memory: dict[str, float]
    per_window: float
    batch_size: int
    utilisation: float
    processes: int

    @property
    def needed(self) -> float:
        """Bytes, with what the device takes for itself."""
        return sum(self.memory.values()) + self.device.reserved

    @property
    def fits(self) -> bool:
        """Whether the device has as much memory."""
        return self.needed <= self.device.memory

    @property
    def largest_batch(self) -> int:
        """Windows of a micro-batch that fit; 0 where the model alone does not."""
        more = (self.device.memory - self.needed) / self.per_window
        return max(0, math.floor(self.batch_size + more))

    @property
    def tokens_per_second(self) -> float:
        """Of all processes."""
        return self.processes * self.utilisation * self.device.flops[self.precision] / self.flops

    @property
    def hours(self) -> float:
        """From the first step to the last, without validation."""
        return self.steps * self.tokens_per_step / self.tokens_per_second / 3600

    @property
    def device_hours(self) -> float:
        """What is paid for."""
        return self.hours * self.processes

    def advice(self) -> str:
        """Which setting to change, and by how much, where it does not fit."""
        need, have = self.needed / GB, self.device.memory / GB
        if self.fits:
            return f"it fits: {need:.1f} of {have:.1f} GB, and up to {self.largest_batch} windows would"
        short = f"it needs {need:.1f} GB, and {self.device.name} has {have:.1f}"
        if self.largest_batch:
            # equal parts, which together are the same step
            size = max(n for n in range(1, self.largest_batch + 1) if self.batch_size % n == 0)
            times = self.batch_size // size
            return f"{short}: take batch_size {size} and {times} times the grad_accumulation"
        return f"{short}: a single window does not fit; shorten the context, or take a smaller model"


def plan_training(
    config: GPTConfig,
    settings: TrainSettings,
    device: Device,
    *,
    utilisation: float = UTILISATION,
    processes: int = 1,
) -> Plan:
    """What a training needs, found by going through one step without any numbers.

    Args:
        config: of the decoder.
        settings: how it is trained; windows are of `settings.length`, else of the context.
        device: one of `DEVICES`, or another.
        utilisation: share of the device's operations a second that a whole step reaches.
        processes: devices, each with the whole model and as many windows.

    Raises:
        UserError: a share that is none, or a precision that the device does not have.
    """
    if not 0 < utilisation <= 1:
        raise UserError(f"utilisation is {utilisation}, expected a share above 0 and at most 1, such as 0.3")
    precision = settings.precision or device.precision
    if precision not in device.flops:
        raise UserError(f"{device.name} has no {precision}; choose from {', '.join(device.flops)}")
    length = settings.length or config.n_ctx
    narrow, accumulating = precision != "fp32", settings.grad_accumulation > 1
    other = max(1, settings.batch_size // 2) if settings.batch_size > 1 else 2
    memory, of_other = (
        step_memory(config, size, length, narrow, accumulating) for size in (settings.batch_size, other)
    )
    growth = sum(memory.values()) - sum(of_other.values())
    with torch.device("meta"):
        parameters = GPT(config).num_parameters()
    return Plan(
        device=device,
        precision=precision,
        parameters=parameters,
        tokens_per_step=settings.batch_size * settings.grad_accumulation * length * processes,
        steps=settings.steps,
        flops=flops_per_token(config, length),
        memory=memory,
        per_window=growth / (settings.batch_size - other),
        batch_size=settings.batch_size,
        utilisation=utilisation,
        processes=processes,
    )


def step_memory(
    config: GPTConfig, batch_size: int, length: int, narrow: bool = False, accumulating: bool = False
) -> dict[str, float]:
    """Bytes by part when a training step needs most, the activations those of the whole forward pass.

    Args:
        config: of the decoder.
        batch_size: windows of a micro-batch.
        length: tokens of each.
        narrow: in autocast's 16 bits.
        accumulating: beside the gradients of micro-batches before it.
    """

    def found(n_layer: int) -> list[dict[str, float]]:
        changed = dataclasses.replace(config, n_layer=n_layer)
        return phases(changed, batch_size, length, narrow, accumulating)

    if config.n_layer <= DEEP[1]:
        return most(found(config.n_layer))
    layers = (config.n_layer - DEEP[1]) / (DEEP[1] - DEEP[0])
    few, more = (found(n_layer) for n_layer in DEEP)
    return most(
        {part: other[part] + layers * (other[part] - one[part]) for part in PARTS}
        for one, other in zip(few, more, strict=True)
    )


def most(found: Iterable[dict[str, float]]) -> dict[str, float]:
    """The phase that needs most."""
    return max(found, key=lambda parts: sum(parts.values()))


def phases(
    config: GPTConfig, batch_size: int, length: int, narrow: bool, accumulating: bool
) -> list[dict[str, float]]:
    """Bytes by part when most is needed while gradients are computed, and while the weights are updated: a
    step is gone through on tensors without numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.distributed._tools.mem_tracker import MemTracker

    with FakeTensorMode():
        model = GPT(config).train()
        optimizer = make_optimizer(model, lr=1e-3, weight_decay=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # which makes its state
        if not accumulating:
            optimizer.zero_grad()
        idx = torch.zeros(batch_size, length, dtype=torch.long)
        trackers = [MemTracker(), MemTracker()]
        trackers[0].track_external(model, optimizer)
        with trackers[0], computing_as({GPT: SlicedHeadGPT}, [model]):
            with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
                loss = model(idx, idx).loss
            loss.backward()
        trackers[1].track_external(model, optimizer)
        with trackers[1]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return [by_part(next(iter(one.get_tracker_snapshot("peak").values()))) for one in trackers]


def by_part(snapshot: Mapping[Any, int]) -> dict[str, float]:
    """Bytes of each of our parts in a tracker's snapshot."""
    sizes = {str(getattr(name, "value", name)): size for name, size in snapshot.items()}
    return {part: float(sum(sizes.get(name, 0) for name in names)) for part, names in PARTS.items()}
