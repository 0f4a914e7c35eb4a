"""Timing rivals fairly, what they were timed on, and the machine's own limits to compare with."""

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch
from tqdm.auto import tqdm

from supertf import __version__
from supertf.device import processor

LONG = 60.0  # seconds that all calls of a rival may take, however slow it is
SLOW = 10.0  # times the fastest rival's: what takes longer than both is left out


class Seconds(dict[str, list[float]]):
    """Seconds of every call by rival, equally many of each; `left_out` says why other rivals have none."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: [] for name in names})
        self.left_out: dict[str, str] = {}

    def leave_out(self, slow: Iterable[str], one_call: Mapping[str, float], calls: int) -> None:
        """Drop these rivals, of which so many calls take too long."""
        for name in slow:
            minutes, fastest = calls * one_call[name] / 60, min(one_call.values())
            self.left_out[name] = (
                f"about {one_call[name]:.3g} s a call, {one_call[name] / fastest:.0f} times the fastest "
                f"rival's, and {minutes:.0f} minutes for {calls}"
            )
            del self[name]


def too_slow(one_call: Mapping[str, float], calls: int) -> list[str]:
    """The rivals of which so many calls take longer than LONG, and than SLOW times the fastest one's."""
    most = max(LONG / calls, SLOW * min(one_call.values()))
    return [name for name, seconds in one_call.items() if seconds > most]


def interleave(rivals: Mapping[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> Seconds:
    """Seconds of each call after all `rounds`."""
    *_, seconds = rounds(rivals, repeats, warmup)
    return seconds


def rounds(
    rivals: Mapping[str, Callable[[], Any]],
    repeats: int,
    warmup: int = 1,
    title: str = "",
    expected: Mapping[str, float] | None = None,
) -> Iterator[Seconds]:
    """Time rivals in rounds in which every one runs once, so that noise hits all alike.

    Every second round goes backwards, so that none always runs after the same other. A rival whose rounds
    would take minutes by its first warm-up call is left out, after a second call, since a first one may
    compile something.

    Args:
        rivals: calls by name.
        repeats: rounds.
        warmup: calls of each before, which do not count.
        title: of a progress bar on stderr; none without a title.
        expected: seconds that a call of each is known to take; who would take minutes by that is not called
            at all.

    Yields:
        The seconds so far, after each round.
    """
    found, calls = Seconds(rivals), repeats + warmup
    if expected:
        found.leave_out(too_slow(expected, calls), expected, calls)
    with tqdm(total=len(found) * calls, disable=not title, leave=False, unit="call") as bar:

        def timed(name: str) -> float:
            bar.set_description(f"{title}: {name}")
            started = time.perf_counter()
            rivals[name]()
            seconds = time.perf_counter() - started
            bar.update()
            return seconds

        for number in range(warmup):
            first = {name: timed(name) for name in found}
            if number == 0:
                first |= {name: min(first[name], timed(name)) for name in too_slow(first, repeats)}
                found.leave_out(too_slow(first, repeats), first, repeats)
        for number in range(repeats):
            order = list(found)[:: -1 if number % 2 else 1]
            for name, seconds in {name: timed(name) for name in order}.items():
                found[name].append(seconds)
            yield found


def speedup(seconds: Mapping[str, list[float]], name: str, peer: str) -> float:
    """How many times faster `name` is than `peer`: the median over rounds of the ratio within a round."""
    return statistics.median(ratios(seconds, name, peer))


def ratios(seconds: Mapping[str, list[float]], name: str, peer: str) -> list[float]:
    """The seconds of `peer` over those of `name`, round by round."""
    return [theirs / ours for ours, theirs in zip(seconds[name], seconds[peer], strict=True)]


def spread(ratios: Sequence[float]) -> str:
    """The median of ratios over rounds and, in brackets, the least and the largest: no finer is known."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def matmul_gflops(
    dtype: torch.dtype, size: int | None = None, repeats: int = 5, device: str = "cpu"
) -> float:
    """Rate of a square matrix product in GFLOP/s, the best of `repeats`; a product is 2 size^3 operations.

    Of a smaller one where that size would take seconds, as it does in a dtype that the processor emulates.

    Args:
        dtype: of the product.
        size: default 2,048 on a processor, and 8,192 elsewhere.
        repeats: products.
        device: what computes.
    """
    size = size or (2048 if device == "cpu" else 8192)

    def rate(size: int, repeats: int) -> float:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, dtype=dtype, device=device)

        def product() -> None:
            torch.mm(a, b, out=out)
            if device != "cpu":
                torch.get_device_module(device).synchronize()

        seconds = interleave({"product": product}, repeats)["product"]
        return 2 * size**3 / min(seconds) / 1e9

    small = min(size, 128)
    while small < size and 2 * (2 * small) ** 3 / rate(small, 1) / 1e9 < 1:  # the next takes under a second
        small *= 2
    return rate(min(small, size), repeats)


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


def limits() -> dict[str, float]:
    """The rates that the processor and the memory reach at their best."""
    return {
        "matmul_gflops_fp32": matmul_gflops(torch.float32),
        "matmul_gflops_bf16": matmul_gflops(torch.bfloat16),
        "read_gbps": read_gbps(),
    }
