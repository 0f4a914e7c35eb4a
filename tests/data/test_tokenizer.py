"""Tokenizers: round trips, equality with the reference library, and damaged files."""

import pydoc_data.topics
import re

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from supertf.data import byte_pairs
from supertf.data.byte_pairs import (
    ENDOFTEXT,
    GPT2_PATTERN,
    bpe_encoding,
    bpe_parts,
    bytes_to_unicode,
    train_bpe,
    train_hf_bpe,
)
from supertf.data.downloads import is_present
from supertf.data.tokenizer import (
    BUILT_IN,
    load_tokenizer,
    save_tokenizer,
    tokenizer_from_spec,
    tokenizer_spec,
)
from supertf.errors import UserError

TOPICS = [text for _, text in sorted(pydoc_data.topics.topics.items())]


@pytest.fixture(scope="module")
def bpe():
    return train_bpe(TOPICS[:40], 1000)


@given(st.text())
def test_any_text_survives_a_round_trip(bpe, text):
    for encoding in (bpe, load_tokenizer("bytes")):
        assert encoding.decode(encoding.encode_ordinary(text)) == text


@given(st.text(), st.text())
def test_bytes_are_utf8_bytes(left, right):
    encoding = load_tokenizer("bytes")
    assert encoding.encode_ordinary(left + right) == list((left + right).encode())


@pytest.fixture(scope="module", params=["bpe", *BUILT_IN])
def encoding(request, bpe):
    """Each of the lab's tokenizers that is here."""
    if request.param == "bpe":
        return bpe
    needed = {"gpt2": "gpt2-vocabulary", "smollm2-135m": "smollm2-135m"}.get(request.param)
    if needed and not is_present(needed):
        pytest.skip(f"needs `supertf fetch {needed}`")
    return load_tokenizer(request.param)


def all_ways(encoding, text):
    """What every method that encodes gives, each as a list."""
    return [
        encoding.encode_ordinary(text),
        encoding.encode(text, disallowed_special=()),
        encoding.encode_to_numpy(text, disallowed_special=()).tolist(),
        encoding.encode_batch([text], disallowed_special=())[0],
        encoding.encode_ordinary_batch([text])[0],
    ]


@pytest.mark.parametrize("unit", [" ", "\r\n"])
def test_a_million_characters_in_a_row_are_encoded(encoding, unit):
    """tiktoken gives up after a million characters of white space: an error, or a panic of Rust."""
    text = "A table" + unit * (1_100_000 // len(unit)) + "ends."
    ids = encoding.encode_ordinary(text)
    assert encoding.decode(ids) == text
    assert encoding.encode(text) == ids


@given(
    runs=st.lists(
        st.tuples(
            st.text(st.sampled_from(" \n\t\u3000"), max_size=40),
            st.text(st.sampled_from("aé漢🙂1!'"), max_size=6),
        ),
        max_size=6,
    )
)
def test_only_very_long_white_space_is_cut(encoding, runs):
    """Against tiktoken without the cut, here made at 8 characters in place of 100,000."""
    text = "".join(space + word for space, word in runs)
    longest = max(map(len, re.findall(r"\s+", text)), default=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_pairs, "SPACES", 8)
        first, *others = all_ways(encoding, text)
        parts = [match.group() for part in byte_pairs._cut(text) for match in re.finditer(r"\s+", part)]
    assert all(ids == first for ids in others)
    assert encoding.decode(first) == text
    assert all(len(run) < 3 * 8 for run in parts)
    if longest < 2 * 8:
        assert first == tiktoken.Encoding.encode_ordinary(encoding, text)


def test_a_special_token_after_long_white_space_is_still_read(encoding):
    spaces = " " * 1_100_000
    ids = encoding.encode(f"{spaces}{ENDOFTEXT}", allowed_special="all")
    assert ids == [*encoding.encode_ordinary(spaces), encoding.eot_token]
    with pytest.raises(ValueError, match="disallowed special token"):
        encoding.encode(f"{spaces}{ENDOFTEXT}")


def test_half_a_surrogate_pair_is_the_replacement_character(encoding):
    first, *others = all_ways(encoding, "half \ud83d of a pair, whole \ud83d\ude42")
    assert encoding.decode(first) == "half \ufffd of a pair, whole \U0001f642"
    assert all(ids == first for ids in others)


def test_trained_bpe_gives_the_ids_of_the_library_that_trained_it(bpe):
    reference = train_hf_bpe(TOPICS[:40], 999)
    for text in [*TOPICS, "l'été  \n\n\t x = 3_000  ", "naïve 漢字 🙂", " ", ""]:
        assert bpe.encode_ordinary(text) == reference.encode(text).ids


def test_trained_vocabulary_has_the_size_asked_for_and_one_special_token(bpe):
    assert bpe.n_vocab == 1000
    assert bpe.eot_token == 999
    assert bpe.encode(ENDOFTEXT, allowed_special="all") == [999]
    assert 999 not in bpe.encode_ordinary(f"text that mentions {ENDOFTEXT}")


def test_training_is_deterministic(bpe):
    assert train_bpe(TOPICS[:40], 1000)._mergeable_ranks == bpe._mergeable_ranks


def test_long_words_are_cut_for_training_and_others_are_not(bpe):
    """A vocabulary of ordinary text is the library's own; a run of spaces costs no minutes."""
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=999, initial_alphabet=alphabet, show_progress=False)
    plain.train_from_iterator([*TOPICS[:40], "x" * 1000], trainer)
    assert bpe_parts(train_hf_bpe([*TOPICS[:40], "x" * 1000], 999)) == bpe_parts(plain)
    for character in " x漢":
        text = f"a table{character * 200_000}end"
        trained = train_bpe([text], 264)
        assert trained.decode(trained.encode_ordinary(text)) == text
        assert trained.n_vocab == 264


def test_saved_tokenizer_loads_unchanged(bpe, tmp_path):
    save_tokenizer(bpe, tmp_path / "bpe.json")
    loaded = load_tokenizer(tmp_path / "bpe.json")
    assert (loaded.name, loaded.n_vocab, loaded.eot_token) == (bpe.name, bpe.n_vocab, bpe.eot_token)
    assert loaded.encode_ordinary(TOPICS[3]) == bpe.encode_ordinary(TOPICS[3])


def test_spec_of_a_built_in_is_its_name_and_of_another_is_whole(bpe):
    assert tokenizer_spec(load_tokenizer("bytes")) == "bytes"
    assert tokenizer_from_spec(tokenizer_spec(bpe))._mergeable_ranks == bpe._mergeable_ranks


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_tokenizer_file_is_refused(bpe, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "bpe.json"
    save_tokenizer(bpe, path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 3))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    try:
        loaded = load_tokenizer(path)
    except UserError:
        return
    assert loaded._mergeable_ranks == bpe._mergeable_ranks  # only white space between fields can change


@given(st.binary())
def test_any_file_as_tokenizer_gives_only_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "bpe.json"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_tokenizer(path)


@given(st.text(st.sampled_from("ab!\x04é\n ߿ࠀ\U0001f642\U00050000")))
def test_characters_without_bytes_in_the_vocabulary_are_dropped(text):
    missing = {0x04, 0xDF, 0xE0, 0xF1}  # first bytes of \x04, U+07FF, U+0800 and U+50000
    vocab = {character: byte for byte, character in bytes_to_unicode().items() if byte not in missing}
    encoding = bpe_encoding("partial", vocab, [], GPT2_PATTERN, {ENDOFTEXT: 256})
    kept = "".join(character for character in text if character not in "\x04߿ࠀ\U00050000")
    for ids in (
        encoding.encode_ordinary(text),
        encoding.encode(text),
        encoding.encode_to_numpy(text).tolist(),
    ):
        assert encoding.decode(ids) == kept
    reference = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    reference.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert encoding.encode_ordinary(kept) == reference.encode(kept).ids


def test_bytes_to_unicode_is_the_spelling_of_the_reference_library():
    assert set(bytes_to_unicode().values()) == set(pre_tokenizers.ByteLevel.alphabet())
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(
        "é \n\x00~\xad"
    )
    assert spelled[0][0] == "".join(bytes_to_unicode()[byte] for byte in "é \n\x00~\xad".encode())


@pytest.mark.skipif(not is_present("gpt2-vocabulary"), reason="needs `supertf fetch gpt2-vocabulary`")
def test_gpt2_vocabulary(monkeypatch):
    monkeypatch.setattr("tiktoken.registry.ENCODINGS", {})  # not a copy loaded earlier
    encoding = load_tokenizer("gpt2")
    assert encoding.n_vocab == 50257
    assert encoding.encode_ordinary("Hello world") == [15496, 995]


def test_absent_gpt2_vocabulary_names_the_command_that_fetches_it(monkeypatch, tmp_path):
    def offline(name):
        raise ConnectionError(name)

    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setattr("tiktoken.get_encoding", offline)
    with pytest.raises(UserError, match="supertf fetch gpt2-vocabulary"):
        load_tokenizer("gpt2")
