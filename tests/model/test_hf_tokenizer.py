"""The tokenizer beside a model decides, text is text, and ids that are no tokens are known."""

import warnings

import gguf
import pytest
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from own_tokenizers import SENTENCE, SPECIAL, own_tokenizer

from supertf.cli.subject import Subject
from supertf.data.byte_pairs import ENDOFTEXT, GPT2_PATTERN, bpe_encoding, bpe_parts, train_bpe, train_hf_bpe
from supertf.data.tokenizer import (
    load_tokenizer,
    save_tokenizer,
    tokenizer_from_spec,
    tokenizer_spec,
    unused_ids,
)
from supertf.errors import Note, UserError
from supertf.model import hf_tokenizer as of_any_model
from supertf.model.hf_tokenizer import HFTokenizer, hf_tokenizer, named_tokenizer, tokenizer_of
from supertf.model.pretrained import save_model

transformers = pytest.importorskip("transformers")
GPT2_SIZE = 50257
PEER = own_tokenizer()


@pytest.fixture
def by_name(monkeypatch):
    """Tokenizers known by name, none of which is loaded: what the name stands for is the name."""
    monkeypatch.setattr(of_any_model, "load_tokenizer", lambda name: name)


@pytest.mark.parametrize("place", ["gpt2-other", "smollm2-finetuned"])
def test_the_tokenizer_beside_a_model_decides_whatever_the_name(tmp_path, place):
    """The size and name of a well-known model, and another vocabulary."""
    fillers = [f"<x{i}>" for i in range(GPT2_SIZE - 300)]
    peer = own_tokenizer(added=fillers if place == "gpt2-other" else ())
    peer.save_pretrained(tmp_path / place)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        found = tokenizer_of(tmp_path / place, len(peer))
    assert found.encode_ordinary(SENTENCE) == peer.encode(SENTENCE)
    assert found.n_vocab == len(peer)


@pytest.mark.parametrize(
    ("model", "size", "tokenizer"),
    [
        ("models/gpt2-medium", GPT2_SIZE, "gpt2"),
        ("SmolLM2-135M", 49152, "smollm2-135m"),
        ("openai-community/gpt2", GPT2_SIZE, "gpt2"),  # a hub id that cannot be reached
    ],
)
def test_a_name_is_the_last_resort_and_said(tmp_path, monkeypatch, by_name, model, size, tokenizer):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "openai" not in model:
        (tmp_path / model).mkdir(parents=True)
    with pytest.warns(Note, match=f"no tokenizer beside the weights of .*taking {tokenizer}'s"):
        assert tokenizer_of(model, size) == tokenizer


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("owner/other", GPT2_SIZE),
        ("other", 49152),
        ("gpt2/other", GPT2_SIZE),
        ("gpt2", 50304),
        ("smollm2", 257),
    ],
)
def test_the_tokenizer_of_any_other_model_is_asked_for(tmp_path, monkeypatch, by_name, model, size):
    """A vocabulary of the same size is not the same vocabulary."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if model != "owner/other":
        (tmp_path / model).mkdir(parents=True)
    with pytest.raises(UserError, match=r"no tokenizer for .*one named with --tokenizer"):
        tokenizer_of(model, size)


def test_a_damaged_tokenizer_is_not_replaced_by_one_that_the_name_suggests(tmp_path, by_name):
    folder = tmp_path / "gpt2"
    own_tokenizer().save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(UserError, match="no tokenizer for"):
        tokenizer_of(folder, GPT2_SIZE)


def test_a_damaged_tokenizer_of_the_lab_is_not_replaced_either(tmp_path):
    path = tmp_path / "gpt2" / "tokenizer.json"
    path.parent.mkdir()
    save_tokenizer(load_tokenizer("bytes"), path)
    path.write_text(path.read_text().replace('"bytes"', '"bits"'))
    with pytest.raises(UserError, match="was changed since"):
        tokenizer_of(path.parent, GPT2_SIZE)


def write_vocabulary(path, vocab, merges, kind):
    """A GGUF file with a tokenizer and no weights."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    tokens = sorted(vocab, key=vocab.get)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == ENDOFTEXT else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocab[ENDOFTEXT])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def test_a_gguf_file_named_smollm2_has_the_vocabulary_that_is_in_it(tmp_path):
    vocab, merges = bpe_parts(train_hf_bpe([SENTENCE] * 20, 280))
    path = tmp_path / "smollm2-other.gguf"
    write_vocabulary(path, {**vocab, ENDOFTEXT: len(vocab)}, merges, "smollm")
    peer = bpe_encoding("peer", vocab, merges, GPT2_PATTERN, {ENDOFTEXT: len(vocab)})
    for found in (tokenizer_of(path, 49152), named_tokenizer(path)):
        assert found.encode_ordinary(SENTENCE) == peer.encode_ordinary(SENTENCE)
        assert found.eot_token == len(vocab)
        assert len(found.encode_ordinary("1984")) == 4  # each digit alone
        assert tokenizer_from_spec(tokenizer_spec(found)).eot_token == len(vocab)  # as a token file keeps it


def test_a_gguf_file_that_splits_otherwise_is_left_to_transformers(tmp_path):
    vocab, merges = bpe_parts(train_hf_bpe(["1984 and 1985, " + SENTENCE] * 20, 280))
    path = tmp_path / "smollm2-other.gguf"
    write_vocabulary(path, {**vocab, ENDOFTEXT: len(vocab)}, merges, "gpt-2")
    peer = bpe_encoding("peer", vocab, merges, GPT2_PATTERN, {ENDOFTEXT: len(vocab)})
    found = tokenizer_of(path, 49152)
    assert type(found) is HFTokenizer
    assert found.encode_ordinary("1984 " + SENTENCE) == peer.encode_ordinary("1984 " + SENTENCE)


def test_a_gguf_file_that_splits_in_a_way_unknown_to_transformers_is_refused(tmp_path):
    """It would take GPT-2's way without a word."""
    vocab, merges = bpe_parts(train_hf_bpe([SENTENCE] * 20, 280))
    path = tmp_path / "model.gguf"
    write_vocabulary(path, {**vocab, ENDOFTEXT: len(vocab)}, merges, "of-tomorrow")
    with pytest.raises(UserError, match=r"splits texts as 'of-tomorrow', .* --tokenizer"):
        tokenizer_of(path, 49152)


@pytest.mark.parametrize(
    "text", ["A page on <|endoftext|> and <|im_start|> as words.", "<|endoftext|>", "<s"]
)
def test_a_document_that_mentions_a_special_token_is_text_like_any_other(tmp_path, text):
    """The peer: the same merges in tiktoken, which is given the text as text."""
    peer = own_tokenizer(added=["<tool>"])
    peer.save_pretrained(tmp_path)
    tokenizer = hf_tokenizer(tmp_path)
    vocab, merges = bpe_parts(peer.backend_tokenizer)
    words = {token: index for token, index in vocab.items() if token not in SPECIAL}
    other = bpe_encoding("peer", words, merges, GPT2_PATTERN, {ENDOFTEXT: 0, SPECIAL[1]: 1})
    found = tokenizer.encode_ordinary(text)
    assert found == other.encode_ordinary(text)
    assert tokenizer.decode(found) == text
    assert tokenizer.encode(text, bos=False) == other.encode(text, allowed_special="all")
    # tokens that are added and not special belong to the text, as in transformers and llama.cpp
    assert tokenizer.encode_ordinary(f"a <tool> {text}")[2] == peer.convert_tokens_to_ids("<tool>")


def test_a_prompt_may_spell_special_tokens_and_the_documents_of_a_text_may_not(tmp_path):
    tiny("Qwen2").model.save_pretrained(tmp_path)
    own_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("On <|im_start|> and <|endoftext|>, as words.")
    subject = Subject(str(tmp_path))
    assert subject.encode("<|im_start|>a")[0] == 1
    ids = subject.read(str(tmp_path / "text.txt"), 999).tolist()
    assert ids.count(0) == 1 and ids[-1] == 0 and 1 not in ids


@settings(deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_any_text_is_encoded_and_half_a_surrogate_pair_is_a_replacement_character(text):
    tokenizer = HFTokenizer(PEER)
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == expected
    assert tokenizer.encode_ordinary("\ud83d") == tokenizer.encode("\udcff") == PEER.encode("�")


def test_ids_that_stand_for_no_token_are_known():
    assert unused_ids(load_tokenizer("bytes"), 260) == [257, 258, 259]
    assert unused_ids(train_bpe([SENTENCE], 270), 100) == []
    own = HFTokenizer(own_tokenizer(added=["<x>"]))
    size = own.n_vocab
    assert unused_ids(own, size) == [] and unused_ids(own, size + 2) == [size, size + 1]


def test_a_saved_copy_of_a_model_keeps_a_tokenizer_of_either_kind(tmp_path):
    save_model(tiny("supertf GELU"), tmp_path)
    PEER.save_pretrained(tmp_path)
    assert tokenizer_of(tmp_path, 50).encode_ordinary(SENTENCE) == PEER.encode(SENTENCE)
    save_tokenizer(load_tokenizer("bytes"), tmp_path / "tokenizer.json")
    assert tokenizer_of(tmp_path, 50).name == "bytes"


def test_a_tokenizer_is_named_by_its_name_its_file_or_a_model(tmp_path):
    PEER.save_pretrained(tmp_path / "hub")
    save_tokenizer(load_tokenizer("bytes"), tmp_path / "bytes.json")
    assert named_tokenizer("bytes").name == named_tokenizer(tmp_path / "bytes.json").name == "bytes"
    assert type(named_tokenizer(tmp_path / "hub")) is HFTokenizer
    for wrong in ("smollm", str(tmp_path / "absent.json")):
        with pytest.raises(UserError, match="no tokenizer called"):
            named_tokenizer(wrong)


def test_every_special_token_but_the_unknown_one_ends_a_text():
    tokenizer = own_tokenizer()
    tokenizer.add_special_tokens({"unk_token": "<unk>"})
    assert HFTokenizer(tokenizer).ends == {0, 1}
