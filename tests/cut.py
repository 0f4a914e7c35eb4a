"""Less of the real model, for what need not be shown on all of it."""

import dataclasses
from typing import Any

from supertf.model.gpt import GPT
from supertf.model.hf_weights import LLAMA_NAMES
from supertf.model.pretrained import build

WITH_SUPER_WEIGHT = 12  # layers: it is in layer 11


def first_layers(model: GPT, count: int) -> GPT:
    """The model without the layers after its first `count`, in memory of its own."""
    gone = tuple(f"h.{layer}." for layer in range(count, model.config.n_layer))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items() if not name.startswith(gone)}
    return build(dataclasses.replace(model.config, n_layer=count), state).eval()


def as_llama(model: GPT) -> Any:
    """A model of SmolLM2's shape as transformers has it."""
    import transformers

    c = model.config
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=c.vocab_size,
            hidden_size=c.n_embd,
            intermediate_size=c.inner,
            num_hidden_layers=c.n_layer,
            num_attention_heads=c.n_head,
            num_key_value_heads=c.n_kv_head,
            max_position_embeddings=c.n_ctx,
            rms_norm_eps=c.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_base},
            tie_word_embeddings=c.tie_head,
        )
    ).eval()
    state = {"model.embed_tokens.weight": model.wte.weight, "model.norm.weight": model.ln_f.weight}
    state["lm_head.weight"] = model.lm_head.weight
    for layer, block in enumerate(model.h):
        q, k, v = block.attn.c_attn.weight.split([c.n_embd, *[c.n_kv_head * c.head_dim] * 2])
        gate, up = block.mlp.c_fc.weight.chunk(2)
        parts = {"q": q, "k": k, "v": v, "gate": gate, "up": up, "ln_1": block.ln_1.weight}
        parts |= {"ln_2": block.ln_2.weight, "o": block.attn.c_proj.weight, "down": block.mlp.c_proj.weight}
        state |= {LLAMA_NAMES[part].format(layer): tensor for part, tensor in parts.items()}
    llama.load_state_dict(state)
    return llama
