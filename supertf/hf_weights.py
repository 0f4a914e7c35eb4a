"""Hugging Face GPT-2 and Llama-family configs and tensors, translated to this package's names."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from supertf.config import GPTConfig
from supertf.errors import UserError

State = dict[str, Tensor]


def gpt2_config(values: dict[str, Any]) -> GPTConfig:
    """Our config for a Hugging Face GPT-2 config; `UserError` on features this decoder lacks."""
    refuse(values, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), default="gelu_new")
    refuse(values, "scale_attn_by_inverse_layer_idx", (False,), default=False)
    refuse(values, "scale_attn_weights", (True,), default=True)
    return GPTConfig(
        vocab_size=values.get("vocab_size", 50257),
        n_ctx=values.get("n_positions", 1024),
        n_layer=values.get("n_layer", 12),
        n_head=values.get("n_head", 12),
        n_embd=values.get("n_embd", 768),
        n_inner=values.get("n_inner"),
        norm_eps=values.get("layer_norm_epsilon", 1e-5),
        tie_head=values.get("tie_word_embeddings", True),
    )


def from_gpt2(state: State) -> State:
    """Hugging Face GPT-2 tensors under our names; its Conv1D weights are (in, out) and get transposed."""
    transposed = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    masks = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # causal masks that old checkpoints carry
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    return {
        name: tensor.t().contiguous() if name.endswith(transposed) else tensor
        for name, tensor in renamed.items()
        if not masks.fullmatch(name)
    }


LLAMA_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "ln_1": "model.layers.{}.input_layernorm.weight",
    "ln_2": "model.layers.{}.post_attention_layernorm.weight",
    "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight",
    "v": "model.layers.{}.self_attn.v_proj.weight",
    "o": "model.layers.{}.self_attn.o_proj.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight",
    "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}


def llama_config(values: dict[str, Any]) -> GPTConfig:
    """Our config for a Hugging Face Llama or Mistral config; `UserError` on features this decoder lacks."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise UserError(f"the checkpoint's rotary settings are {rope!r}, expected a JSON object")
    refuse(rope, "rope_type", ("default",), default=rope.get("type", "default"))
    refuse(values, "hidden_act", ("silu",), default="silu")
    refuse(values, "attention_bias", (False,), default=False)
    refuse(values, "mlp_bias", (False,), default=False)
    refuse(values, "sliding_window", (None,), default=None)
    config = GPTConfig(
        vocab_size=values.get("vocab_size", 32000),
        n_ctx=values.get("max_position_embeddings", 2048),
        n_layer=values.get("num_hidden_layers", 32),
        n_head=values.get("num_attention_heads", 32),
        n_kv_head=values.get("num_key_value_heads"),
        n_embd=values.get("hidden_size", 4096),
        n_inner=values.get("intermediate_size", 11008),
        position="rope",
        rope_base=rope.get("rope_theta", values.get("rope_theta", 10000.0)),
        norm="rmsnorm",
        norm_eps=values.get("rms_norm_eps", 1e-6),
        mlp="swiglu",
        bias=False,
        tie_head=values.get("tie_word_embeddings", False),
    )
    refuse(values, "head_dim", (None, config.head_dim), default=None)
    return config


def from_llama(config: GPTConfig, state: State, names: dict[str, str]) -> State:
    """Llama tensors under our names: q, k, v stacked into c_attn, gate and up into c_fc."""
    state = dict(state)
    pop = taker(state)
    ours = {"wte.weight": pop(names["embedding"]), "ln_f.weight": pop(names["norm"])}
    for layer in range(config.n_layer):
        part = {key: pop(name.format(layer)) for key, name in names.items() if "{}" in name}
        ours |= {
            f"h.{layer}.ln_1.weight": part["ln_1"],
            f"h.{layer}.attn.c_attn.weight": torch.cat([part["q"], part["k"], part["v"]]),
            f"h.{layer}.attn.c_proj.weight": part["o"],
            f"h.{layer}.ln_2.weight": part["ln_2"],
            f"h.{layer}.mlp.c_fc.weight": torch.cat([part["gate"], part["up"]]),
            f"h.{layer}.mlp.c_proj.weight": part["down"],
        }
    if names["head"] in state:
        ours["lm_head.weight"] = state.pop(names["head"])
    return ours | state  # what is left over is reported by `build`


def taker(state: State) -> Callable[[str], Tensor]:
    """A function that removes a named tensor from `state`, or says that it is missing."""

    def pop(name: str) -> Tensor:
        if name not in state:
            raise UserError(f"the checkpoint has no tensor {name}: it is incomplete or of another kind")
        return state.pop(name)

    return pop


def refuse(values: dict[str, Any], name: str, allowed: tuple, default: Any) -> None:
    """`UserError` when a foreign config asks for something this decoder does not do."""
    value = values.get(name, default)
    if value not in allowed:
        wanted = " or ".join(repr(item) for item in allowed)
        raise UserError(f"the checkpoint's {name} is {value!r}; this decoder supports only {wanted}")
