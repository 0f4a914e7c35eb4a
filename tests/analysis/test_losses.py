"""Perplexity: every token once, with the context it should have."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tiny import tiny_config
from torch.nn import functional as F

from supertf.analysis.losses import loss_by_position, perplexity
from supertf.model.gpt import GPT

V, BOS = 257, 256


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(tiny_config(position="rope", attention="ssmax")).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # an untrained model hardly looks at its context
    return model


def text(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n))


def one_by_one(model, ids, contexts, bos) -> float:
    """Mean loss, each token alone: `contexts` gives how many tokens before token i are seen."""
    losses = []
    for i, context in contexts.items():
        seen = ids[i - context : i].tolist()
        logits = model(torch.tensor([[BOS, *seen] if bos else seen])).logits[0, -1]
        losses.append(F.cross_entropy(logits[None], ids[i : i + 1]).item())
    return sum(losses) / len(losses)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 90),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([None, BOS]),
    st.integers(1, 5),
)
def test_every_token_is_predicted_exactly_once(model, n, length, stride, bos_id, batch_size):
    stride = min(stride, length)
    found = perplexity(model, text(n), length, stride, batch_size, bos_id)
    assert found.tokens == n - (bos_id is None)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


@pytest.mark.parametrize("bos", [False, True])
def test_windows_side_by_side_give_growing_contexts(model, bos):
    """Tokens 1 ... 20 (0 ... 19 with BOS) in windows of 8; the last window ends with the text."""
    ids = text(21 - bos)
    found = perplexity(model, ids, 8, bos_id=BOS if bos else None)
    first = 0 if bos else 1
    contexts = {first + i: i % 8 + (not bos) for i in range(16)}
    contexts |= {first + i: i - 12 + (not bos) for i in range(16, 20)}  # the window of tokens 12 ... 19
    assert found.loss == pytest.approx(one_by_one(model, ids, contexts, bos), rel=1e-4)


def test_a_stride_of_one_gives_every_token_the_full_context(model):
    ids = text(30)
    contexts = {i: min(i, 8) for i in range(1, 30)}
    found = perplexity(model, ids, 8, stride=1)
    assert found.loss == pytest.approx(one_by_one(model, ids, contexts, bos=False), rel=1e-4)


def test_batches_do_not_change_the_result(model):
    ids = text(100)
    losses = [perplexity(model, ids, 16, 8, batch_size).loss for batch_size in (1, 3, 50)]
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


def test_a_uniform_model_has_the_vocabularys_perplexity():
    model = GPT(tiny_config()).eval()
    model.wte.weight.data.zero_()
    assert perplexity(model, text(50), 16).perplexity == pytest.approx(V, rel=1e-4)


def test_a_long_window_is_read_in_pieces_to_the_same_losses(model, monkeypatch):
    whole = loss_by_position(model, text(33), 16)
    monkeypatch.setattr("supertf.analysis.losses.CHUNK", 5)
    assert torch.allclose(loss_by_position(model, text(33), 16), whole, atol=1e-5)


def test_loss_by_position_agrees_with_perplexity(model):
    ids = text(65)  # four whole windows of 16
    losses = loss_by_position(model, ids, 16, batch_size=3)
    assert losses.shape == (16,)
    assert losses.mean().item() == pytest.approx(perplexity(model, ids, 16).loss, rel=1e-5)
    first = {1 + 16 * i: 1 for i in range(4)}
    assert losses[0].item() == pytest.approx(one_by_one(model, ids, first, bos=False), rel=1e-4)
