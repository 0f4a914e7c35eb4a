"""What finding super weights costs: time beside the bare forward pass, memory where the model is on disk."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supertf.bench.timing import machine, rounds, speedup
from supertf.data import load_tokenizer, read_ids
from supertf.errors import UserError
from supertf.files import write_json
from supertf.model import GPT, load_model, show, write_tensors
from supertf.superweights import PROMPT, candidates, find_spikes

TEXT = "prose"
LENGTHS = (10, 128, 1024)  # tokens of the prompts
DTYPES = (torch.float32, torch.bfloat16)
PLANTED = (3, 1234, 4321)  # of the generated checkpoint
SHAPE = {  # the generated checkpoint's, a Llama's with layers of 134 MB
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 2048,
}


def run(repeats: int = 7, stream_gigabytes: int = 0) -> Iterator[dict[str, Any]]:
    """Seconds of `find_spikes` on SmolLM2-135M and of the forward pass alone, in turns; limit 1.05.

    The pass alone gives the last token's logits, which finding leaves out.

    Args:
        repeats: rounds.
        stream_gigabytes: also generate a Llama checkpoint of at least that size in bfloat16, with one weight
            planted, and search it from disk in a process of its own; limit 1.5 GB of memory for 4 GB.

    Yields:
        The result so far, after every length of prompt and precision.

    Raises:
        UserError: the model is not here.
    """
    result: dict[str, Any] = {
        "machine": machine("transformers", "accelerate", "safetensors"),
        "repeats": repeats,
    }
    for part in on_smollm2(repeats):
        yield result | part
    result |= part
    if stream_gigabytes:
        with tempfile.TemporaryDirectory(prefix="supertf-") as folder:
            result["stream"] = from_disk(Path(folder), stream_gigabytes)
        yield result


def on_smollm2(repeats: int) -> Iterator[dict[str, Any]]:
    """Part (a): the first search after loading, and find against the bare pass by prompt length."""
    model, tokenizer = load_model("smollm2-135m"), load_tokenizer("smollm2-135m")
    started = time.perf_counter()
    found = candidates(find_spikes(model, tokenizer.encode(PROMPT)))
    result: dict[str, Any] = {
        "model": "smollm2-135m",
        "first_find_seconds": time.perf_counter() - started,
        "found": [show(spike.coordinate) for spike in found],
    }
    yield result
    text = read_ids(TEXT, tokenizer, max(LENGTHS)).tolist()
    for dtype in DTYPES:
        model.to(dtype)
        name = str(dtype).removeprefix("torch.")
        result[name] = {}
        for length in LENGTHS:
            title = f"{name}, {length} tokens"
            result[name][f"{length} tokens"] = compare(model, text[:length], repeats, title)
            yield result


def compare(model: GPT, prompt: list[int], repeats: int, title: str = "") -> dict[str, Any]:
    """Find and the bare pass on one prompt: best seconds, and the median over rounds of find / bare."""
    idx = torch.tensor([prompt])

    @torch.inference_mode()
    def bare() -> Tensor | None:
        return model(idx, last_only=True).logits

    rivals = {"bare": bare, "find": lambda: find_spikes(model, prompt)}
    seconds = list(rounds(rivals, repeats, title=title))[-1]
    best = {f"{name}_seconds": min(times) for name, times in seconds.items()}
    if seconds.left_out:
        return {**best, "left_out": seconds.left_out}
    return {**best, "ratio": speedup(seconds, "bare", "find")}


def from_disk(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Part (b): a generated checkpoint is searched from its shards in a fresh process."""
    size = generate_checkpoint(folder, gigabytes)
    code = (
        "import sys; from supertf.bench.superweights import search_from_disk; search_from_disk(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the search from disk failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    found = json.loads(done.stdout)
    return {
        "checkpoint_bytes": size,
        "shards": len(list(folder.glob("*.safetensors"))),
        "planted": show(PLANTED),
        **found,
        "planted_found": found["found"] == [show(PLANTED)],
        "memory_per_checkpoint": found["peak_bytes"] / size,
    }


def search_from_disk(folder: str) -> None:
    """Print what a streamed search of a folder finds, its seconds, and this process's peak memory."""
    from supertf.model import load_hf_model

    started = time.perf_counter()
    model = load_hf_model(folder, stream=True)
    loaded, base = time.perf_counter(), peak_bytes()
    found = candidates(find_spikes(model, list(range(1, 11))))
    result = {
        "found": [show(spike.coordinate) for spike in found],
        "load_seconds": loaded - started,
        "find_seconds": time.perf_counter() - loaded,
        "peak_bytes_before": base,  # Python, torch and transformers
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(result))


def peak_bytes() -> int:
    """The most memory that this process has had resident, in bytes."""
    status = Path("/proc/self/status")
    # of Linux, whose ru_maxrss may be that of the process which started this one
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    try:
        import resource
    except ImportError as error:  # Windows
        raise UserError("peak memory can be read on Linux and macOS only") from error
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def generate_checkpoint(folder: Path, gigabytes: float) -> int:
    """Write a random Llama in bfloat16 of at least so many GB, one layer per shard; its bytes."""
    width, inner, vocab = (SHAPE[name] for name in ("hidden_size", "intermediate_size", "vocab_size"))
    per_layer = 2 * (4 * width * width + 3 * width * inner + 2 * width)
    layers = max(PLANTED[0] + 1, -int(-(gigabytes * 1e9 - 4 * vocab * width) // per_layer))
    torch.manual_seed(0)
    shards: dict[str, str] = {}
    size = 0
    for number, tensors in enumerate(shard_tensors(layers, width, inner, vocab)):
        file = f"model-{number + 1:05d}-of-{layers + 2:05d}.safetensors"
        write_tensors(folder / file, tensors)
        shards |= dict.fromkeys(tensors, file)
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": shards}
    )
    config = {**SHAPE, "num_hidden_layers": layers, "model_type": "llama", "torch_dtype": "bfloat16"}
    write_json(folder / "config.json", {**config, "architectures": ["LlamaForCausalLM"]})
    return size


def shard_tensors(layers: int, width: int, inner: int, vocab: int) -> Iterator[dict[str, Tensor]]:
    """The tensors of each shard: the embedding, the layers, the final norm and the head."""

    def matrix(out: int, into: int) -> Tensor:
        return torch.empty(out, into, dtype=torch.bfloat16).normal_(std=0.02)

    ones = torch.ones(width, dtype=torch.bfloat16)
    yield {"model.embed_tokens.weight": matrix(vocab, width)}
    for layer in range(layers):
        shapes = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
        shapes |= {"mlp.gate_proj": (inner, width), "mlp.up_proj": (inner, width)}
        shapes["mlp.down_proj"] = (width, inner)
        tensors = {f"{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        if layer == PLANTED[0]:  # a channel that fires on some tokens, and a weight that reads it
            row = torch.randn(width, dtype=torch.bfloat16) * 30 / width**0.5  # about 30 on a normed token
            for name in ("gate", "up"):
                tensors[f"mlp.{name}_proj.weight"][PLANTED[2]] = row
            tensors["mlp.down_proj.weight"][PLANTED[1], PLANTED[2]] = 20.0
        tensors |= {"input_layernorm.weight": ones, "post_attention_layernorm.weight": ones.clone()}
        yield {f"model.layers.{layer}.{name}": tensor for name, tensor in tensors.items()}
    yield {"model.norm.weight": ones, "lm_head.weight": matrix(vocab, width)}
