"""Timing rivals fairly, and the machine's own limits to compare with."""

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch


def interleave(rivals: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of each call, `repeats` rounds in which every rival runs once, so that noise hits all alike."""
    for _ in range(warmup):
        for call in rivals.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(repeats):
        for name, call in rivals.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def speedup(seconds: dict[str, list[float]], name: str, peer: str) -> float:
    """How many times faster `name` is than `peer`: the median over rounds of the ratio within a round."""
    ratios = [theirs / ours for ours, theirs in zip(seconds[name], seconds[peer], strict=True)]
    return statistics.median(ratios)


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


def machine() -> dict[str, Any]:
    """What the figures were measured on; on a busy machine (load above 1) they are worth little."""
    load = psutil.getloadavg()[0]
    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "matmul_gflops_fp32": matmul_gflops(torch.float32),
        "matmul_gflops_bf16": matmul_gflops(torch.bfloat16),
        "read_gbps": read_gbps(),
        "load_before": load,
    }
