"""FlexAttention gives what the other kernels give, and leaves the model as it was."""

import contextlib

import pytest
import torch
from tiny import tiny_config

from supertf.errors import UserError
from supertf.model.attention import CausalSelfAttention, layout
from supertf.model.flex import by_flex_attention
from supertf.model.gpt import GPT

SEGMENTS = torch.tensor([[1] * 5 + [2] * 7 + [3] * 4, [0] * 3 + [7] * 9 + [0] * 2 + [1] * 2])  # (2, 16)


def a_model(**changes):
    torch.manual_seed(0)
    shape = {"vocab_size": 20, "n_ctx": 16, "n_layer": 2, "n_head": 4, "n_embd": 32, "init_std": 0.3}
    return GPT(tiny_config(**{**shape, **changes}))


def tokens():
    return torch.randint(20, (2, 16), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["plain", "packed and padded"])
@pytest.mark.parametrize(
    "changes",
    [
        {"position": "alibi"},
        {"position": "alibi", "attention": "ssmax", "n_kv_head": 2},
        {"position": "rope", "attention": "ssmax"},
        {"position": "none"},
    ],
    ids=str,
)
@torch.inference_mode()
def test_logits_are_those_of_the_other_kernels(changes, segments):
    model = a_model(**changes).eval()
    expected = model(tokens(), segments=segments).logits
    with by_flex_attention(model):
        found = model(tokens(), segments=segments).logits
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert {type(block.attn) for block in model.h} == {CausalSelfAttention}


def test_gradients_on_a_processor_are_refused():
    model = a_model(position="alibi")
    with pytest.raises(UserError, match="no gradients on a processor"), by_flex_attention(model):
        model(tokens(), tokens())


def test_no_mask_of_all_pairs_is_made(monkeypatch):
    model = a_model(position="alibi")
    monkeypatch.setattr(CausalSelfAttention, "alibi_bias", None)
    made = []
    real = layout(16, segments=SEGMENTS)
    monkeypatch.setattr("supertf.model.gpt.layout", lambda *_: made.append(real) or real)
    with torch.inference_mode(), by_flex_attention(model):
        model(tokens(), segments=SEGMENTS)
    assert len(made) == 1 and list(real.made) == [("blocks",)]


def test_what_it_cannot_do_is_done_as_before():
    model = a_model(position="alibi", dropout=0.5).eval()
    expected = model(tokens(), output_attentions=True)
    zero = a_model(position="alibi", zero_key=True).eval()
    without = zero(tokens()).logits
    with torch.inference_mode(), by_flex_attention(model), by_flex_attention(zero):
        found = model(tokens(), output_attentions=True)
        assert torch.equal(found.attentions[0], expected.attentions[0])
        assert torch.equal(zero(tokens()).logits, without)
        cache = model.new_cache()
        steps = [model(tokens()[:, t : t + 1], cache=cache).logits for t in range(16)]
    torch.testing.assert_close(torch.cat(steps, dim=1), expected.logits, atol=2e-5, rtol=1e-4)


def test_the_model_is_itself_again_also_after_an_error():
    model = a_model()
    with pytest.raises(RuntimeError, match="out of luck"), by_flex_attention(model):
        raise RuntimeError("out of luck")
    assert {type(block.attn) for block in model.h} == {CausalSelfAttention}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_compiled_on_a_gpu_it_gives_the_same_and_needs_less_memory_for_long_texts():
    model = a_model(position="alibi", n_embd=64, n_ctx=4096).cuda().eval()
    idx = torch.randint(20, (1, 4096), device="cuda")
    segments = (torch.arange(4096, device="cuda") // 512 + 1)[None]
    peaks, losses, gradients = [], [], []
    for context in (contextlib.nullcontext(), by_flex_attention(model)):
        with context:
            torch.cuda.reset_peak_memory_stats()
            loss = model(idx, idx, segments=segments).loss
            gradients.append(torch.autograd.grad(loss, model.h[0].attn.c_attn.weight)[0])
            losses.append(loss.detach())
            peaks.append(torch.cuda.max_memory_allocated())
    torch.testing.assert_close(losses[1], losses[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-3, rtol=1e-2)
    assert peaks[1] < peaks[0]
