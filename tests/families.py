"""Tiny random models of every family whose super weights can be found, with a weight planted in one layer."""

import torch
from planted import CONFIG, PROMPT

from supertf.model.gpt import GPT
from supertf.model.hf_model import HFModel
from supertf.model.weight_matrices import Coordinate, block_name, output_projections

LAYERS, WIDTH, INNER = 3, 16, 40
SMALL = {
    "vocab_size": 50,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# What each family's config takes beside SMALL, and (as None) what it does not take of it.
FAMILIES = {
    "Llama": {},
    "SmolLM": {"class": "Llama", "tie_word_embeddings": True, "num_key_value_heads": 1},
    "Mistral": {"sliding_window": 4},
    "Qwen2": {},
    "Qwen3": {"head_dim": 8},
    "Olmo": {},
    "Olmo2": {},
    "Phi3": {},
    "Phi": {},
    "Gemma2": {"head_dim": 8},
    "Gemma3Text": {"head_dim": 8},
    "Olmo3": {},
    "Exaone4": {},
    "Glm4": {"head_dim": 8},
    "Granite": {"residual_multiplier": 0.22},
    "GPT2": {"n_inner": INNER, "intermediate_size": None, "num_key_value_heads": None},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": INNER, "word_embed_proj_dim": WIDTH, "intermediate_size": None},
    "Falcon": {"ffn_hidden_size": INNER, "multi_query": True, "parallel_attn": True},
    "FalconNew": {"class": "Falcon", "ffn_hidden_size": INNER, "new_decoder_architecture": True},
    "FalconAlibi": {"class": "Falcon", "ffn_hidden_size": INNER, "alibi": True, "multi_query": False},
}
OURS = {"supertf SwiGLU": {}, "supertf GELU": {"mlp": "gelu"}}
EVERY = (*FAMILIES, *OURS)
SANDWICH = ("Olmo2", "Gemma2", "Gemma3Text", "Olmo3", "Exaone4", "Glm4")  # a norm follows the MLP


def tiny(family: str) -> GPT | HFModel:
    """A random model of a family, the same in every call, in evaluation mode."""
    torch.manual_seed(0)
    if family in OURS:
        return GPT(CONFIG.__class__(**{**CONFIG.to_dict(), **OURS[family]})).eval()
    return HFModel(hugging_face(family))


def hugging_face(family: str) -> torch.nn.Module:
    """The transformers model behind `tiny`."""
    import transformers

    settings = {**SMALL, **FAMILIES[family]}
    config = getattr(transformers, settings.pop("class", family) + "Config")
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(
        config(**{name: value for name, value in settings.items() if value is not None})
    ).eval()


@torch.no_grad()
def plant(
    model: torch.nn.Module,
    coordinate: Coordinate,
    weight: float = 3.0,
    height: float = 900.0,
    gain: float = 100.0,
) -> None:
    """Make channel `in` of the layer's MLP fire about `height` on the prompt's first token, and W[out, in],
    which reads it, as large as `weight`.

    The rows that make the channel (one, or gate and up) are turned towards what the MLP reads there. Where a
    norm follows, it multiplies `out` by `gain`, and nothing else contributes to `out`.
    """
    layer, out, into = coordinate
    projection = output_projections(model)[layer]
    inner = projection.weight.shape[1]
    parent = model.get_submodule(projection.name.rpartition(".")[0])
    for reader in parent.children():
        matrix = getattr(reader, "weight", None)
        if reader is projection.module or matrix is None or matrix.ndim != 2:
            continue
        rows = matrix.t() if type(reader).__name__ == "Conv1D" else matrix
        gated = len(rows) == 2 * inner or hasattr(parent, "gate_proj")
        read = input_of(model, reader)
        for row in range(into, len(rows), inner):
            rows[row] = read * (height**0.5 if gated else height) / read.square().sum()
            if getattr(reader, "bias", None) is not None:
                reader.bias[row] = 0.0
    norm = norm_behind(model, layer)
    if norm is not None and norm.weight[out] < 1:  # Gemma's count from 1 up
        gain -= 1
    if norm is not None and norm.weight[out] != gain:
        norm.weight[out] = gain
        projection.weight[out] = 0.0
    projection.weight[out, into] = weight


def norm_behind(model: torch.nn.Module, layer: int) -> torch.nn.Module | None:
    """The norm between a layer's MLP and the residual stream, if there is one."""
    block = model.get_submodule(block_name(output_projections(model)[layer]))
    names = ("post_feedforward_layernorm", "post_mlp_layernorm")
    return next((getattr(block, name) for name in names if hasattr(block, name)), None)


def input_of(model: torch.nn.Module, module: torch.nn.Module) -> torch.Tensor:
    """What `module` reads at the prompt's first token, (C,)."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.tensor([PROMPT]))
    hook.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])[0]
