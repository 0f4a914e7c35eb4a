"""GGUF files of Llama-architecture models: weights, config, and SmolLM2's tokenizer."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.gguf_header import Header, read_header, readable
from supertf.model.hf_weights import State, from_llama

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


def read_gguf(path: Path) -> tuple[GPTConfig, State]:
    """Config and dequantised float32 weights of a Llama-architecture GGUF file.

    `UserError` before any weight is expanded when the file asks for something that this decoder lacks.
    """
    import gguf

    header = read_header(path)
    state: State = {}
    with readable(path):
        config = llama_config(header)
        for tensor in header.tensors:
            weights = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            if re.fullmatch(r"blk\.\d+\.attn_[qk]\.weight", tensor.name):
                weights = pair_halves(weights, config.head_dim)
            state[tensor.name] = weights
        return config, from_llama(config, state, GGUF_NAMES)


def llama_config(header: Header) -> GPTConfig:
    """Our config for a Llama's GGUF file; `UserError` naming a field or tensor that this decoder lacks."""
    if header.architecture != "llama":
        raise UserError(
            f"{header.path} holds architecture {header.architecture!r}; this decoder reads 'llama'"
        )
    field, shapes = header.field, header.shapes
    config = GPTConfig(
        vocab_size=shapes.get("token_embd.weight", (0,))[0],
        n_ctx=field("context_length"),
        n_layer=field("block_count"),
        n_head=field("attention.head_count"),
        n_kv_head=field("attention.head_count_kv", field("attention.head_count")),
        n_embd=field("embedding_length"),
        n_inner=field("feed_forward_length"),
        position="rope",
        rope_base=float(field("rope.freq_base", 10000.0)),
        norm="rmsnorm",
        norm_eps=float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32
        mlp="swiglu",
        bias=False,
        tie_head="output.weight" not in shapes,
    )
    header.check(
        {
            "vocab_size": config.vocab_size,
            "block_count": config.n_layer,
            "embedding_length": config.n_embd,
            "feed_forward_length": config.n_inner,
            "attention.head_count": config.n_head,
            "attention.head_count_kv": config.n_kv_head,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": config.norm_eps,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope_base,
        }
    )
    layers = {
        name.format(layer)
        for layer in range(min(config.n_layer, len(shapes)))
        for name in GGUF_NAMES.values()
    }
    if surplus := shapes.keys() - layers:
        raise UserError(f"{header.path} has a tensor {min(surplus)}, which is not part of this decoder")
    return config


def pair_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder a query or key matrix (H * D, C) from rotating neighbours (GGUF) to rotating halves."""
    rows, width = weight.shape
    if rows % head_dim:
        raise UserError(f"a query or key matrix has {rows} rows, which are no heads of {head_dim}")
    pairs = weight.view(rows // head_dim, head_dim // 2, 2, width)  # (H, D/2, 2, C)
    return pairs.transpose(1, 2).reshape(rows, width)  # (H * 2 * D/2, C)


def gguf_tokenizer(path: Path) -> "tiktoken.Encoding":
    """The tokenizer in a GGUF file as a tiktoken `Encoding`; `UserError` unless it splits text as SmolLM2."""
    import gguf

    from supertf.data.tokenizer import bpe_encoding  # which imports this module

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
