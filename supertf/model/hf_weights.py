"""Hugging Face GPT-2 and Llama-family configs and tensors, translated to this package's names."""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.model.config import GPTConfig

State = dict[str, Tensor]  # tensors by name

# Keys of a config.json that leave a trained model's logits as they are: where it comes from and how it was
# trained, how text is made with it, heads of other kinds. Every other key is used or refused.
HARMLESS = """
_attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled _name_or_path
_num_labels architectures attention_dropout attn_pdrop chunk_size_feed_forward dtype embd_pdrop
finetuning_task gradient_checkpointing id2label initializer_range is_decoder is_llama_config label2id
max_sequence_length model_type n_ctx n_special name_or_path num_labels output_attentions
output_hidden_states output_past predict_special_tokens pretraining_tp problem_type reorder_and_upcast_attn
resid_pdrop return_dict summary_activation summary_first_dropout summary_proj_to_labels
summary_type summary_use_proj task_specific_params tf_legacy_loss tokenizer_class torch_dtype torchscript
transformers.js_config transformers_version unsloth_fixed unsloth_version use_bfloat16
use_cache use_return_dict

bos_token_id decoder_start_token_id eos_token_id mask_token_id pad_token_id sep_token_id unk_token_id
bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping
encoder_no_repeat_ngram_size exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id
length_penalty max_length max_new_tokens min_length no_repeat_ngram_size num_beam_groups num_beams
num_return_sequences output_scores prefix remove_invalid_values repetition_penalty
return_dict_in_generate suppress_tokens temperature top_k top_p typical_p
"""
# What either family could ask for beyond its own keys, and the values that ask for nothing.
FIXED: dict[str, tuple] = {
    "is_causal": (True,),
    "use_bidirectional_attention": (False, None),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({}, None),
}


def gpt2_config(values: dict[str, Any]) -> GPTConfig:
    """Our config for a Hugging Face GPT-2 config; `UserError` on features this decoder lacks."""
    rest = Rest(values)
    rest.refuse("activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    rest.refuse("scale_attn_by_inverse_layer_idx", (False,))
    rest.refuse("scale_attn_weights", (True,))
    config = GPTConfig(
        vocab_size=rest.pop("vocab_size", 50257),
        n_ctx=rest.pop("n_positions", 1024),
        n_layer=rest.pop("n_layer", 12),
        n_head=rest.pop("n_head", 12),
        n_embd=rest.pop("n_embd", 768),
        n_inner=rest.pop("n_inner", None),
        norm_eps=rest.pop("layer_norm_epsilon", 1e-5),
        tie_head=rest.pop("tie_word_embeddings", True),
    )
    rest.check()
    return config


def from_gpt2(state: State) -> State:
    """Hugging Face GPT-2 tensors under our names; its Conv1D weights are (in, out) and get transposed."""
    transposed = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    masks = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # causal masks that old checkpoints carry
    ours: State = {}
    for name, tensor in with_prefix(state, "transformer.").items():
        name = name.removeprefix("transformer.")
        if name in ours:
            raise UserError(f"the checkpoint has {name} twice, with and without `transformer.` in front")
        if not masks.fullmatch(name):
            ours[name] = tensor.t().contiguous() if name.endswith(transposed) else tensor
    return ours


def with_prefix(state: State, prefix: str) -> State:
    """Tensors under the names they have in a model with a head; a base model saved alone lacks `prefix`."""
    if any(name.startswith(prefix) for name in state):
        return state
    return {name if name.startswith("lm_head.") else prefix + name: state[name] for name in state}


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
    """Our config for a Hugging Face Llama config; `UserError` on features this decoder lacks."""
    return rotary_config(Rest(values), n_ctx=2048, n_kv_head=None, n_inner=11008)


def mistral_config(values: dict[str, Any]) -> GPTConfig:
    """Our config for a Hugging Face Mistral config, a Llama with a sliding window unless it says null."""
    rest = Rest({"sliding_window": 4096, **values})
    return rotary_config(rest, n_ctx=131072, n_kv_head=8, n_inner=14336)


def rotary_config(rest: "Rest", n_ctx: int, n_kv_head: int | None, n_inner: int) -> GPTConfig:
    """Our config for a Llama's keys; the numbers are what a family takes for absent ones."""
    scaling, parameters = rest.pop("rope_scaling", None), rest.pop("rope_parameters", None)
    rope = scaling or parameters or {}
    if not isinstance(rope, dict):
        raise UserError(f"the checkpoint's rotary settings are {rope!r}, expected a JSON object")
    rope = Rest(rope)
    kind = rope.pop("type", "default")
    rope.refuse("rope_type", ("default",), absent=kind)
    rest.refuse("hidden_act", ("silu",))
    rest.refuse("attention_bias", (False,))
    rest.refuse("mlp_bias", (False,))
    rest.refuse("rope_interleaved", (False,))
    rest.refuse("sliding_window", (None,))
    config = GPTConfig(
        vocab_size=rest.pop("vocab_size", 32000),
        n_ctx=rest.pop("max_position_embeddings", n_ctx),
        n_layer=rest.pop("num_hidden_layers", 32),
        n_head=rest.pop("num_attention_heads", 32),
        n_kv_head=rest.pop("num_key_value_heads", n_kv_head),
        n_embd=rest.pop("hidden_size", 4096),
        n_inner=rest.pop("intermediate_size", n_inner),
        position="rope",
        rope_base=rope.pop("rope_theta", rest.pop("rope_theta", 10000.0)),
        norm="rmsnorm",
        norm_eps=rest.pop("rms_norm_eps", 1e-6),
        mlp="swiglu",
        bias=False,
        tie_head=rest.pop("tie_word_embeddings", False),
    )
    rest.refuse("head_dim", (None, config.head_dim))
    rope.check()
    rest.check()
    return config


def from_llama(config: GPTConfig, state: State, names: dict[str, str]) -> State:
    """Llama tensors under our names: q, k, v stacked into c_attn, gate and up into c_fc."""
    # frequencies of the rotation, which old checkpoints carry; they follow from the config
    state = {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}
    if config.tie_head and names["head"] in state:  # of two equal tensors some writers keep this one
        state.setdefault(names["embedding"], state[names["head"]])
    pop = taker(state)
    ours = {"wte.weight": pop(names["embedding"]), "ln_f.weight": pop(names["norm"])}
    for layer in range(config.n_layer):
        part = {key: pop(name.format(layer)) for key, name in names.items() if "{}" in name}
        ours |= {
            f"h.{layer}.ln_1.weight": part["ln_1"],
            f"h.{layer}.attn.c_attn.weight": stacked(layer, part, ("q", "k", "v")),
            f"h.{layer}.attn.c_proj.weight": part["o"],
            f"h.{layer}.ln_2.weight": part["ln_2"],
            f"h.{layer}.mlp.c_fc.weight": stacked(layer, part, ("gate", "up")),
            f"h.{layer}.mlp.c_proj.weight": part["down"],
        }
    if names["head"] in state:
        ours["lm_head.weight"] = state.pop(names["head"])
    return ours | state  # what is left over is reported by `build`


def stacked(layer: int, part: State, names: tuple[str, ...]) -> Tensor:
    """Matrices that read the same input as one, or `UserError`."""
    shapes = {name: tuple(part[name].shape) for name in names}
    if any(len(shape) != 2 or shape[1] != shapes[names[0]][1] for shape in shapes.values()):
        raise UserError(
            f"the matrices {', '.join(names)} of layer {layer} do not read the same input: their shapes are "
            + ", ".join(map(str, shapes.values()))
        )
    return torch.cat([part[name] for name in names])


def taker(state: State) -> Callable[[str], Tensor]:
    """A function that removes a named tensor from `state`, or says that it is missing."""

    def pop(name: str) -> Tensor:
        if name not in state:
            raise UserError(f"the checkpoint has no tensor {name}: it is incomplete or of another kind")
        return state.pop(name)

    return pop


class Rest:
    """The keys of a foreign config that nothing has read yet."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = dict(values)

    def pop(self, name: str, default: Any) -> Any:
        """Take a key out; `default`: what the family takes where it is absent."""
        return self.values.pop(name, default)

    def refuse(self, name: str, allowed: tuple, absent: Any = None) -> None:
        """Take a key out; `UserError` when its value asks for something this decoder does not do.

        absent: what stands for a missing key; None is the first of the allowed values.
        """
        value = self.values.pop(name, allowed[0] if absent is None else absent)
        if value not in allowed:
            wanted = " or ".join(repr(item) for item in allowed)
            raise UserError(f"the checkpoint's {name} is {value!r}; this decoder supports only {wanted}")

    def check(self) -> None:
        """`UserError` naming what is left and not known to leave the logits as they are."""
        for name, allowed in FIXED.items():
            self.refuse(name, allowed)
        unknown = sorted(self.values.keys() - set(HARMLESS.split()))
        if unknown:
            name = unknown[0]
            raise UserError(
                f"the checkpoint's {name} is {self.values[name]!r}, a setting that this decoder does not "
                "know and that may change what the model computes"
            )
