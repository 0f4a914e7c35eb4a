"""GGUF files: a written model comes back exactly, and a damaged file is one clear error."""

import contextlib

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.gguf_weights import GGUF_NAMES, pair_halves
from supertf.model import GPT
from supertf.pretrained import load_model

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


def write_gguf(model, path, architecture="llama", quantized=None, leave_out=(), fields=(), more=()):
    """A small model as a GGUF file in float32, or its matrices quantized, with other fields and tensors."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_inner)
    writer.add_head_count(config.n_head)
    if "head_count_kv" not in leave_out:
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


def test_other_architectures_are_refused(small_file, tmp_path):
    write_gguf(small_file[0], tmp_path / "other.gguf", architecture="mamba")
    with pytest.raises(UserError, match="architecture 'mamba'"):
        load_model(tmp_path / "other.gguf")


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
