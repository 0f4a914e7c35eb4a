"""`supertf bench gpu`: everything that a GPU is to show, in ten minutes; on a processor a small rehearsal.

Parts are timed and can be skipped. What is found is yielded part by part, so that a machine that is taken
away leaves what was measured; a part that fails says why, and the next one begins.
"""

import contextlib
import copy
import dataclasses
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from supertf.analysis import attention_stats
from supertf.bench.generate import weight_bytes
from supertf.bench.timing import machine
from supertf.bench.train import our_loss, our_step, peer_step, plain_loss
from supertf.data import load_tokenizer, read_ids
from supertf.device import pick_device_dtype
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig, by_flex_attention, flops_per_token, generate, load_model
from supertf.superweights import PROMPT, ablation, candidates, find_spikes
from supertf.training import (
    DEVICES,
    Recipe,
    TrainSettings,
    plan_training,
    recipe,
    token_files,
    train,
)

SMALL = {"vocab_size": 512, "n_layer": 2, "n_head": 2, "n_embd": 32}  # of the rehearsal on a processor
POSITIONS = ("none", "learned", "sinusoidal", "rope", "alibi")
WARM, TIMED = 3, 10  # steps
TRAINED_SECONDS = 150.0  # of each of two trainings
LONGEST = 131_072  # tokens whose entropy is measured


@dataclass
class Setting:
    """Where and how large.

    Attributes:
        device: what computes.
        dtype: of autocast, the narrowest that is fast there.
        small: a rehearsal, in seconds and not minutes.
        ends: `time.monotonic()` when the time is up.
    """

    device: torch.device
    dtype: torch.dtype
    small: bool
    ends: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def config(self, **changes: Any) -> GPTConfig:
        """GPT-2 small's shape, or the rehearsal's."""
        shape = {"n_ctx": 64, **SMALL} if self.small else {"n_ctx": 1024}
        return GPTConfig(**{"position": "rope", "norm": "rmsnorm", "bias": False, **shape, **changes})

    def wait(self) -> None:
        """Until the device has done what it was asked."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    @property
    def narrow(self) -> bool:
        """Whether steps are computed in 16 bits."""
        return self.dtype != torch.float32


def run(
    device: str | None = None, minutes: float = 10.0, skip: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Each part's figures, or why it has none.

    Args:
        device: default the best there is; on "cpu" everything is small.
        minutes: after which no further part begins.
        skip: parts to leave out.

    Yields:
        The result so far, after every part.

    Raises:
        UserError: an unknown part.
    """
    if unknown := [name for name in skip if name not in PARTS]:
        raise UserError(f"there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    where, dtype, why = pick_device_dtype(device)
    setting = Setting(where, dtype, where.type == "cpu", time.monotonic() + 60 * minutes)
    result: dict[str, Any] = {"machine": machine("transformers") | {"device": why}, "minutes": minutes}
    yield result
    for name, part in PARTS.items():
        if name in skip:
            continue
        if setting.left <= 0:
            result[name] = {"left_out": "the time was up"}
            yield result
            continue
        started = time.monotonic()
        try:
            found = part(setting)
        except Exception as error:  # a part that fails takes no other with it
            found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        result[name] = {**found, "seconds": time.monotonic() - started}
        yield result
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()


def parity(setting: Setting) -> dict[str, Any]:
    """The largest difference of logits from the same model's on the processor in float32, in units of their
    spread, for each position code with softmax and SSMax, in each precision."""
    dtypes = [torch.float32, torch.bfloat16, *([torch.float16] if setting.device.type == "cuda" else [])]
    found: dict[str, Any] = {}
    idx = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(0))
    for attention in ("softmax", "ssmax"):
        for position in POSITIONS:
            torch.manual_seed(0)
            config = setting.config(attention=attention, position=position, n_layer=2)
            reference = GPT(config).eval()
            with torch.inference_mode():
                exact = reference(idx).logits
                there = copy.deepcopy(reference).to(setting.device)
                for dtype in dtypes:
                    with torch.autocast(setting.device.type, dtype, enabled=dtype != torch.float32):
                        logits = there(idx.to(setting.device)).logits.float().cpu()
                    off = ((logits - exact).abs().max() / exact.std()).item()
                    found[f"{attention} {position} {str(dtype).removeprefix('torch.')}"] = off
    return found


def tests(setting: Setting) -> dict[str, Any]:
    """The tests that need a GPU, where the repository is."""
    folder = Path(__file__).parents[2]
    if not (folder / "tests").is_dir():
        return {"left_out": "there is no folder of tests beside the package"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:nbval", "-m", "gpu", "tests"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=max(setting.left, 1), check=False
    )
    return {"exit_code": done.returncode, "said": done.stdout.strip().rpartition("\n")[2]}


def speed(setting: Setting) -> dict[str, Any]:
    """Tokens per second of a training step, its share of the device's matrix products, and the memory it
    takes beside what was planned: softmax and SSMax, short and long windows, compiled and not; and
    transformers' GPT-2 of the same shape."""
    lengths = (32, 64) if setting.small else (1024, 8192)
    batch = {length: max(1, lengths[-1] // length) * (1 if setting.small else 2) for length in lengths}
    found: dict[str, Any] = {}
    for length in lengths:
        for attention in ("softmax", "ssmax"):
            config = setting.config(attention=attention, n_ctx=length)
            name = f"{attention}, {length} tokens"
            found[name] = step_figures(setting, config, batch[length])
            if not setting.small and length == lengths[0]:
                found[f"{name}, compiled"] = step_figures(setting, config, batch[length], compiled=True)
        found[f"ssmax cost, {length} tokens"] = (
            found[f"softmax, {length} tokens"]["tokens_per_second"]
            / found[f"ssmax, {length} tokens"]["tokens_per_second"]
        )
        found[f"transformers GPT-2, {length} tokens"] = peer_figures(setting, length, batch[length])
    return found


def step_figures(
    setting: Setting, config: GPTConfig, batch_size: int, compiled: bool = False
) -> dict[str, Any]:
    """Of a training step of ours; compiled, with the plain loss, which the compiler fuses by itself."""
    torch.manual_seed(0)
    rows = torch.randint(0, config.vocab_size, (batch_size, config.n_ctx + 1), device=setting.device)
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    loss = plain_loss if compiled else our_loss
    step = our_step(config, inputs, targets, setting.narrow, loss, compiled)
    return timed_steps(setting, step, config, batch_size)


def peer_figures(setting: Setting, length: int, batch_size: int) -> dict[str, Any]:
    """Of a training step of transformers' GPT-2."""
    config = setting.config(n_ctx=length, position="learned", norm="layernorm", bias=True)
    rows = torch.randint(0, config.vocab_size, (batch_size, length), device=setting.device)
    return timed_steps(setting, peer_step(config.to_dict(), rows, setting.narrow), config, batch_size)


def timed_steps(
    setting: Setting, step: Callable[[], None], config: GPTConfig, batch_size: int, planned: bool = True
) -> dict[str, Any]:
    """Some steps to warm up and some timed; on a GPU also memory, beside what is `planned` if it is."""
    cuda = setting.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(WARM + (2 if setting.small else TIMED)):
        started = time.perf_counter()
        step()
        setting.wait()
        seconds.append(time.perf_counter() - started)
    rate = batch_size * config.n_ctx / statistics.median(seconds[WARM:])
    found: dict[str, Any] = {"tokens_per_second": rate}
    if cuda:
        found["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
        known = device_of(torch.cuda.get_device_name(setting.device))
        if known is not None and planned:
            device = DEVICES[known]
            found["mfu"] = rate * flops_per_token(config) / device.flops[device.precision]
            plan = plan_training(config, TrainSettings(batch_size=batch_size), device)
            found["planned_gb"] = sum(plan.memory.values()) / 1e9
    return found


def documents(setting: Setting) -> dict[str, Any]:
    """ALiBi on packed documents: tokens per second and memory of a loss with its gradients (on a processor
    without), with a mask and a bias of T x T and by FlexAttention."""
    length, each = (64, 16) if setting.small else (8192, 1024)
    torch.manual_seed(0)
    model = GPT(setting.config(position="alibi", n_ctx=length, n_layer=2)).to(setting.device)
    idx = torch.randint(0, model.config.vocab_size, (1, length), device=setting.device)
    segments = torch.arange(length, device=setting.device)[None] // each + 1
    cuda, found = setting.device.type == "cuda", {}

    def step() -> None:
        with torch.autocast(setting.device.type, setting.dtype, enabled=setting.narrow):
            loss = model(idx, idx, segments=segments).loss
        if cuda:
            loss.backward()

    for name, way in (("T x T", contextlib.nullcontext()), ("FlexAttention", by_flex_attention(model))):
        with way, torch.set_grad_enabled(cuda):
            found[name] = timed_steps(setting, step, model.config, 1, planned=False)
    return found


def device_of(name: str) -> str | None:
    """Which of `DEVICES` a GPU is, by the name that the driver gives it."""
    words = name.upper().replace("-", " ").split()
    return next((key for key in ("h200", "h100", "a100", "v100", "l4", "t4") if key.upper() in words), None)


def generation(setting: Setting) -> dict[str, Any]:
    """Tokens per second of SmolLM2-135M, one text at a time, beside what reading its weights once per token
    allows."""
    model = load_model("smollm2-135m").to(setting.device)
    dtype = torch.float32 if setting.small else torch.bfloat16
    model.to(dtype)
    prompt, new = load_tokenizer("smollm2-135m").encode(PROMPT), 4 if setting.small else 64
    generate(model, prompt, 2)
    setting.wait()
    started = time.perf_counter()
    generate(model, prompt, new)
    setting.wait()
    rate = new / (time.perf_counter() - started)
    return {"tokens_per_second": rate, "gb_per_second": rate * weight_bytes(model) / 1e9, "dtype": str(dtype)}


def entropy(setting: Setting) -> dict[str, Any]:
    """H / log n of the last queries of a long text in SmolLM2's shape, and the memory it takes."""
    model = load_model("smollm2-135m").to(setting.device)
    length = 512 if setting.small else LONGEST
    tokens = read_ids("prose", load_tokenizer("smollm2-135m"), length)
    ids = torch.from_numpy(tokens).repeat(length // len(tokens) + 1)[:length]
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stats = attention_stats(model, ids[None].to(setting.device), rows=range(length - 16, length))
    found = {"tokens": length, "mean": statistics.mean(one.normalized.mean().item() for one in stats)}
    if setting.device.type == "cuda":
        found["memory_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def training(setting: Setting) -> dict[str, Any]:
    """GPT-2 small on text that is here, softmax and then SSMax, for as many seconds each: losses by step."""
    found: dict[str, Any] = {}
    whole = recipe("gpt2-small", 1e-5 if setting.small else 1.0)
    seconds = 5.0 if setting.small else min(TRAINED_SECONDS, setting.left / 3)
    with tempfile.TemporaryDirectory() as folder:
        text = dataclasses.replace(whole, tokens=100_000 if setting.small else 20_000_000)
        files = token_files(text, folder, whole.offline, progress=False)
        for variant in ("softmax rope", "ssmax rope"):
            found[variant] = trained_for(seconds, whole, variant, files, setting)
    return found


def trained_for(
    seconds: float, whole: Recipe, variant: str, files: tuple[Any, Any], setting: Setting
) -> dict[str, Any]:
    """A training that is as long as the time allows, by how long its first steps take."""
    settings = dataclasses.replace(
        whole.settings,
        batch_size=2 if setting.small else whole.settings.batch_size,
        grad_accumulation=1,
        device=str(setting.device),
        validation_windows=4,
        validate_every=0,
        progress=False,
        warmup=None,
    )
    first = train(whole.of(variant), *files, dataclasses.replace(settings, steps=5))
    steps = max(10, int(5 * seconds / first.seconds))
    result = train(whole.of(variant), *files, dataclasses.replace(settings, steps=min(steps, 5000)))
    losses = [one["loss"] for one in result.metrics]
    every = max(1, len(losses) // 50)
    return {
        "steps": result.step,
        "seconds": result.seconds,
        "tokens_per_second": statistics.median(one["tokens_per_second"] for one in result.metrics),
        "validation_loss": result.best_loss,
        "losses": [statistics.mean(losses[i : i + every]) for i in range(0, len(losses), every)],
    }


def superweights(setting: Setting) -> dict[str, Any]:
    """Find SmolLM2's candidates and put the first on trial, as on a processor."""
    model, tokenizer = load_model("smollm2-135m").to(setting.device), load_tokenizer("smollm2-135m")
    found = candidates(find_spikes(model, tokenizer.encode(PROMPT)))
    ids = read_ids("library-docs:live", tokenizer, 65 if setting.small else 1025).tolist()
    proof = ablation.ablate(
        model, found[0].coordinate, ablation.text_loss(ids, length=256), controls=2, progress=False
    )
    return {
        "first": list(found[0].coordinate),
        "verdict": proof.verdict,
        "times_the_perplexity": proof.candidate.ratio,
    }


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "parity": parity,
    "superweights": superweights,
    "speed": speed,
    "documents": documents,
    "generation": generation,
    "entropy": entropy,
    "training": training,
    "tests": tests,
}
