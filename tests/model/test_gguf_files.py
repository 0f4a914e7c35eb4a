"""GGUF files: a written model comes back exactly, and a damaged file is one clear error."""

import contextlib
import dataclasses

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.gguf_files import GGUF_NAMES, pair_halves
from supertf.model.gpt import GPT
from supertf.model.hf_model import load
from supertf.model.pretrained import load_model

CONFIG = GPTConfig(
    vocab_size=40,
    n_ctx=32,
    n_layer=2,
    n_head=4,
    n_kv_head=2,
    n_embd=16,
    n_inner=24,
    position="rope",
    norm="rmsnorm",
    mlp="swiglu",
    bias=False,
    tie_head=False,
)


def pair_neighbours(weight, head_dim):
    """The inverse of `pair_halves`, as llama.cpp's converter does it."""
    rows, width = weight.shape
    return weight.view(rows // head_dim, 2, head_dim // 2, width).transpose(1, 2).reshape(rows, width)


def write_gguf(model, path, architecture="llama", quantized=None, fields=(), more=()):
    """A small model as a GGUF file in float32, or its matrices quantized, with other fields and tensors."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    if config.n_kv_head is not None:
        writer.add_head_count_kv(config.n_kv_head)
    for name, value in dict(fields).items():
        {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[
            type(value)
        ](name, value)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    tensors = {"embedding": model.wte.weight, "norm": model.ln_f.weight, "head": model.lm_head.weight}
    for layer, block in enumerate(model.h):
        width = config.kv_heads * config.head_dim
        q, k, v = block.attn.c_attn.weight.split([config.n_embd, width, width])
        gate, up = block.mlp.c_fc.weight.chunk(2)
        parts = {
            "ln_1": block.ln_1.weight,
            "ln_2": block.ln_2.weight,
            "q": pair_neighbours(q, config.head_dim),
        }
        parts |= {"k": pair_neighbours(k, config.head_dim), "v": v, "o": block.attn.c_proj.weight}
        parts |= {"gate": gate, "up": up, "down": block.mlp.c_proj.weight}
        tensors |= {f"{name} {layer}": tensor for name, tensor in parts.items()}
    for name, tensor in tensors.items():
        key, _, layer = name.partition(" ")
        data, kind = tensor.detach().numpy().astype(np.float32), None
        if quantized and data.ndim == 2:
            kind = gguf.GGMLQuantizationType[quantized]
            data = gguf.quantize(data, kind)
        writer.add_tensor(GGUF_NAMES[key].format(layer), data, raw_dtype=kind)
    for name, data in dict(more).items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    torch.manual_seed(0)
    model = GPT(CONFIG)
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(model, path)
    return model, path


def test_a_written_model_comes_back_exactly(small_file):
    model, path = small_file
    loaded = load_model(path)
    assert loaded.config == CONFIG
    for (name, before), after in zip(model.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(before, after), name


def test_pairing_halves_undoes_pairing_neighbours():
    weight = torch.arange(16 * 3.0).view(16, 3)
    assert torch.equal(pair_halves(pair_neighbours(weight, 4), 4), weight)


def test_other_architectures_are_refused_before_anything_is_expanded(small_file, tmp_path, monkeypatch):
    write_gguf(small_file[0], tmp_path / "other.gguf", architecture="mamba")
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("expanded"))
    for read in (load_model, load):
        with pytest.raises(UserError, match="architecture 'mamba'"):
            read(tmp_path / "other.gguf")


def test_a_file_without_the_number_of_key_heads_has_one_per_query_head(tmp_path):
    """The format's specification: when `attention.head_count_kv` is absent, the model does not use GQA."""
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(CONFIG, n_kv_head=None))
    write_gguf(model, tmp_path / "small.gguf")
    loaded, idx = load_model(tmp_path / "small.gguf"), torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(loaded(idx).logits, model.eval()(idx).logits)


HARMLESS = {  # said of the model of `small_file`, or of no effect
    "general.name": "small",
    "general.alignment": 32,
    "quantize.imatrix.chunks_count": 7,
    "tokenizer.ggml.pre": "smollm",
    "split.count": 1,
    "llama.vocab_size": 40,
    "llama.rope.dimension_count": 4,
    "llama.attention.key_length": 4,
    "llama.attention.value_length": 4,
    "llama.attention.causal": True,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.scaling.type": "none",
    "llama.rope.scaling.factor": 1.0,
    "llama.rope.scaling.original_context_length": 16,
    "llama.expert_count": 0,
    "llama.tensor_data_layout": "Meta AI original pth",
}
REFUSED = {
    "llama.attention.causal": False,
    "llama.rope.scaling.factor": 4.0,
    "llama.rope.scaling.type": "yarn",
    "llama.rope.scaling.attn_factor": 0.5,
    "llama.rope.scale_linear": 4.0,
    "llama.attention.sliding_window": 8,
    "llama.attention.clamp_kqv": 8.0,
    "llama.attention.scale": 0.1,
    "llama.attention.max_alibi_bias": 8.0,
    "llama.logit_scale": 0.1,
    "llama.residual_scale": 2.0,
    "llama.expert_count": 4,
    "llama.use_parallel_residual": True,
    "llama.tensor_data_layout": "reference",
    "llama.unheard_of": 1,
    "clip.use_silu": True,
    "general.type": "adapter",
    "split.count": 2,
}


def test_fields_that_ask_for_nothing_change_nothing(small_file, tmp_path):
    model, _ = small_file
    write_gguf(model, tmp_path / "small.gguf", fields=HARMLESS)
    assert load_model(tmp_path / "small.gguf").config == CONFIG


@pytest.mark.parametrize("name", REFUSED)
def test_a_field_that_changes_the_computation_is_refused_by_name(small_file, tmp_path, name, monkeypatch):
    """transformers overlooks all of them, so that nothing reads such a file right."""
    write_gguf(small_file[0], tmp_path / "small.gguf", fields={name: REFUSED[name]})
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("expanded"))
    named = {"general.type": "holds no model but 'adapter'", "split.count": "one part of 2"}.get(name, name)
    for read in (load_model, load):
        with pytest.raises(UserError, match=named) as caught:
            read(tmp_path / "small.gguf")
        assert "\n" not in str(caught.value)


def test_a_tensor_that_nobody_reads_is_refused(small_file, tmp_path, monkeypatch):
    """Llama 3 stores its scaled rotation as a tensor, which transformers overlooks."""
    write_gguf(small_file[0], tmp_path / "small.gguf", more={"rope_freqs.weight": np.ones(2, np.float32)})
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("expanded"))
    with pytest.raises(UserError, match=r"rope_freqs\.weight"):
        load_model(tmp_path / "small.gguf")
    with pytest.raises(UserError, match="would compute something else"):
        load(tmp_path / "small.gguf")


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_file_loads_or_is_a_user_error(small_file, tmp_path_factory, data):
    content = bytearray(small_file[1].read_bytes())
    header = 2200  # key-values and tensor descriptions; behind them lie only weights
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, header))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "file.gguf"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        load_model(path)
