"""GGUF files read by transformers give the logits of the model that was written, or are refused."""

import gguf
import numpy as np
import pytest
import torch

from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.hf_library import ARCHITECTURES
from supertf.model.hf_model import HFModel, load, load_hf_model

transformers = pytest.importorskip("transformers")
SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}}
PARTLY = {"rope_type": "default", "rope_theta": 10000.0}
GEMMA = {"head_dim": 256, "sliding_window": 7, "rms_norm_eps": 1e-4}  # so that the window shows
# Of each architecture a config; where a file has no field for something, as transformers takes it.
CONFIGS = {
    "llama": ("Llama", {**ROPE, "rms_norm_eps": 1e-4, "head_dim": 16}),
    "bloom": ("Bloom", {"n_layer": 2, "n_head": 4, "layer_norm_epsilon": 1e-4}),
    "gemma2": ("Gemma2", {**ROPE, **GEMMA}),
    "gemma3": ("Gemma3Text", {**GEMMA, "num_hidden_layers": 6}),
    "gpt2": ("GPT2", {"n_layer": 2, "n_head": 4, "n_embd": 32, "layer_norm_epsilon": 1e-4}),
    "nemotron": ("Nemotron", {"rope_parameters": {**ROPE["rope_parameters"], "partial_rotary_factor": 0.5}}),
    "phi3": ("Phi3", {**ROPE, "vocab_size": 32064, "rms_norm_eps": 1e-4, "sliding_window": None}),
    "qwen2": ("Qwen2", {**ROPE, "rms_norm_eps": 1e-4}),
    "qwen3": ("Qwen3", {**ROPE, "rms_norm_eps": 1e-4, "head_dim": 128}),
    "qwen3moe": (
        "Qwen3Moe",
        {**ROPE, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 768}
        | {"head_dim": 8, "norm_topk_prob": True},
    ),
    "stablelm": ("StableLm", {"rope_parameters": {**PARTLY, "partial_rotary_factor": 0.25}}),
    "starcoder2": ("Starcoder2", {"norm_epsilon": 1e-4, "sliding_window": None}),
}
OWN_NAMES = ("Bloom", "GPT2")  # configs with names of their own for most of SMALL


def small(architecture):
    """A random model, biases and norms away from 0 and 1, so that each one matters."""
    family, changes = CONFIGS[architecture]
    common = {key: SMALL[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}
    common = {**common, "hidden_size": 32} if family in OWN_NAMES else SMALL
    config = getattr(transformers, f"{family}Config")(**{**common, **changes})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.normal_(0, 0.3 if "embed" in name else parameter.shape[-1] ** -0.5)
    return model


def stored(architecture, config, name, tensor):
    """A tensor as llama.cpp's converter stores it."""
    heads = config.num_attention_heads
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):  # neighbours rotate
        pairs = tensor.view(-1, 2, config.head_dim // 2, tensor.shape[-1])
        return pairs.transpose(1, 2).reshape(tensor.shape)
    if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
        return tensor + 1
    if architecture == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        return tensor.t()
    if architecture == "bloom" and "query_key_value" in name:  # q, k, v of one head lie together
        parts = tensor.view(heads, 3, -1, *tensor.shape[1:])
        return parts.transpose(0, 1).reshape(tensor.shape)
    return tensor


def write(model, architecture, path, fields=()):
    """A model as a GGUF file in float32, with other fields."""
    config = model.config
    heads = config.num_attention_heads
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(1024)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_head_count(heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", heads))
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        names = ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
        writer.add_layer_norm_eps(next(getattr(config, name) for name in names if hasattr(config, name)))
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    if rope:
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1)))
    if width != config.hidden_size // heads:
        writer.add_key_length(width)
        writer.add_value_length(width)
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(50.0)
        writer.add_final_logit_softcapping(30.0)
    if architecture == "qwen3moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    for name, value in dict(fields).items():
        {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}[
            type(value)
        ](name, value)
    for name, tensor in tensors(model, architecture).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(model, architecture):
    """A model's tensors under GGUF's names, after gguf's own table."""
    kind = next(kind for kind, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, model.config.num_hidden_layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        block = name.split(".")[2] if "layers" in name else ""
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, 1)
            found |= {f"blk.{block}.ffn_gate_exps.weight": gate, f"blk.{block}.ffn_up_exps.weight": up}
        elif name.endswith("experts.down_proj"):
            found[f"blk.{block}.ffn_down_exps.weight"] = tensor
        else:
            known = name.removeprefix("transformer.") if architecture == "bloom" else name
            key = names.get_name(known, try_suffixes=(".weight", ".bias"))
            found[key] = stored(architecture, model.config, name, tensor)
    return found


IDS = torch.arange(40)[None] % 37


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_the_model_that_was_written(architecture, tmp_path):
    model = small(architecture)
    write(model, architecture, tmp_path / "model.gguf")
    loaded, _ = load(tmp_path / "model.gguf", tokenizer="bytes")
    assert type(loaded) is HFModel
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)


def test_a_llama_that_the_lab_reads_is_read_alike_by_both(tmp_path):
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).eval()
    write(model, "llama", tmp_path / "model.gguf")
    ours, _ = load(tmp_path / "model.gguf", tokenizer="bytes")
    assert type(ours) is GPT
    with torch.no_grad():
        expected = model(IDS).logits
        torch.testing.assert_close(ours(IDS).logits, expected)
        torch.testing.assert_close(load_hf_model(tmp_path / "model.gguf")(IDS).logits, expected)


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("qwen2", {"qwen2.rope.scaling.type": "yarn"}),
        ("qwen2", {"qwen2.rope.scaling.factor": 4.0}),
        ("qwen2", {"qwen2.attention.causal": False}),
        ("gemma3", {"gemma3.rope.scaling.factor": 8.0}),  # as in all but the smallest
        ("gemma3", {"gemma3.attention.scale": 0.5}),
        ("gemma2", {"gemma2.final_logit_softcapping": 10.0}),
        ("qwen2", {"qwen2.attention.sliding_window": 20}),
        ("stablelm", {"stablelm.rope.dimension_count": 8}),
        ("starcoder2", {"starcoder2.rope.freq_base": 5000.0}),
        ("nemotron", {"nemotron.attention.layer_norm_epsilon": 1e-3}),
        ("qwen3", {"qwen3.unheard_of": 1}),
    ],
)
def test_a_field_that_transformers_overlooks_is_refused(architecture, fields, tmp_path, monkeypatch):
    write(small(architecture), architecture, tmp_path / "model.gguf", fields=fields)
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("expanded"))
    with pytest.raises(UserError, match=rf"^\S+model\.gguf: {next(iter(fields))} is [^\n]*$"):
        load(tmp_path / "model.gguf", tokenizer="bytes")


def test_the_file_named_is_read_not_one_of_its_name_in_the_working_folder(tmp_path, monkeypatch):
    model = small("qwen2")
    write(model, "qwen2", tmp_path / "model.gguf")
    (tmp_path / "here").mkdir()
    write(small("qwen3"), "qwen3", tmp_path / "here" / "model.gguf")
    monkeypatch.chdir(tmp_path / "here")
    loaded, _ = load("../model.gguf", tokenizer="bytes")
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)
