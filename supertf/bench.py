"""Timing rivals fairly, what they were timed on, and the machine's own limits to compare with."""

import importlib.metadata
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from supertf import __version__


def interleave(rivals: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, `repeats` rounds in which every rival runs once, so that noise hits all alike.

    Every second round goes backwards, so that none always runs after the same other.
    """
    for _ in range(warmup):
        for call in rivals.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for i in range(repeats):
        for name, call in list(rivals.items())[:: -1 if i % 2 else 1]:
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def speedup(seconds: dict[str, list[float]], name: str, peer: str) -> float:
    """How many times faster `name` is than `peer`: the median over rounds of the ratio within a round."""
    return statistics.median(ratios(seconds, name, peer))


def ratios(seconds: dict[str, list[float]], name: str, peer: str) -> list[float]:
    """The seconds of `peer` over those of `name`, round by round."""
    return [theirs / ours for ours, theirs in zip(seconds[name], seconds[peer], strict=True)]


def matmul_gflops(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Rate of a square matrix product in GFLOP/s, the best of `repeats`; a product is 2 size^3 operations."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    out = torch.empty(size, size, dtype=dtype)
    seconds = interleave({"product": lambda: torch.mm(a, b, out=out)}, repeats)["product"]
    return 2 * size**3 / min(seconds) / 1e9


def read_gbps(megabytes: int = 512, repeats: int = 5) -> float:
    """Rate of reading memory in GB/s, the best of `repeats`: a sum over more than any cache holds."""
    data = torch.ones(megabytes * 1_000_000 // 4)
    seconds = interleave({"read": lambda: data.sum()}, repeats)["read"]
    return data.numel() * 4 / min(seconds) / 1e9


def machine(*packages: str) -> dict[str, Any]:
    """What figures were measured on; on a busy machine (load above 1) they are worth little.

    `packages` are the distributions, beside torch, whose versions belong to the figures.
    """
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "load_before": psutil.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            "supertf": __version__,
            **{name: importlib.metadata.version(name) for name in ("torch", *packages)},
        },
    }


def processor() -> str:
    """The processor's model name, or the architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    )
    return found[1] if found else platform.processor() or platform.machine()


def limits() -> dict[str, float]:
    """The rates that the processor and the memory reach at their best."""
    return {
        "matmul_gflops_fp32": matmul_gflops(torch.float32),
        "matmul_gflops_bf16": matmul_gflops(torch.bfloat16),
        "read_gbps": read_gbps(),
    }
