"""Speed of generation: SmolLM2-135M token by token, against transformers' `generate` on the same weights."""

import contextlib
from typing import Any

import torch

from supertf.bench import interleave, machine, speedup
from supertf.errors import UserError
from supertf.fetch import smollm2_path
from supertf.generation import generate
from supertf.model import GPT
from supertf.packed import packed_weights
from supertf.pretrained import load_model
from supertf.tokenizer import load_tokenizer

PROMPT = "The capital of France is"


def run(tokens: int = 64, repeats: int = 5) -> dict[str, Any]:
    """Tokens per second of both: batch 1, greedy, on the CPU, in float32, bfloat16 and 4-bit weights.

    In bfloat16 and 4 bits our weights are packed beforehand (`packed_weights`), which takes about a second.

    Each ratio is the median over rounds in which the rivals take turns. The bound is the rate at which
    memory delivers the weights once per token. Raises `UserError` without transformers or the model.
    """
    ours = load_model("smollm2-135m")
    peer = load_peer()
    prompt = load_tokenizer("smollm2-135m").encode(PROMPT)
    rivals = {
        "transformers": lambda: peer_generate(peer, prompt, tokens),
        "supertf": lambda: generate(ours, prompt, tokens),
    }
    result: dict[str, Any] = {"model": "smollm2-135m", "tokens": tokens, "repeats": repeats, **machine()}
    if generate(ours, prompt, 16) != peer_generate(peer, prompt, 16):
        raise AssertionError("the two implementations continue the prompt differently in float32")
    for weights in ("float32", "bfloat16", "int4"):
        dtype = torch.float32 if weights == "float32" else torch.bfloat16
        ours.to(dtype)
        peer.to(dtype)  # in the third round the rival stays at bfloat16
        with packed_weights(ours, weights) if dtype != torch.float32 else contextlib.nullcontext():
            seconds = interleave(rivals, repeats)
        best = {name: tokens / min(times) for name, times in seconds.items()}
        result |= {
            f"{weights}_supertf_tokens_per_s": best["supertf"],
            f"{weights}_transformers_{dtype}_tokens_per_s".replace("torch.", ""): best["transformers"],
            f"{weights}_ratio": speedup(seconds, "supertf", "transformers"),
        }
        if weights != "int4":
            bound = result["read_gbps"] * 1e9 / weight_bytes(ours)
            result[f"{weights}_fraction_of_bandwidth_bound"] = best["supertf"] / bound
    return result


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
    """Bytes of all matrices that one token's forward pass reads; of the embedding it reads a single row."""
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return sum(layer.weight.numel() * layer.weight.element_size() for layer in layers)
