"""`supertf bench train`: a training step against transformers' GPT-2 of the same shape, and nanoGPT's."""

import contextlib
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from supertf.bench.timing import limits, machine, ratios, rounds, speedup
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig, flops_per_token, preset
from supertf.training import SLICE, make_optimizer, sliced_head

SHAPES = {  # a small vocabulary, and GPT-2's, whose output head is most of the work
    "vocabulary 2048": ({"vocab_size": 2048, "n_ctx": 256, "n_layer": 4, "n_head": 4, "n_embd": 256}, 16),
    "vocabulary 50257": ({"vocab_size": 50257, "n_ctx": 256, "n_layer": 6, "n_head": 6, "n_embd": 384}, 4),
}
PEER = "transformers GPT-2 fp32"
NANOGPT = "nanoGPT"
SEED = 0  # of the weights and the batch
PAIR_ROUNDS = 4  # softmax and SSMax, which differ by little, get so many times the rounds of the others


def run(repeats: int = 7, nanogpt: str | None = None) -> Iterator[dict[str, Any]]:
    """Tokens per second and ratios on this CPU for each of `SHAPES`.

    A step is forward, backward, clipping and AdamW on one fixed batch. The peer is transformers'
    GPT-2 as it comes (fused attention, `torch.optim.AdamW`); ours is the same structure (LayerNorm, GELU,
    learned positions, biases, a tied head), then with SSMax, and the lab preset (RMSNorm, RoPE). Where the
    vocabulary is large ours also runs with a plain head, its cross-entropy taken of all the logits.

    Args:
        repeats: rounds, in each of which every rival runs once.
        nanogpt: a copy of nanoGPT's `model.py`, which is run; None: without that peer.

    Yields:
        The result so far, after every round.

    Raises:
        UserError: transformers is not here, or that file is no such model.
    """
    rates = limits()
    result: dict[str, Any] = {
        "machine": {**machine("transformers"), **rates},
        "repeats": repeats,
        "seed": SEED,
    }
    yield result
    for name, (shape, batch_size) in SHAPES.items():
        for figures in measure(name, shape, batch_size, repeats, rates, nanogpt):
            result[name] = figures
            yield result


def measure(
    title: str,
    shape: dict[str, Any],
    batch_size: int,
    repeats: int,
    rates: dict[str, float],
    nanogpt: str | None = None,
) -> Iterator[dict[str, Any]]:
    """One shape, after every round: all rivals, their ratios, and the share of the matrix product's rate that
    they reach. A precision in which the products of a step alone would take minutes is left out.

    The cost of SSMax, a ratio of seconds, comes with its quartiles over rounds; where the vocabulary is
    small and attention weighs more, from further rounds of that pair alone.
    """
    torch.manual_seed(SEED)
    T = shape["n_ctx"]
    rows = torch.randint(0, shape["vocab_size"], (batch_size, T + 1))
    inputs, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    gpt2, ssmax = GPTConfig(**shape), GPTConfig(**shape, attention="ssmax")
    lab = preset("lab", **shape)
    rivals = {
        PEER: peer_step(shape, inputs, autocast=False),
        "transformers GPT-2 bf16": peer_step(shape, inputs, autocast=True),
        "softmax fp32": our_step(gpt2, inputs, targets, autocast=False),
        "softmax bf16": our_step(gpt2, inputs, targets, autocast=True),
        "ssmax fp32": our_step(ssmax, inputs, targets, autocast=False),
        "ssmax bf16": our_step(ssmax, inputs, targets, autocast=True),
        "lab preset fp32": our_step(lab, inputs, targets, autocast=False),
        "lab preset bf16": our_step(lab, inputs, targets, autocast=True),
    }
    if nanogpt is not None:
        for precision in ("fp32", "bf16"):
            rivals[f"{NANOGPT} {precision}"] = nanogpt_step(
                nanogpt, shape, inputs, targets, precision == "bf16"
            )
    large = shape["vocab_size"] > SLICE
    if large:
        rivals["plain head fp32"] = our_step(gpt2, inputs, targets, autocast=False, loss=plain_loss)
        rivals["plain head bf16"] = our_step(gpt2, inputs, targets, autocast=True, loss=plain_loss)
    work = flops_per_token(gpt2) * batch_size * T
    limit = {name: rates[f"matmul_gflops_{name.split()[-1]}"] * 1e9 for name in rivals}
    figures: dict[str, Any] = {
        "parameters": GPT(gpt2).num_parameters(),
        "batch_size": batch_size,
        "config": gpt2.to_dict(),
        "gflop_per_step": work / 1e9,
    }
    for seconds in rounds(
        rivals, repeats, title=title, expected={name: work / limit[name] for name in rivals}
    ):
        if seconds.left_out:
            figures["left_out"] = seconds.left_out
        for name, times in seconds.items():
            rate = work / statistics.median(times)
            figures[name] = {
                "tokens_per_second": batch_size * T / statistics.median(times),
                "speedup": speedup(seconds, name, PEER) if PEER in seconds else None,
                "gflops": rate / 1e9,
                "share_of_matmul_rate": rate / limit[name],
            }
        for precision in ("fp32", "bf16"):
            ours, theirs = f"softmax {precision}", f"{NANOGPT} {precision}"
            if seconds.keys() >= {ours, theirs}:
                figures[f"times_nanogpt_{precision}"] = speedup(seconds, ours, theirs)
            names = [f"{name} {precision}" for name in ("softmax", "plain head", "ssmax")]
            if seconds.keys() >= set(names):
                figures[f"lean_head_speedup_{precision}"] = speedup(seconds, *names[:2])
                figures[f"ssmax_cost_{precision}"] = cost(seconds, precision)
        yield figures
    for precision in ("fp32", "bf16"):
        pair = [f"softmax {precision}", f"ssmax {precision}"]
        if not large and seconds.keys() >= set(pair):
            again = {name: rivals[name] for name in pair}
            for of_pair in rounds(again, PAIR_ROUNDS * repeats, title=title):
                figures[f"ssmax_cost_{precision}"] = cost(of_pair, precision)
                yield figures


def cost(seconds: Mapping[str, list[float]], precision: str) -> dict[str, float]:
    """SSMax's seconds over softmax's: median and quartiles over rounds."""
    costs = ratios(seconds, f"softmax {precision}", f"ssmax {precision}")
    quartiles = np.quantile(costs, [0.5, 0.25, 0.75]).tolist()
    names = ("median", "lower_quartile", "upper_quartile")
    return {**dict(zip(names, quartiles, strict=True)), "rounds": len(costs)}


def plain_loss(model: GPT, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the written-out logits, as `GPT` and most training loops have it."""
    return model(inputs, targets).loss


def our_loss(model: GPT, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss as `train` computes it."""
    with sliced_head(model):
        return model(inputs, targets).loss


def our_step(
    config: GPTConfig,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    autocast: bool,
    loss: Callable[[GPT, torch.Tensor, torch.Tensor], torch.Tensor] = our_loss,
    compiled: bool = False,
) -> Callable[[], None]:
    """A training step of `GPT(config)`, where the tokens are."""
    model = GPT(config).to(inputs.device).train()
    if compiled:
        model.compile()
    optimizer = make_optimizer(model, lr=1e-4, weight_decay=0.1)
    return step(model, optimizer, lambda: loss(model, inputs, targets), autocast)


def peer_step(shape: dict[str, int], inputs: torch.Tensor, autocast: bool) -> Callable[[], None]:
    """A training step of transformers' GPT-2, without dropout as ours, where the tokens are."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        raise UserError("the peer of this benchmark is not installed: `pip install transformers`") from error
    config = GPT2Config(
        vocab_size=shape["vocab_size"],
        n_positions=shape["n_ctx"],
        n_embd=shape["n_embd"],
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    model: nn.Module = GPT2LMHeadModel(config).train()
    model.to(inputs.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    return step(model, optimizer, lambda: model(input_ids=inputs, labels=inputs).loss, autocast)


def nanogpt_step(
    path: str, shape: dict[str, int], inputs: torch.Tensor, targets: torch.Tensor, autocast: bool
) -> Callable[[], None]:
    """A training step of the model in a copy of nanoGPT's `model.py`, with its own optimizer."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path) if Path(path).is_file() else None
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; expected model.py of github.com/karpathy/nanoGPT")
    module = importlib.util.module_from_spec(spec)
    with contextlib.redirect_stdout(sys.stderr):  # it says how large it is
        try:
            spec.loader.exec_module(module)
            config = module.GPTConfig(
                block_size=shape["n_ctx"],
                dropout=0.0,
                **{name: shape[name] for name in ("vocab_size", "n_layer", "n_head", "n_embd")},
            )
            model: Any = module.GPT(config).to(inputs.device).train()
            optimizer = model.configure_optimizers(0.1, 1e-4, (0.9, 0.95), inputs.device.type)
        except (AttributeError, TypeError, SyntaxError) as error:
            raise UserError(f"{path} is not nanoGPT's model.py: {error}") from error
    return step(model, optimizer, lambda: model(inputs, targets)[1], autocast)


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], torch.Tensor],
    autocast: bool,
) -> Callable[[], None]:
    """Forward, backward, clipping and update, the same for everyone; autocast is to 16 bits."""
    device = next(model.parameters()).device.type
    dtype = (
        torch.float16
        if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        else torch.bfloat16
    )

    def once() -> None:
        with torch.autocast(device, dtype, enabled=autocast):
            value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return once
