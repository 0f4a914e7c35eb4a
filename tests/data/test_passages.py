"""Passages for last words: their word was in them before, and none shares a word with another."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supertf.data.corpus import iter_documents
from supertf.data.passages import LEAST, MOST, STOP, last_words, passages
from supertf.data.texts import TEXTS
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError

WORDS = [
    "harbour",
    "boat",
    "sailed",
    "the",
    "from",
    "sea",
    "boat.",
    "harbour!",
    "sea.",
    "from.",
    "Boat,",
    "(sea)",
]


@given(st.lists(st.sampled_from(WORDS), max_size=200), st.sampled_from([" ", "\n", "  "]))
def test_a_passage_ends_in_a_word_that_it_had_before(words, space):
    document = space.join(words)
    found, rest = passages(document), document
    for before, word in found:
        assert LEAST <= len(before.split()) <= MOST
        assert len(word) >= 4 and word.lower() not in STOP
        assert word.lower() in {re.sub(r"\W", "", one).lower() for one in before.split()}
        _, found_it, rest = rest.partition(before)  # further on than the passage before
        assert found_it and re.match(rf"\s+{word}[.!?](\s|$)", rest)


def test_a_passage_is_found_where_there_is_one():
    filler = " ".join(["word"] * LEAST)
    assert passages(f"boat {filler} the boat.") == [(f"boat {filler} the", "boat")]
    assert passages(f"boat {filler} the ship.") == []
    assert passages("boat and then the boat.") == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_shipped_text_has_a_hundred_passages_of_what_is_scored(name):
    tokenizer = load_tokenizer("bytes")
    found = last_words(name, tokenizer)
    assert len(found) == 100
    scored = "\n".join(iter_documents(f"{name}:evaluate"))
    for one in found:
        before, word = tokenizer.decode(one.ids[: -one.size]), tokenizer.decode(one.ids[-one.size :])
        assert before in scored and word.startswith(" ")
        assert one.size == len(word)


def test_more_passages_than_there_are_is_one_line():
    with pytest.raises(UserError, match=r"prose has \d+ passages to score .* not 10000: ask for fewer"):
        last_words("prose", load_tokenizer("bytes"), 10_000)
