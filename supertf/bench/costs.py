"""`supertf bench costs`: how seconds and memory of a training step grow with its sizes, and of a long prompt.

One size at a time is doubled. An exponent is the slope of a straight line through logarithms: 1 where twice
the size costs twice as much. Beside the seconds stand the operations, which are counted: where the two differ
the processor is busy with something else than products.
"""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from supertf.bench.plan import peak_bytes, profiled_bytes, step_of
from supertf.bench.timing import interleave, machine, speedup
from supertf.model import GPT, GPTConfig, flops_per_token, generate
from supertf.training import sliced_head

BASE: dict[str, Any] = {"vocab_size": 1024, "n_ctx": 256, "n_layer": 2, "n_head": 4, "n_embd": 128}
WINDOWS = 4
AXES: dict[str, tuple[int, ...]] = {
    "windows": (2, 4, 8, 16),
    "n_ctx": (256, 512, 1024, 2048),
    "n_layer": (2, 4, 8, 16),
    "vocab_size": (1024, 4096, 16384, 65536),
}
PROMPTS = (8192, 16384, 32768, 65536)  # tokens
HEAD: dict[str, Any] = {"vocab_size": 50257, "n_ctx": 1024, "n_layer": 1, "n_head": 6, "n_embd": 384}
HEAD_WINDOWS = 8
READER: dict[str, Any] = {
    "vocab_size": 257,
    "n_ctx": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_embd": 64,
    "position": "rope",
}


def run(repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Seconds, operations, bytes and their exponents, along each of `AXES`; then of `PROMPTS`, and of the
    loss of a large vocabulary.

    Args:
        repeats: rounds, in each of which every size takes a step.

    Yields:
        The result so far, after each axis.
    """
    result: dict[str, Any] = {"machine": machine(), "repeats": repeats}
    yield result
    for axis, sizes in AXES.items():
        shapes = {size: shape_of(axis, size) for size in sizes}
        steps = {str(size): step_of(config, windows) for size, (config, windows) in shapes.items()}
        seconds = interleave(steps, repeats)
        found = {
            "seconds": [float(np.median(seconds[name])) for name in seconds],
            "operations": [
                float(flops_per_token(config) * windows * config.n_ctx)
                for size, (config, windows) in shapes.items()
                if str(size) in seconds
            ],
            "bytes": [peak_bytes(steps[name], shapes[int(name)][0]) for name in seconds],
        }
        result[axis] = with_exponents([int(name) for name in seconds], found)
        yield result
    result["prompt"] = prompts()
    yield result
    result["head"] = head(repeats)
    yield result


def shape_of(axis: str, size: int) -> tuple[GPTConfig, int]:
    """A config and the number of windows, of which one is of that size."""
    if axis == "windows":
        return GPTConfig(**BASE), size
    return GPTConfig(**BASE | {axis: size}), WINDOWS


def with_exponents(sizes: Sequence[int], found: dict[str, list[float]]) -> dict[str, Any]:
    """What was found beside the sizes, with an exponent for each kind of number."""
    exponents = {f"{name}_exponent": exponent(sizes, values) for name, values in found.items()}
    return {"sizes": list(sizes), **found, **exponents}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log values against log sizes, by least squares; NaN for fewer than two."""
    if len(sizes) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def prompts() -> dict[str, Any]:
    """A small model with RoPE that reads long prompts: seconds, and bytes beside the KV cache."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**READER)).eval()
    found: dict[str, list[float]] = {"seconds": [], "cache_bytes": [], "other_bytes": []}
    for length in PROMPTS:
        prompt = torch.randint(READER["vocab_size"], (length,)).tolist()

        def read(prompt: list[int] = prompt) -> None:
            generate(model, prompt, 1)

        started = time.perf_counter()
        most = profiled_bytes(read)
        found["seconds"].append(time.perf_counter() - started)
        found["cache_bytes"].append(cache_bytes(model, length))
        found["other_bytes"].append(most - found["cache_bytes"][-1])
    return with_exponents(PROMPTS, found)


def cache_bytes(model: GPT, length: int) -> float:
    """Of the keys and values of so many tokens."""
    config = model.config
    return float(2 * 4 * config.n_layer * config.kv_heads * config.head_dim * length)


def head(repeats: int) -> dict[str, Any]:
    """The loss of GPT-2's vocabulary and its gradients, in slices as `train` takes it, and written out: how
    many times as fast and how much of the memory, and how far their gradients are apart."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(**HEAD))
    x = torch.randn(HEAD_WINDOWS, model.config.n_ctx, model.config.n_embd, requires_grad=True)
    targets = torch.randint(model.config.vocab_size, (HEAD_WINDOWS, model.config.n_ctx))

    def plain() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(model.loss(x, targets), [x, model.wte.weight])

    def sliced() -> tuple[torch.Tensor, ...]:
        with sliced_head(model):
            return plain()

    pairs = list(zip(sliced(), plain(), strict=True))
    apart = max((ours - theirs).abs().max().item() / theirs.abs().max().item() for ours, theirs in pairs)
    del pairs
    held = {"sliced": profiled_bytes(sliced), "plain": profiled_bytes(plain)}
    seconds = interleave({"sliced": sliced, "plain": plain}, repeats)
    return {
        "speedup": speedup(seconds, "sliced", "plain"),
        "share_of_bytes": held["sliced"] / held["plain"],
        "bytes": held,
        "gradients_apart": apart,
    }
