"""The kept copies of SmolLM2's expanded weights and tokenizer are exact, never stale, and never needed."""

import shutil
from dataclasses import replace

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf_files import CONFIG, write_gguf

from supertf.data.tokenizer import load_tokenizer, read_tokenizer
from supertf.model.gguf_files import read_gguf
from supertf.model.gpt import GPT
from supertf.model.pretrained import read_expanded


def source(folder, seed=0):
    torch.manual_seed(seed)
    write_gguf(GPT(replace(CONFIG, n_embd=32, n_inner=32)), folder / "small.gguf", quantized="Q4_1")
    return folder / "small.gguf"


def copy_of(path):
    return path.with_suffix(".float32.safetensors")


def equal(found, expected):
    (config, state), (expected_config, expected_state) = found, expected
    assert config == expected_config and state.keys() == expected_state.keys()
    return all(torch.equal(tensor, expected_state[name]) for name, tensor in state.items())


def test_a_second_reading_expands_nothing_and_is_equal_bit_for_bit(tmp_path, monkeypatch):
    path = source(tmp_path)
    expected = read_gguf(path)
    assert equal(read_expanded(path), expected)
    monkeypatch.setattr(gguf, "dequantize", lambda *_: pytest.fail("expanded again"))
    assert equal(read_expanded(path), expected)


def test_another_file_in_its_place_is_expanded_anew(tmp_path):
    path = source(tmp_path)
    before = read_expanded(path)
    source(tmp_path, seed=1)  # as many bytes
    assert equal(read_expanded(path), read_gguf(path)) and not equal(read_expanded(path), before)


def test_a_copy_made_by_other_code_is_made_anew(tmp_path, monkeypatch):
    path = source(tmp_path)
    expected = read_expanded(path)
    copy_of(path).touch()
    made = copy_of(path).stat().st_mtime_ns
    monkeypatch.setattr("supertf.files.sha256", lambda _: "another version")
    assert equal(read_expanded(path), expected) and copy_of(path).stat().st_mtime_ns != made


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    path = source(tmp_path_factory.mktemp("kept"))
    return path, read_expanded(path), copy_of(path).read_bytes()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_copy_is_noticed_and_made_anew(kept, data):
    path, expected, content = kept
    damaged = bytearray(content)
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged) - 1))]
    else:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    copy_of(path).unlink()  # the tensors of `expected` are mapped from it
    copy_of(path).write_bytes(damaged)
    assert equal(read_expanded(path), expected)
    assert equal(read_expanded(path), expected)


def test_a_setting_that_was_damaged_is_noticed_too(kept):
    path, expected, content = kept
    copy_of(path).unlink()
    copy_of(path).write_bytes(content.replace(rb"rope_base\": 10000.0", rb"rope_base\": 30000.0"))
    assert copy_of(path).read_bytes() != content and equal(read_expanded(path), expected)


def test_changing_the_loaded_weights_leaves_the_copy_as_it_is(tmp_path):
    path = source(tmp_path)
    read_expanded(path)
    for tensor in read_expanded(path)[1].values():
        tensor.zero_()
    assert equal(read_expanded(path), read_gguf(path))


def test_without_room_or_the_right_to_write_the_file_is_expanded_each_time(tmp_path, monkeypatch):
    path = source(tmp_path)
    copy_of(path).mkdir()  # nothing can be written there, whoever asks
    assert equal(read_expanded(path), read_gguf(path)) and copy_of(path).is_dir()
    copy_of(path).rmdir()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert equal(read_expanded(path), read_gguf(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [None, "{}", '{"source": 1}', "["])
def test_the_tokenizer_is_kept_in_the_same_way(tmp_path, monkeypatch, content):
    path, expected, read = source(tmp_path), load_tokenizer("bytes"), []
    monkeypatch.setattr("supertf.data.tokenizer.gguf_tokenizer", lambda place: read.append(place) or expected)
    if content:
        path.with_suffix(".tokenizer.json").write_text(content)
    for _ in range(2):
        found = read_tokenizer(path)
        assert (found.name, found._pat_str) == (expected.name, expected._pat_str)
        assert found._mergeable_ranks == expected._mergeable_ranks
        assert found._special_tokens == expected._special_tokens
    assert read == [path]
