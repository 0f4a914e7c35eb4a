"""Stretches of a text: disjoint parts, windows behind a BOS token; the lab's own text, made once."""

import warnings

import pytest
import torch

from supertf.data.reading import read_ids
from supertf.data.text import Text, held_out_texts, read_tokens
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import Note, UserError

STORY = "It was a line of a book, and then another. " * 9  # 387 bytes


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(STORY)
    return str(path)


@pytest.mark.parametrize("bos_id", [None, 256])
def test_parts_follow_each_other_and_share_no_token(book, bos_id):
    tokenizer = load_tokenizer("bytes")
    tokenizer.bos_id = bos_id
    first, second, third = read_tokens(book, tokenizer, windows=(3, 2, 1), length=16)
    assert len(first) == 3 * 16 + (bos_id is None)  # one more, the last target
    assert len(second) == 2 * (16 - (bos_id is not None))
    ids = torch.cat([first.ids, second.ids, third.ids])
    assert torch.equal(ids, torch.from_numpy(read_ids(book, tokenizer, len(ids))))
    windows = second.windows()
    assert windows.shape == (2, 16)
    if bos_id is None:
        assert torch.equal(windows.flatten(), second.ids)
    else:
        assert (windows[:, 0] == bos_id).all() and torch.equal(windows[:, 1:].flatten(), second.ids)


def test_parts_of_a_shipped_text_are_its_roles():
    tokenizer = load_tokenizer("bytes")
    first, second, third = read_tokens("prose", tokenizer, windows=(2, 2, 2), length=64)
    alone = read_tokens("prose", tokenizer, windows=2, length=64)
    assert [text.name for text in (first, second, third)] == [
        "prose:evaluate",
        "prose:calibrate",
        "prose:fit",
    ]
    assert alone.name == "prose:evaluate" and torch.equal(alone.ids, first.ids)
    one = read_tokens("prose:calibrate", tokenizer, windows=2, length=64)
    assert torch.equal(one.ids[: len(second)], second.ids)
    with pytest.raises(UserError, match=r"4 parts of prose, which has evaluate, calibrate, fit"):
        read_tokens("prose", tokenizer, windows=(1, 1, 1, 1), length=64)
    with pytest.raises(UserError, match=r"prose:calibrate has \d+ tokens, and 512000 are asked for"):
        read_tokens("prose", tokenizer, windows=(1, 1000), length=512)


@pytest.mark.real_model
def test_a_text_that_repeats_what_is_scored_says_so(tmp_path):
    path, tokenizer = tmp_path / "book.txt", load_tokenizer("smollm2-135m")
    path.write_text(STORY * 9)
    with pytest.warns(Note, match=r"book.txt repeats itself: 13 of the 14 runs of 20 tokens"):
        read_tokens(str(path), tokenizer, windows=(1, 4), length=32)
    path.write_text(" ".join(map(str, range(3000))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_tokens(str(path), tokenizer, windows=(1, 4), length=32)


def test_one_number_of_windows_gives_one_text(book):
    text = read_tokens(book, load_tokenizer("bytes"), windows=2, length=8)
    assert isinstance(text, Text) and (len(text), text.length, text.name) == (17, 8, book)


@pytest.mark.parametrize("bos_id", [None, 256])
def test_texts_to_score_are_disjoint_and_of_the_length_asked_for(bos_id):
    tokenizer = load_tokenizer("bytes")
    tokenizer.bos_id = bos_id
    texts = held_out_texts("prose", tokenizer, count=12, windows=2, length=256)
    assert [text.name for text in texts] == [f"prose:evaluate:{part}" for part in range(12)]
    assert {len(text) for text in texts} == {2 * 256 + (bos_id is None)}


def test_texts_to_score_that_are_too_short_or_too_many_are_refused():
    tokenizer = load_tokenizer("bytes")
    with pytest.raises(UserError, match=r"13 texts of prose to score; choose 1 to 12"):
        held_out_texts("prose", tokenizer, count=13)
    with pytest.raises(UserError, match=r"prose:evaluate:0 has \d+ tokens, and 512001 are to be held out"):
        held_out_texts("prose", tokenizer, windows=1000)
