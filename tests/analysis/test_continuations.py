"""Continuations: their probability is the product of their tokens', in batches as one by one."""

import pytest
import torch

from supertf.analysis.continuations import Continuation, score_continuations
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.generation import generate
from supertf.model.gpt import GPT


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=20, n_ctx=12, n_layer=2, n_head=2, n_embd=16, position="learned")
    return GPT(config).eval()


@torch.inference_mode()
def test_token_by_token_gives_the_same(model):
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 20, (2 + i % 9,), generator=generator).tolist() for i in range(20)]
    asked = [Continuation(text[: 1 + len(text) // 3], text[1 + len(text) // 3 :] or text) for text in texts]
    found = score_continuations(model, asked, batch_size=7)
    for one, scored in zip(asked, found, strict=True):
        text, total = list(one.context), 0.0
        for token in one.ids:
            total += model(torch.tensor([text])).logits[0, -1].double().log_softmax(-1)[token].item()
            text.append(token)
        assert scored.log_probability == pytest.approx(total, abs=1e-4)
        assert scored.greedy == (generate(model, list(one.context), len(one.ids)) == list(one.ids))


def test_a_text_as_long_as_the_table_of_positions_and_one_more_is_read(model):
    text = list(range(13))
    assert len(score_continuations(model, [Continuation(text[:5], text[5:])])) == 1


def test_a_token_that_is_only_predicted_must_be_in_the_vocabulary(model):
    with pytest.raises(UserError, match="the texts"):
        score_continuations(model, [Continuation([1], [20])])
