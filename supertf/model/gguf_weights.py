"""GGUF files of Llama-architecture models: weights and config."""

import re
from pathlib import Path

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.files import readable_gguf
from supertf.model.config import GPTConfig
from supertf.model.gguf_header import Header, read_header
from supertf.model.hf_weights import from_llama
from supertf.model.tensor_files import State

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
    with readable_gguf(path):
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
