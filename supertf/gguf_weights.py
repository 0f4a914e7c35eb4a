"""GGUF files of Llama-architecture models: weights, config, and SmolLM2's tokenizer."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.fetch import smollm2_path
from supertf.hf_weights import State, from_llama

if TYPE_CHECKING:
    import tiktoken

GGUF_NAMES = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "ln_1": "blk.{}.attn_norm.weight",
    "ln_2": "blk.{}.ffn_norm.weight",
    "q": "blk.{}.attn_q.weight",
    "k": "blk.{}.attn_k.weight",
    "v": "blk.{}.attn_v.weight",
    "o": "blk.{}.attn_output.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
}

# What gguf, numpy and torch raise on files with a flipped bit or a missing end.
READER_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, RuntimeError),
)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged file makes the reader raise into one `UserError`."""
    try:
        yield
    except UserError:
        raise
    except READER_ERRORS as error:
        raise UserError(f"{path} is not a readable GGUF file ({error}): fetch it again") from error


def read_gguf(path: Path) -> tuple[GPTConfig, State]:
    """Config and dequantised float32 weights of a Llama-architecture GGUF file."""
    with readable(path):
        return _read_gguf(path)


def _read_gguf(path: Path) -> tuple[GPTConfig, State]:
    import gguf

    reader = gguf.GGUFReader(path)

    def field(name: str, default: Any = None) -> Any:
        found = reader.get_field(name)
        if found is None and default is None:
            raise UserError(f"{path} has no field {name}: it is not a Llama model in GGUF form")
        return default if found is None else found.contents()

    if field("general.architecture") != "llama":
        raise UserError(
            f"{path} holds architecture {field('general.architecture')!r}; this decoder reads 'llama'"
        )
    shapes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    config = GPTConfig(
        vocab_size=shapes.get("token_embd.weight", (0,))[0],
        n_ctx=field("llama.context_length"),
        n_layer=field("llama.block_count"),
        n_head=field("llama.attention.head_count"),
        n_kv_head=field("llama.attention.head_count_kv"),
        n_embd=field("llama.embedding_length"),
        n_inner=field("llama.feed_forward_length"),
        position="rope",
        rope_base=float(field("llama.rope.freq_base", 10000.0)),
        norm="rmsnorm",
        norm_eps=float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32
        mlp="swiglu",
        bias=False,
        tie_head="output.weight" not in shapes,
    )
    state: State = {}
    for tensor in reader.tensors:
        weights = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        if re.fullmatch(r"blk\.\d+\.attn_[qk]\.weight", tensor.name):
            weights = pair_halves(weights, config.head_dim)
        state[tensor.name] = weights
    return config, from_llama(config, state, GGUF_NAMES)


def pair_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder a query or key matrix (H * D, C) from rotating neighbours (GGUF) to rotating halves."""
    rows, width = weight.shape
    if rows % head_dim:
        raise UserError(f"a query or key matrix has {rows} rows, which are no heads of {head_dim}")
    pairs = weight.view(rows // head_dim, head_dim // 2, 2, width)  # (H, D/2, 2, C)
    return pairs.transpose(1, 2).reshape(rows, width)  # (H * 2 * D/2, C)


def smollm2_tokenizer(path: Path | None = None) -> "tiktoken.Encoding":
    """SmolLM2's tokenizer as a tiktoken `Encoding`, from the vocabulary in its GGUF file.

    path: another file, of a model whose texts are split like SmolLM2's; `UserError` when they are not.
    """
    import gguf

    from supertf.tokenizer import bpe_encoding  # which imports this module

    path = path or smollm2_path()
    with readable(path):
        reader = gguf.GGUFReader(path)
        splits = reader.get_field("tokenizer.ggml.pre")
        if splits is None or splits.contents() != "smollm":
            raise UserError(f"{path} holds a tokenizer that does not split texts as SmolLM2's does")
        tokens, kinds, merges = (
            reader.get_field(f"tokenizer.ggml.{name}").contents()
            for name in ("tokens", "token_type", "merges")
        )
    control = 3  # GGUF's mark for special tokens
    vocab = {token: i for i, token in enumerate(tokens) if kinds[i] != control}
    special = {token: i for i, token in enumerate(tokens) if kinds[i] == control}
    # GPT-2's pattern, but every digit stands alone, also apart from the space before it
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
    pairs = [tuple(merge.split(" ")) for merge in merges]
    return bpe_encoding("smollm2-135m", vocab, pairs, pattern, special)
