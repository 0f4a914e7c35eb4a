"""Last words: found where greedy decoding writes them, in batches as one by one."""

import pytest
import torch

from supertf.analysis.last_words import finds_last_words
from supertf.data.passages import Passage
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.generation import generate
from supertf.model.gpt import GPT


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=20, n_ctx=32, n_layer=2, n_head=2, n_embd=16)).eval()


def test_a_word_is_found_where_greedy_decoding_writes_it(model):
    passages, expected = [], []
    for number in range(12):
        start = [number, number + 1, number + 2][: 1 + number % 3]
        size = 1 + number % 4
        word = generate(model, start, size)[-size:]
        if number % 2:  # one wrong token, the last or the first of it
            wrong = -1 if number % 4 == 1 else 0
            word[wrong] = (word[wrong] + 1) % 20
        passages.append(Passage((*start, *word), size))
        expected.append(number % 2 == 0)
    assert finds_last_words(model, passages, batch_size=5) == expected
    assert [finds_last_words(model, [one])[0] for one in passages] == expected
    assert finds_last_words(model, []) == []


def test_tokens_of_another_vocabulary_are_refused(model):
    with pytest.raises(UserError, match="the passages"):
        finds_last_words(model, [Passage((1, 2, 99), 1)])
