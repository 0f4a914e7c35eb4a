"""Speed of generation with parts of SmolLM2-135M left out, against the dense model in the same dtype.

Beside it what that costs: perplexity on held-out text, the bytes of weights that a token reads, and what
becomes of the super weight.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.analysis import perplexity
from supertf.bench.generate import PROMPT, TEXT, weight_bytes
from supertf.bench.timing import limits, machine, rounds, speedup
from supertf.compression import (
    PACKINGS,
    DynamicPruning,
    calibrate,
    dynamically_pruned,
    in_smaller,
    input_sizes,
    kind_costs,
    measure_variant,
    missing_kernel,
    most_spared,
    packed_weights,
    plan_dynamic,
    plan_structured,
    refit,
    rough_head,
    skipping,
    smaller,
    svd_softmax,
)
from supertf.data import Text, load_tokenizer, read_ids
from supertf.model import GPT, HEAD, Coordinate, generate, load_model, parse

LENGTH, WINDOWS = 512, 8
CALIBRATION = (4, 8, 64)  # windows for thresholds, for all other plans, and to fit weights to
WORST = 1.05  # times the dense perplexity: points beyond it are not among the best
SUPER = parse("11[507, 1229]")
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6)  # that are tried of each kind
BUDGET = 0.045  # nats per token that they may cost together: a little less than WORST
UNEVENLY = "inputs, more where they cost less"
HALF, HALF_DOWN = "half of the down projections' inputs", {"mlp.c_proj": 0.5}


@dataclass(frozen=True)
class Point:
    """One way to be faster.

    Attributes:
        model: to run.
        context: in which it runs.
        read: share of the weights' bytes that a token reads (packing not counted).
        lost: share of tokens for which the super weight is gone.
        super_weight: where in the model it is; None if it was cut out.
    """

    model: GPT
    context: AbstractContextManager[Any]
    read: float = 1.0
    lost: float = 0.0
    super_weight: Coordinate | None = SUPER


def run(tokens: int = 64, repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Tokens per second, batch 1, greedy, on the CPU; each point takes turns with the dense model.

    float32: pruning alone. "nothing dropped" is the control: the products that skip, with nothing to skip.
    bfloat16: kernels that come with PyTorch for packed weights, as far as this machine has them, alone and
    after channels were removed; dense is the model in bfloat16 without packing. `best` is the fastest point
    of either whose perplexity on the first 8 x 512 tokens of Python's documentation is at most 1.05 of the
    dense one's; what is pruned by activations is planned on, and what is fitted anew fitted to, text that
    follows in the same documentation.

    Args:
        tokens: new ones.
        repeats: rounds; a point's ratio to the dense model of its dtype is the median over them.

    Yields:
        The result so far, after every point.

    Raises:
        UserError: the model is not here.
    """
    dense, tokenizer = load_model("smollm2-135m"), load_tokenizer("smollm2-135m")
    held_out = WINDOWS * LENGTH + 1
    ids = torch.as_tensor(read_ids(TEXT, tokenizer, held_out + sum(CALIBRATION) * LENGTH)).long()
    text, calibration = Text(ids[:held_out], LENGTH), ids[held_out:]
    prompt = tokenizer.encode(PROMPT)
    result: dict[str, Any] = {
        "machine": {**machine("numba"), **limits()},
        "model": "smollm2-135m",
        "prompt": PROMPT,
        "decoding": "greedy, batch 1",
        "tokens": tokens,
        "repeats": repeats,
        "text": f"first {held_out} tokens of {TEXT}; the next {len(calibration)} to plan from",
    }
    without = {packing: why for packing in PACKINGS if (why := missing_kernel(packing)) is not None}
    if without:
        result["left_out"] = {f"packed {packing}": why for packing, why in without.items()}
    for dtype, points in (("float32", pruned_points), ("bfloat16", packed_points)):
        plain = copy.deepcopy(dense).to(getattr(torch, dtype))
        base = measure_variant(plain, plain, text).perplexity
        found: dict[str, Any] = {"dense": {"perplexity": base, "weight_bytes": weight_bytes(plain)}}
        result[dtype] = found
        yield result
        rates = []
        for name, point in tqdm(points(copy.deepcopy(plain), calibration), desc=dtype, leave=False):
            with point.context:
                rivals = {
                    "dense": lambda: generate(plain, prompt, tokens),  # noqa: B023, called in this round
                    "point": lambda: generate(point.model, prompt, tokens),  # noqa: B023
                }
                seconds = list(rounds(rivals, repeats, title=name))[-1]
                quality = measure_variant(plain, point.model, text, name=name).perplexity
                read = point.read * weight_bytes(point.model)
            if seconds.left_out:
                found.setdefault("left_out", {})[name] = "; ".join(seconds.left_out.values())
            else:
                rates.append(tokens / min(seconds["dense"]))
                found["dense"]["tokens_per_s"] = max(rates)
                found[name] = {
                    "tokens_per_s": tokens / min(seconds["point"]),
                    "ratio": speedup(seconds, "point", "dense"),
                    "perplexity": quality,
                    "perplexity_ratio": quality / base,
                    "weight_bytes": read,
                    "super_weight_lost": point.lost,
                }
            result[dtype] = {**found, "best": best(found)}
            yield result


def best(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fastest point whose perplexity is at most WORST times that of the dense model."""
    good = {name: one for name, one in found.items() if one.get("perplexity_ratio", WORST + 1) <= WORST}
    name = max(good, key=lambda name: good[name]["ratio"], default=None)
    return {"point": name, "ratio": good[name]["ratio"] if name else None}


def pruned_points(model: GPT, calibration: Tensor) -> Iterator[tuple[str, Point]]:
    """Pruning alone, in float32."""
    short, other, long = calibration.split([LENGTH * count for count in CALIBRATION])
    sizes = input_sizes(model, short, LENGTH)
    uneven = plan_unevenly(model, short, other, BUDGET)
    plans = {
        "nothing dropped": plan_dynamic(model, "inputs", 0.0, sizes),
        HALF: plan_dynamic(model, "inputs", HALF_DOWN, sizes),
        f"{HALF}, largest of each token": plan_dynamic(model, "top", HALF_DOWN),
        "half of the gates": plan_dynamic(model, "gate", 0.5, input_sizes(model, short, LENGTH, of="gate")),
        "half of all inputs": plan_dynamic(model, "inputs", 0.5, sizes),
        UNEVENLY: uneven,
    }
    for name, plan in plans.items():
        yield name, dropping(model, plan, other)
    yield "SVD-softmax", in_two_steps(Point(model, contextlib.nullcontext()), other)
    yield f"{UNEVENLY}, and SVD-softmax", in_two_steps(dropping(model, uneven, other), other)
    cut = {share: without_channels(model, other, share) for share in (0.05, 0.1, 0.2)}
    for share, point in cut.items():
        yield f"{share:.0%} of the channels", point

    fewer = cut[0.1]
    half = plan_dynamic(fewer.model, "inputs", HALF_DOWN, input_sizes(fewer.model, short, LENGTH))
    anew = refit(fewer.model, long, half, teacher=model, length=LENGTH)
    name = "10% of the channels, fitted anew"
    yield name, replace(fewer, model=anew)
    spent = perplexity(anew, other, LENGTH).loss - perplexity(model, other, LENGTH).loss
    uneven = plan_unevenly(anew, short, other, BUDGET - max(spent, 0.0))
    rest = dropping(anew, uneven, other, fewer.super_weight)
    yield f"{name}, {UNEVENLY}, and SVD-softmax", in_two_steps(rest, other)


def packed_points(model: GPT, calibration: Tensor) -> Iterator[tuple[str, Point]]:
    """Kernels for packed weights, in bfloat16, alone and on a model without some channels."""
    fewer = without_channels(model, calibration[: 8 * LENGTH], 0.05)
    here = [packing for packing in PACKINGS if missing_kernel(packing) is None]
    for packing in here:
        yield f"packed {packing}", Point(model, packed_weights(model, packing))
    for packing in (one for one in here if one != "bfloat16"):
        context = packed_weights(fewer.model, packing)
        yield f"5% of the channels, packed {packing}", replace(fewer, context=context)


@contextlib.contextmanager
def both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    """Two contexts as one."""
    with first, second:
        yield


def plan_unevenly(model: GPT, short: Tensor, text: Tensor, budget: float) -> DynamicPruning:
    """Inputs dropped, of each kind of matrix the share that spares most within a budget of nats per token.

    short: the text that gives the thresholds. text: the one that says what shares cost.
    """
    sizes = input_sizes(model, short, LENGTH)
    shares = most_spared(model, kind_costs(model, sizes, text, SHARES, length=LENGTH), max(budget, 0.0))
    return plan_dynamic(model, "inputs", shares, sizes)


def dropping(
    model: GPT, plan: DynamicPruning, text: Tensor, super_weight: Coordinate | None = SUPER
) -> Point:
    """Inputs dropped by a plan; what that spares is counted on a text."""
    watch = [] if super_weight is None else [super_weight]
    with dynamically_pruned(model, plan, watch) as found:
        perplexity(model, text[: LENGTH + 1], LENGTH)
    spared = sum(count * found.spared[name] for name, count in found.dropped.items()) / LENGTH
    # cut out, or else its input dropped; never where its matrix is not pruned
    dropped, seen = (1, 1) if super_weight is None else found.watched.get(super_weight, (0, 1))
    read, lost = 1 - 4 * spared / weight_bytes(model), dropped / seen
    return Point(model, skipping(model, plan), read, lost, super_weight)


def in_two_steps(point: Point, text: Tensor) -> Point:
    """The point with SVD-softmax besides, its directions from a text."""
    model = point.model
    head = rough_head(model, calibrate(model, text, LENGTH, products=True, matrices=[HEAD]))
    spared = (1 - head.work) * model.lm_head.weight.numel() * 4 / weight_bytes(model)
    return replace(point, context=both(point.context, svd_softmax(model, head)), read=point.read - spared)


def without_channels(model: GPT, text: Tensor, share: float) -> Point:
    """The model without some of its channels, as many left as kernels for packed weights like."""
    sums = calibrate(model, text, LENGTH, matrices=["mlp.c_proj"])
    plan = plan_structured(model, "channels", share, sums, watch=[SUPER], multiple=32, progress=False)
    super_weight = in_smaller(plan, SUPER)
    lost = float(super_weight is None)
    return Point(smaller(model, plan), contextlib.nullcontext(), lost=lost, super_weight=super_weight)
