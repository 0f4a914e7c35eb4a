"""Speed of generation with parts of SmolLM2-135M left out, against the dense model in the same dtype.

Beside it what that costs: perplexity on held-out text, the bytes of weights that a token reads, and what
becomes of the super weight.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.bench import interleave, limits, machine, speedup
from supertf.bench_generate import PROMPT, TEXT, weight_bytes
from supertf.calibration import calibrate
from supertf.cli_eval import read_ids
from supertf.dynamic_pruning import DynamicPruning, dynamically_pruned, plan_dynamic
from supertf.evaluate import perplexity
from supertf.generation import generate
from supertf.input_sizes import input_sizes
from supertf.matrices import HEAD
from supertf.model import GPT
from supertf.packed import packed_weights
from supertf.pretrained import load_model
from supertf.projections import parse
from supertf.share_search import kind_costs, most_spared
from supertf.skipping import skipping
from supertf.structured import plan_structured, smaller
from supertf.svd_softmax import rough_head, svd_softmax
from supertf.tokenizer import load_tokenizer

LENGTH, WINDOWS, CALIBRATION_WINDOWS = 512, 8, 16
WORST = 1.05  # times the dense perplexity: points beyond it are not among the best
SUPER = parse("11[507, 1229]")
EVENLY = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
SHARES = (0.2, 0.3, 0.4, 0.5, 0.6)  # that are tried of each kind
BUDGET = 0.045  # nats per token that they may cost together: a little less than WORST
UNEVENLY = "inputs, more where they cost less"
HALF_DOWN = {"mlp.c_proj": 0.5}


@dataclass(frozen=True)
class Point:
    """One way to be faster: its model, the context in which it runs, the share of the weights' bytes that a
    token reads in it (packing not counted), and the share of tokens for which the super weight is gone."""

    model: GPT
    context: AbstractContextManager[Any]
    read: float = 1.0
    lost: float = 0.0


def run(tokens: int = 64, repeats: int = 5) -> dict[str, Any]:
    """Tokens per second, batch 1, greedy, on the CPU; each point takes turns with the dense model of its
    dtype, and its ratio is the median over rounds.

    float32: pruning alone. "nothing dropped" is the control: the products that skip, with nothing to skip.
    bfloat16: kernels that come with PyTorch for packed weights, alone and after channels were removed; dense
    is the model in bfloat16 without packing. `best` is the fastest point of either whose perplexity on the
    first 8 x 512 tokens of Python's documentation is at most 1.05 of the dense one's; what is pruned by
    activations is planned on other text. Raises `UserError` without the model.
    """
    dense, tokenizer = load_model("smollm2-135m"), load_tokenizer("smollm2-135m")
    held_out = WINDOWS * LENGTH + 1
    ids = torch.as_tensor(read_ids(TEXT, tokenizer, held_out + CALIBRATION_WINDOWS * LENGTH)).long()
    text, calibration = ids[:held_out], ids[held_out:]
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
    for dtype, points in (("float32", pruned_points), ("bfloat16", packed_points)):
        plain = copy.deepcopy(dense).to(getattr(torch, dtype))
        base = perplexity(plain, text, LENGTH, batch_size=4).perplexity
        found: dict[str, Any] = {"dense": {"perplexity": base, "weight_bytes": weight_bytes(plain)}}
        rates = []
        for name, point in tqdm(points(copy.deepcopy(plain), calibration), desc=dtype, leave=False):
            with point.context:
                rivals = {
                    "dense": lambda: generate(plain, prompt, tokens),  # noqa: B023, called in this round
                    "point": lambda: generate(point.model, prompt, tokens),  # noqa: B023
                }
                seconds = interleave(rivals, repeats)
                quality = perplexity(point.model, text, LENGTH, batch_size=4).perplexity
                read = point.read * weight_bytes(point.model)
            rates.append(tokens / min(seconds["dense"]))
            found[name] = {
                "tokens_per_s": tokens / min(seconds["point"]),
                "ratio": speedup(seconds, "point", "dense"),
                "perplexity": quality,
                "perplexity_ratio": quality / base,
                "weight_bytes": read,
                "super_weight_lost": point.lost,
            }
        found["dense"]["tokens_per_s"] = max(rates)
        result[dtype] = {**found, "best": best(found)}
    return result


def best(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The fastest point whose perplexity is at most WORST times that of the dense model."""
    good = {name: one for name, one in found.items() if one.get("perplexity_ratio", WORST + 1) <= WORST}
    name = max(good, key=lambda name: good[name]["ratio"], default=None)
    return {"point": name, "ratio": good[name]["ratio"] if name else None}


def pruned_points(model: GPT, calibration: Tensor) -> Iterator[tuple[str, Point]]:
    """Pruning alone, in float32. Of the calibration text, the first four windows give the thresholds, and the
    next eight the shares by kind."""
    sizes = input_sizes(model, calibration[: 4 * LENGTH], LENGTH)
    head = rough_head(model, calibrate(model, calibration, LENGTH, hessians=True, kinds=[HEAD]))
    spared = (1 - head.work) * model.lm_head.weight.numel() * 4 / weight_bytes(model)
    costs = kind_costs(model, sizes, calibration[4 * LENGTH : 12 * LENGTH + 1], SHARES)
    shares = {
        "nothing dropped": dict.fromkeys(EVENLY, 0.0),
        "half of the down projections' inputs": HALF_DOWN,
        UNEVENLY: most_spared(model, costs, BUDGET),
        "half of all inputs": dict.fromkeys(EVENLY, 0.5),
    }
    plans = {name: plan_dynamic(model, "inputs", by_kind, sizes) for name, by_kind in shares.items()}
    plans["half of the down projections' inputs, largest of each token"] = plan_dynamic(
        model, "top", HALF_DOWN
    )
    gates = input_sizes(model, calibration[: 4 * LENGTH], LENGTH, "gate")
    plans["half of the gates"] = plan_dynamic(model, "gate", 0.5, gates)
    counted = {name: skipped(model, plan, calibration) for name, plan in plans.items()}
    for name, plan in plans.items():
        yield name, Point(model, skipping(model, plan), *counted[name])
    yield "SVD-softmax", Point(model, svd_softmax(model, head), 1 - spared)
    read, lost = counted[UNEVENLY]
    together = both(skipping(model, plans[UNEVENLY]), svd_softmax(model, head))
    yield f"{UNEVENLY}, and SVD-softmax", Point(model, together, read - spared, lost)
    for share in (0.05, 0.2):
        yield f"{share:.0%} of the channels", without_channels(model, calibration, share)


def packed_points(model: GPT, calibration: Tensor) -> Iterator[tuple[str, Point]]:
    """Kernels for packed weights, in bfloat16, alone and on a model without some channels."""
    fewer = without_channels(model, calibration, 0.05)
    for packing in ("bfloat16", "int8", "int4"):
        yield f"packed {packing}", Point(model, packed_weights(model, packing))
    for packing in ("int8", "int4"):
        context = packed_weights(fewer.model, packing)
        yield f"5% of the channels, packed {packing}", Point(fewer.model, context, lost=fewer.lost)


@contextlib.contextmanager
def both(first: AbstractContextManager[Any], second: AbstractContextManager[Any]) -> Iterator[None]:
    """Two contexts as one."""
    with first, second:
        yield


def without_channels(model: GPT, calibration: Tensor, share: float) -> Point:
    """The model without some of its channels, as many left as kernels for packed weights like."""
    sums = calibrate(model, calibration, LENGTH, kinds=["mlp.c_proj"])
    plan = plan_structured(model, "channels", share, sums, watch=[SUPER], multiple=32, progress=False)
    return Point(smaller(model, plan), contextlib.nullcontext(), lost=float(plan.fates[0].removed))


def skipped(model: GPT, plan: DynamicPruning, text: Tensor) -> tuple[float, float]:
    """The share of all weights that is read under a plan, and of tokens that go without the super weight."""
    with dynamically_pruned(model, plan, [SUPER]) as found:
        perplexity(model, text[: LENGTH + 1], LENGTH)
    spared = sum(count * found.spared[name] for name, count in found.dropped.items()) / LENGTH
    dropped, seen = found.watched[SUPER]
    return 1 - 4 * spared / weight_bytes(model), dropped / seen if seen else 0.0
