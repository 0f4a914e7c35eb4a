"""Stretches of a text: disjoint parts, windows behind a BOS token; the lab's own text, made once."""

import pytest
import torch

from supertf.data import reading
from supertf.data.reading import lab_tokens, read_ids
from supertf.data.text import Text, held_out_texts, read_tokens
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError

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


def test_one_number_of_windows_gives_one_text(book):
    text = read_tokens(book, load_tokenizer("bytes"), windows=2, length=8)
    assert isinstance(text, Text) and (len(text), text.length, text.name) == (17, 8, book)


def test_the_labs_tokens_may_be_made_by_two_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    monkeypatch.setattr(reading, "iter_documents", lambda *_, **__: [STORY] * 100)
    prepare, faster = reading.prepare, []

    def slow(documents, *arguments, **options):
        def meanwhile():
            yield from documents
            monkeypatch.setattr(reading, "prepare", prepare)
            faster.extend(lab_tokens(257))

        return prepare(meanwhile(), *arguments, **options)

    monkeypatch.setattr(reading, "prepare", slow)
    for ours, theirs in zip(lab_tokens(257), faster, strict=True):
        ours.verify()
        assert ours.manifest == theirs.manifest
    (folder,) = (tmp_path / "lab-tokens").iterdir()  # nothing else is left behind
    assert {path.parent for path in (ours.path, theirs.path)} == {folder}


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
