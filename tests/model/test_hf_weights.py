"""Which files, tensors and settings of a Hugging Face folder are the model: as transformers decides."""

import dataclasses
import fnmatch
import shutil

import huggingface_hub
import pytest
import torch
from planted import byte_model, saved
from safetensors.torch import load_file, save_file, save_model
from test_pretrained import tiny_gpt2, tiny_llama

from supertf.errors import UserError
from supertf.files import read_json, sha256, write_json
from supertf.model import checkpoint
from supertf.model.gpt import GPT
from supertf.model.hf_model import HFModel, load
from supertf.model.hf_weights import gpt2_config, llama_config, mistral_config
from supertf.model.pretrained import load_model

transformers = pytest.importorskip("transformers")
IDS = torch.arange(24)[None]


def random_model(make, seed=0, **changes):
    torch.manual_seed(seed)
    model = make(**changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def sharded(folder, seed=0):
    """A Llama in several shards with an index."""
    random_model(tiny_llama, seed).save_pretrained(folder, max_shard_size="10KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def change(folder, **changes):
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)


def change_tensors(folder, edit):
    """Replace a folder's tensors by what `edit` makes of them."""
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, {"format": "pt"})


@torch.no_grad()
def compare(folder, kind=GPT, streams=(False, True)):
    """`load`'s logits, also streamed, are those of transformers; `kind` is what it gives."""
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits
    for stream in streams:
        model, _ = load(folder, stream=stream, tokenizer="bytes")
        assert type(model) is (HFModel if stream else kind)
        torch.testing.assert_close(model(IDS).logits, expected, atol=1e-4, rtol=1e-4)


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", ["shards", "one file", "a variant"])
def test_files_that_the_index_does_not_name_are_not_read(tmp_path, stray):
    folder, other = sharded(tmp_path / "model"), tmp_path / "other"
    random_model(tiny_llama, seed=1).save_pretrained(
        other, max_shard_size="7KB" if stray == "shards" else "1GB"
    )
    for file in other.glob("*.safetensors"):
        name = {"one file": "model_ema.safetensors", "a variant": "model.fp16.safetensors"}.get(
            stray, file.name
        )
        shutil.copy(file, folder / name)
    compare(folder)


def test_one_whole_file_goes_before_an_index(tmp_path):
    folder = sharded(tmp_path / "model")
    random_model(tiny_llama, seed=1).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    compare(folder)


def test_files_that_do_not_make_a_model_are_one_clear_line(tmp_path):
    folder = sharded(tmp_path / "model")
    index = read_json(folder / "model.safetensors.index.json")
    shards = sorted(set(index["weight_map"].values()))
    twice = load_file(folder / shards[0])
    twice |= {name: tensor for name, tensor in load_file(folder / shards[1]).items() if "norm" not in name}
    save_file(twice, folder / shards[0], {"format": "pt"})
    with pytest.raises(UserError, match=f"{shards[1]} holds .*, which another shard"):
        load_model(folder)
    (folder / shards[1]).unlink()
    with pytest.raises(UserError, match=f"has no {shards[1]}, which model.safetensors.index.json names"):
        load_model(folder)
    for wrong in ({}, {"weight_map": []}, {"weight_map": {"a": "../a.safetensors"}}):
        write_json(folder / "model.safetensors.index.json", wrong)
        with pytest.raises(UserError, match="expected a weight_map"):
            load_model(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=f"neither model.safetensors nor .* but {shards[0]}"):
        load_model(folder)


@pytest.mark.parametrize("shards", [False, True])
def test_only_the_model_is_fetched_from_the_hub(tmp_path, monkeypatch, shards):
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    sharded(hub) if shards else random_model(tiny_llama).save_pretrained(hub)
    wanted = {file.name for file in hub.iterdir()} - {"generation_config.json"}
    for stray in ("model_ema.safetensors", "old.safetensors.index.json", "pytorch_model.bin", "README.md"):
        (hub / stray).write_bytes(b"?")

    def snapshot_download(_, allow_patterns):
        cache.mkdir(exist_ok=True)
        for file in hub.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model, _ = load("some/model", tokenizer="bytes")
    assert torch.equal(model(IDS).logits, load_model(hub)(IDS).logits)
    assert {file.name for file in cache.iterdir()} == wanted


def test_the_weights_of_a_checkpoint_are_hashed_once(tmp_path, monkeypatch):
    folder = saved(byte_model(), tmp_path)
    hashed = []
    monkeypatch.setattr(checkpoint, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    load(folder)
    assert sorted(hashed) == ["config.json", "model.safetensors"]


# --- tensors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_base_model_saved_without_its_tied_head_is_read(tmp_path, make):
    random_model(make, tie_word_embeddings=True).base_model.save_pretrained(tmp_path)
    compare(tmp_path)
    change(tmp_path, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"lm_head\.weight is missing"):
        load(tmp_path, tokenizer="bytes")


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_tied_matrix_may_be_stored_under_either_name_or_both(tmp_path, make):
    model = random_model(make, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    save_model(model, tmp_path / "model.safetensors", {"format": "pt"})  # keeps the first name of the two
    assert "lm_head.weight" in load_file(tmp_path / "model.safetensors")
    compare(tmp_path, streams=[False])  # accelerate looks for the other name
    name = next(key for key in model.state_dict() if key.endswith(("embed_tokens.weight", "wte.weight")))
    change_tensors(tmp_path, lambda state: state | {name: state["lm_head.weight"].clone()})
    compare(tmp_path)
    change_tensors(tmp_path, lambda state: state | {name: state[name] + 1})
    with pytest.raises(UserError, match=r"ties the output head .* two different"):
        load_model(tmp_path)


def test_buffers_that_follow_from_the_config_are_not_read(tmp_path):
    random_model(tiny_llama).save_pretrained(tmp_path)
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in (0, 1)]
    change_tensors(tmp_path, lambda state: state | {name: torch.ones(2) for name in names})
    compare(tmp_path)


def test_a_tensor_stored_with_and_without_its_prefix_is_refused(tmp_path):
    random_model(tiny_gpt2).save_pretrained(tmp_path)
    name = "h.0.mlp.c_fc.bias"
    change_tensors(tmp_path, lambda state: state | {name: state[f"transformer.{name}"] + 1})
    with pytest.raises(UserError, match=f"has {name} twice"):
        load_model(tmp_path)


def test_matrices_that_read_different_inputs_are_one_clear_line(tmp_path):
    random_model(tiny_llama).save_pretrained(tmp_path)
    name = "model.layers.1.self_attn.k_proj.weight"
    change_tensors(tmp_path, lambda state: state | {name: torch.ones(8, 23)})
    with pytest.raises(UserError, match=r"q, k, v of layer 1 .* \(8, 23\)"):
        load_model(tmp_path)


# --- settings ------------------------------------------------------------------------------------


def tiny_mistral(**changes):
    return transformers.MistralForCausalLM(
        transformers.MistralConfig(**{**tiny_llama().config.to_dict(), "head_dim": None, **changes})
    )


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (tiny_gpt2, {"scale_attn_by_inverse_layer_idx": True}),
        (tiny_gpt2, {"activation_function": "relu"}),
        (tiny_gpt2, {"unheard_of": 1}),
        (tiny_llama, {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
        (tiny_llama, {"rope_scaling": {"type": "linear", "factor": 4.0}}),
        (tiny_llama, {"layer_types": ["full_attention"] * 2}),
        (tiny_llama, {"unheard_of": None}),
        (tiny_mistral, {"sliding_window": 5}),
    ],
)
def test_a_setting_that_the_lab_does_not_know_is_left_to_transformers(tmp_path, make, changes):
    random_model(make).save_pretrained(tmp_path)
    change(tmp_path, **changes)
    name = {"rope_parameters": "rope_type", "rope_scaling": "rope_type"}.get(*changes, *changes)
    with pytest.raises(UserError, match=f"the checkpoint's {name} is"):
        load_model(tmp_path)
    compare(tmp_path, kind=HFModel)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_a_model_that_looks_ahead_is_refused_whoever_reads_it(tmp_path, make):
    random_model(make).save_pretrained(tmp_path)
    change(tmp_path, is_causal=False)
    with pytest.raises(UserError, match="the checkpoint's is_causal is False"):
        load_model(tmp_path)
    with pytest.raises(UserError, match="is not a causal language model"):
        load(tmp_path, tokenizer="bytes")


def test_a_mistral_without_a_sliding_window_says_so(tmp_path):
    """transformers takes an absent window for one of 4096 tokens."""
    random_model(tiny_mistral, sliding_window=None).save_pretrained(tmp_path)
    compare(tmp_path)
    values = read_json(tmp_path / "config.json")
    del values["sliding_window"]
    write_json(tmp_path / "config.json", values)
    with pytest.raises(UserError, match="sliding_window is 4096"):
        load_model(tmp_path)
    compare(tmp_path, kind=HFModel)


@pytest.mark.parametrize(
    ("read", "family"), [(gpt2_config, "GPT2"), (llama_config, "Llama"), (mistral_config, "Mistral")]
)
def test_absent_settings_are_those_of_transformers(read, family):
    theirs = getattr(transformers, f"{family}Config")()
    window = {"sliding_window": None} if family == "Mistral" else {}
    ours, written = read(window), read(theirs.to_dict() | window)
    assert written == dataclasses.replace(ours, n_kv_head=written.n_kv_head)
    assert written.kv_heads == ours.kv_heads
    found = (ours.vocab_size, ours.n_ctx, ours.n_layer, ours.n_head, ours.n_embd, ours.tie_head)
    names = ("vocab_size", "max_position_embeddings", "num_hidden_layers", "num_attention_heads")
    assert found == tuple(getattr(theirs, name) for name in (*names, "hidden_size", "tie_word_embeddings"))
    if family == "GPT2":
        assert (ours.n_inner, ours.norm_eps) == (theirs.n_inner, theirs.layer_norm_epsilon)
    else:
        assert (ours.kv_heads, ours.inner) == (theirs.num_key_value_heads, theirs.intermediate_size)
        assert (ours.norm_eps, ours.rope_base) == (
            theirs.rms_norm_eps,
            theirs.rope_parameters["rope_theta"],
        )


GENERATION = {  # which transformers 4 wrote into every config.json
    **{"max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1},
    **{"num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0},
    **{"typical_p": 1.0, "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0},
    **{"encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1},
    **{"output_scores": False, "return_dict_in_generate": False, "forced_bos_token_id": None},
    **{"forced_eos_token_id": None, "remove_invalid_values": False, "suppress_tokens": None},
    **{"exponential_decay_length_penalty": None, "begin_suppress_tokens": None, "prefix": None},
    **{"decoder_start_token_id": None, "sep_token_id": None, "tokenizer_class": None, "torchscript": False},
    **{"output_hidden_states": False, "output_attentions": False, "return_dict": True, "pruned_heads": {}},
    **{"tf_legacy_loss": False, "use_bfloat16": False, "is_decoder": False, "is_encoder_decoder": False},
    **{"add_cross_attention": False, "cross_attention_hidden_size": None, "tie_encoder_decoder": False},
    **{"chunk_size_feed_forward": 0, "finetuning_task": None, "task_specific_params": None},
    **{"problem_type": None, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "use_cache": True},
    **{"_name_or_path": "", "transformers_version": "4.36.0", "torch_dtype": "float16"},
    **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, "initializer_range": 0.02},
}
GPT2 = {  # openai-community/gpt2's own keys
    **{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1},
    **{"embd_pdrop": 0.1, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768},
    **{"n_head": 12, "n_layer": 12, "n_positions": 1024, "resid_pdrop": 0.1, "summary_activation": None},
    **{"summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index"},
    **{"summary_use_proj": True, "vocab_size": 50257, "reorder_and_upcast_attn": False, "n_special": 0},
    **{"predict_special_tokens": True, "output_past": True, "gradient_checkpointing": False},
    **{"task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}},
}
LLAMA = {  # Llama 2's and SmolLM2's
    **{"architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0},
    **{"hidden_act": "silu", "hidden_size": 576, "intermediate_size": 1536, "mlp_bias": False},
    **{"is_llama_config": True, "max_position_embeddings": 8192, "model_type": "llama"},
    **{"num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pretraining_tp": 1},
    **{"rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_scaling": None, "rope_theta": 100000},
    **{"tie_word_embeddings": True, "transformers.js_config": {}, "vocab_size": 49152, "head_dim": 64},
    **{"max_sequence_length": 8192, "unsloth_fixed": True, "unsloth_version": "2024.9"},
}


@pytest.mark.parametrize(("read", "values"), [(gpt2_config, GPT2), (llama_config, LLAMA)])
def test_configs_of_older_versions_are_still_read(read, values):
    assert read(GENERATION | values) == read(values)
