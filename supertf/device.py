"""Where to compute and in which precision, chosen once and with the reason said."""

import contextlib
import math
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from supertf.errors import UserError

if TYPE_CHECKING:
    import torch

DTYPES = {
    "float32": "float32",
    "fp32": "float32",
    "float16": "float16",
    "fp16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
}
SMALL = 200_000  # numbers that an operation computes, up to which one thread serves as well as two


def pick_device_dtype(
    device: str | None = None, dtype: str | None = None
) -> tuple["torch.device", "torch.dtype", str]:
    """Choose the device, the dtype for autocast and training, and say why.

    Left open, the device is CUDA, then MPS, then the CPU; CUDA gets bfloat16 from compute capability 8.0 and
    float16 (which needs a gradient scaler) below; elsewhere float32.

    Args:
        device: "cpu", "cuda", "cuda:1" or "mps"; default `SUPERTF_DEVICE` of the environment.
        dtype: a key of `DTYPES`; default `SUPERTF_DTYPE` of the environment.

    Returns:
        The device, the dtype, and a line on how they were chosen.

    Raises:
        UserError: an unknown or absent device, an unknown dtype, or float16 on a CPU.
    """
    import torch

    device_name, device_source = _asked(device, "SUPERTF_DEVICE")
    dtype_name, dtype_source = _asked(dtype, "SUPERTF_DTYPE")
    if device_name is None:
        chosen, why = _best_device()
    else:
        chosen, why = _device(device_name), f"set by {device_source}"
    if dtype_name is None:
        chosen_dtype, why_dtype = _best_dtype(chosen)
    elif dtype_name in DTYPES:
        chosen_dtype, why_dtype = getattr(torch, DTYPES[dtype_name]), f"set by {dtype_source}"
    else:
        raise UserError(f"unknown dtype {dtype_name!r} ({dtype_source}); choose from {', '.join(DTYPES)}")
    if chosen.type == "cpu" and chosen_dtype == torch.float16:
        raise UserError(f"float16 ({dtype_source}) is not for CPUs; choose float32 or bfloat16")
    return chosen, chosen_dtype, f"{chosen} ({why}), {str(chosen_dtype).removeprefix('torch.')} ({why_dtype})"


def float64_device(device: "torch.device") -> "torch.device":
    """Where float64 is computed for tensors of a device: there, or on the CPU for Apple GPUs."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def in_float64(x: "torch.Tensor") -> "torch.Tensor":
    """x in float64, on its `float64_device`."""
    return x.to(float64_device(x.device)).double()


def check_finite(value: float, what: str) -> None:
    """`UserError` when a number that a model computed, called `what` in the message, is infinite or NaN."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is {value}: the weights are damaged, or their dtype is too narrow for this model (try "
            "float32)"
        )


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512 or AMX on x86, BF16 on ARM)."""
    import torch

    ask = getattr(torch.cpu, "get_capabilities", dict)  # a recent addition to torch
    capabilities: dict[str, object] = ask()
    return any(capabilities.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def processor() -> str:
    """The processor's model name, or the architecture where the system does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    )
    return found[1] if found else platform.processor() or platform.machine()


@contextlib.contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """PyTorch on one thread while the context lasts, where an operation computes at most `SMALL` numbers.

    Threads that share so little wait for each other most of the time: on two idle cores the second one saves
    a third of a step at best, beside another program it costs more than that (`supertf bench busy`).

    Args:
        numbers: that an operation computes, B * T * C of a batch, say.
    """
    import torch

    before = torch.get_num_threads()
    if numbers <= SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _asked(argument: str | None, variable: str) -> tuple[str | None, str]:
    """What was asked for, and by which means."""
    if argument is not None:
        return str(argument).removeprefix("torch."), "argument"
    return os.environ.get(variable) or None, variable


def _device(name: str) -> "torch.device":
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"unknown device {name!r}; choose cpu, cuda, cuda:N or mps")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' was asked for, but this machine has no Apple GPU; choose cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device {name!r} was asked for, but torch sees {count} CUDA devices; choose cpu")
    return device


def _best_device() -> tuple["torch.device", str]:
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return torch.device("mps"), "Apple GPU"
    return torch.device("cpu"), "no GPU found"


def _best_dtype(device: "torch.device") -> tuple["torch.dtype", str]:
    import torch

    if device.type == "cuda":
        # torch.cuda.is_bf16_supported() says yes on GPUs that only emulate it, such as Colab's free T4
        major, minor = torch.cuda.get_device_capability(device)
        if (major, minor) >= (8, 0):
            return torch.bfloat16, f"compute capability {major}.{minor} has bf16 units"
        return torch.float16, f"compute capability {major}.{minor} has no bf16 units; gradients are scaled"
    if device.type == "cpu" and cpu_has_bf16():
        return torch.float32, "exact; this CPU has bf16 units, so bf16 autocast is an option"
    return torch.float32, "exact"
