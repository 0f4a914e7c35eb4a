"""Speed of generation: SmolLM2-135M token by token, against transformers' `generate` on the same weights."""

import contextlib
import copy
import functools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from supertf.analysis import perplexity
from supertf.bench.timing import Seconds, interleave, limits, machine, rounds, speedup
from supertf.compression import PACKINGS, Packed, missing_kernel, packed_weights
from supertf.data import load_tokenizer, read_ids, smollm2_path
from supertf.errors import UserError
from supertf.model import GPT, generate, linear_one_row, load_model

PROMPT = "The capital of France is"
TEXT = "prose"  # its first tokens show what fewer bits cost in quality
TEXT_TOKENS = 1024


def run(tokens: int = 64, repeats: int = 5) -> Iterator[dict[str, Any]]:
    """Tokens per second of both: batch 1, greedy, on the CPU; in float32, bfloat16, 8-bit and 4-bit weights.

    In the last three our weights are packed beforehand (`packed_weights`), which takes about a second;
    "plain" is our model in bfloat16 without that. A packing without a kernel on this machine is left out.
    `loss`, nats per token on the first tokens of Python's documentation, and its `perplexity` show what
    fewer bits cost. (The model's file stores most of its weights in 4 bits already: others can lose more
    from int4.) The bound is the rate at which memory delivers the weights (`weight_bytes`) once per token.

    Args:
        tokens: new ones.
        repeats: rounds in which the rivals take turns; each ratio is the median over them.

    Yields:
        The result so far, after every round.

    Raises:
        UserError: transformers or the model is not here.
    """
    ours = load_model("smollm2-135m")
    peer = load_peer()
    tokenizer = load_tokenizer("smollm2-135m")
    prompt = tokenizer.encode(PROMPT)
    text = torch.from_numpy(read_ids(TEXT, tokenizer, TEXT_TOKENS))
    rates = limits()
    rivals = {
        "transformers": lambda: peer_generate(peer, prompt, tokens),
        "supertf": lambda: generate(ours, prompt, tokens),
    }
    result: dict[str, Any] = {
        "machine": {**machine("transformers", "gguf"), **rates},
        "model": "smollm2-135m",
        "prompt": PROMPT,
        "decoding": "greedy, batch 1",
        "tokens": tokens,
        "repeats": repeats,
        "text": f"first {len(text)} tokens of {TEXT}",
        "one_row_product": one_row_product(ours, repeats),
    }
    if generate(ours, prompt, 16) != peer_generate(peer, prompt, 16):
        raise AssertionError("the two implementations continue the prompt differently in float32")
    yield result
    for weights in ("float32", *PACKINGS):
        dtype = torch.float32 if weights == "float32" else torch.bfloat16
        if weights in PACKINGS and (why := missing_kernel(weights)) is not None:
            result.setdefault("left_out", {})[weights] = why
            continue
        ours.to(dtype)
        peer.to(dtype)  # for fewer bits the rival stays at bfloat16
        if weights != "float32" and "plain" not in rivals:
            rivals["plain"] = functools.partial(generate, copy.deepcopy(ours), prompt, tokens)
        with packed_weights(ours, weights) if weights in PACKINGS else contextlib.nullcontext():
            read, quality = weight_bytes(ours), perplexity(ours, text, length=512)
            for seconds in rounds(rivals, repeats, title=weights):
                result[weights] = {
                    **figures(seconds, tokens),
                    "transformers_dtype": str(dtype).removeprefix("torch."),
                    "perplexity": quality.perplexity,
                    "loss": quality.loss,
                    "weight_bytes": read,
                }
                if "supertf" in seconds:
                    bound = rates["read_gbps"] * 1e9 / read
                    result[weights]["fraction_of_bandwidth_bound"] = (
                        result[weights]["supertf_tokens_per_s"] / bound
                    )
                yield result


def figures(seconds: Seconds, tokens: int) -> dict[str, Any]:
    """Tokens per second, and ratios between those that were timed."""
    found: dict[str, Any] = {
        f"{name}_tokens_per_s": tokens / min(seconds[name])
        for name in ("supertf", "transformers")
        if name in seconds
    }
    for ratio, peer in (("ratio", "transformers"), ("ratio_to_plain", "plain")):
        if seconds.keys() >= {"supertf", peer}:
            found[ratio] = speedup(seconds, "supertf", peer)
    return {**found, "left_out": seconds.left_out} if seconds.left_out else found


def one_row_product(model: GPT, repeats: int) -> dict[str, float]:
    """GB of float32 weights a second that one row times each of the model's matrices in turn gets through,
    by `F.linear` and by `linear_one_row`; together the matrices are larger than any cache."""
    matrices = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    rows = [torch.randn(1, matrix.shape[1]) for matrix in matrices]

    def all_by(product: Callable[[Tensor, Tensor], Tensor]) -> None:
        with torch.inference_mode():
            for row, matrix in zip(rows, matrices, strict=True):
                product(row, matrix)

    products = {"F.linear": F.linear, "linear_one_row": linear_one_row}
    rivals = {name: functools.partial(all_by, product) for name, product in products.items()}
    seconds = interleave(rivals, repeats)
    rates = {name: weight_bytes(model) / statistics.median(times) / 1e9 for name, times in seconds.items()}
    ratio = speedup(seconds, "linear_one_row", "F.linear")
    return {**{f"{name}_gbps": rate for name, rate in rates.items()}, "ratio": ratio}


def load_peer() -> Any:
    """The same GGUF file as a transformers model in float32."""
    try:
        import transformers
    except ImportError as error:
        raise UserError("the benchmark's rival is not installed: `pip install transformers`") from error
    path = smollm2_path()
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=transformers.GgufConfig(dequantize=True)
    ).eval()


def peer_generate(peer: Any, prompt: list[int], tokens: int) -> list[int]:
    """Greedy continuation by transformers, never stopping early."""
    idx = torch.tensor([prompt])
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        out = peer.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=tokens, **settings)
    return out[0, len(prompt) :].tolist()


def weight_bytes(model: GPT) -> int:
    """Bytes of all matrices that one token's forward pass reads, packed or not; of the embedding it reads a
    single row."""
    total = 0
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear):
            packed = getattr(layer, "product", None)
            weight = layer.weight
            total += packed.bytes if isinstance(packed, Packed) else weight.numel() * weight.element_size()
    return total
