"""The residual stream's states are the model's own, and outliers put into it are found and measured."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.analysis.peak_entries import peak
from supertf.analysis.residual_stream import hidden_states, measure, residual_stats, token_layout
from supertf.data.tokenizer import load_tokenizer
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT

TINY = GPTConfig(vocab_size=40, n_ctx=16, n_layer=3, n_head=4, n_embd=32)
pytestmark = pytest.mark.usefixtures("one_thread")


def tiny_model(**changes):
    torch.manual_seed(0)
    return GPT(dataclasses.replace(TINY, **changes)).eval()


def tokens(B=2, T=12):
    return torch.randint(0, 40, (B, T), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("position", ["none", "learned", "sinusoidal", "rope", "alibi"])
@pytest.mark.parametrize("segments", [None, torch.tensor([[1] * 5 + [2] * 7, [0] * 3 + [1] * 9])])
def test_the_states_are_those_of_the_model(position, segments):
    model = tiny_model(position=position)
    states = list(hidden_states(model, tokens(), token_layout(model, tokens(), segments)))
    assert [tuple(x.shape) for x in states] == [(2, 12, 32)] * 4
    logits = model.lm_head(model.ln_f(states[-1]))
    assert torch.equal(logits, model(tokens(), segments=segments).logits)


def test_tokens_of_several_ids_are_read():
    pair = torch.stack([tokens(), tokens().flip(0)], dim=-1)
    assert next(hidden_states(tiny_model(position="none"), pair)).shape == (2, 12, 32)


def test_blocks_after_the_last_state_taken_do_not_run():
    model = tiny_model()
    model.h[1].register_forward_pre_hook(lambda *_: pytest.fail("ran"))
    states = hidden_states(model, tokens())
    next(states), next(states)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), B=st.integers(1, 3), T=st.integers(1, 9), C=st.integers(2, 40))
def test_kurtosis_lies_between_1_and_the_number_of_channels(seed, B, T, C):
    x = torch.randn(B, T, C, generator=torch.Generator().manual_seed(seed)) ** 3
    assert 1 - 1e-9 <= measure(0, x).kurtosis <= C + 1e-9


def test_kurtosis_at_its_ends_and_of_a_gaussian_token():
    alone = torch.zeros(2, 5, 8)
    alone[..., 3] = 7.0
    assert measure(0, alone + 1e-12).kurtosis == pytest.approx(8)
    equal = torch.randint(0, 2, (2, 5, 8), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    assert measure(0, equal).kurtosis == pytest.approx(1)
    gaussian = torch.randn(1, 1, 100_000, generator=torch.Generator().manual_seed(0))
    assert measure(0, gaussian).kurtosis == pytest.approx(3, abs=0.1)


def test_a_planted_massive_activation_is_found_with_its_place():
    x = torch.ones(2, 6, 5)
    x[1, 4, 2] = -500.0
    stats = measure(3, x)
    assert stats.layer == 3 and stats.row == 1
    assert (stats.largest.value, stats.largest.token, stats.largest.channel) == (-500.0, 4, 2)
    assert stats.max_over_median == pytest.approx((1 + 500) / 2)  # mean of the two sequences
    assert stats.by_position.tolist() == pytest.approx([1, 1, 1, 1, (1 + 500) / 2, 1])


def test_a_bfloat16_model_is_measured():
    stats = residual_stats(tiny_model().bfloat16(), tokens())
    reference = residual_stats(tiny_model(), tokens())
    assert [one.layer for one in stats] == [0, 1, 2, 3]
    for one, exact in zip(stats, reference, strict=True):
        assert one.kurtosis == pytest.approx(exact.kurtosis, rel=0.05)


def test_a_peak_is_what_a_search_of_all_entries_gives():
    torch.manual_seed(0)
    for shape, dtype in [((1, 5, 7), torch.float32), ((40, 3), torch.bfloat16), ((2, 3, 4), torch.float64)]:
        for sign in (1, -1):
            x = (sign * torch.randn(shape).abs()).to(dtype)
            rows = x.reshape(-1, shape[-1])
            token, channel = divmod(int(rows.abs().flatten().argmax()), shape[-1])
            found = peak(x)
            assert (found.token, found.channel, found.value) == (token, channel, rows[token, channel].item())
            median = rows.abs().amax(0).float().median().item()
            assert found.ratio == pytest.approx(abs(found.value) / median)


def test_silent_channels_of_a_relu_do_not_count_in_a_peaks_ratio():
    assert peak(torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 8.0]])).ratio == 4.0
    assert peak(torch.zeros(2, 3)).ratio == 1.0


@pytest.mark.real_model
def test_the_massive_activation_of_the_real_model(smollm2):
    """Channel 507 of the first token, written by the super weight of layer 11, removed by the last layers."""
    idx = torch.tensor([load_tokenizer("smollm2-135m").encode("Apple Inc. is a worldwide tech company.")])
    stats = residual_stats(smollm2, idx)
    assert len(stats) == 31
    for one in stats[12:29]:  # after block 11
        assert (one.largest.token, one.largest.channel) == (0, 507)
        assert one.largest.value > 20_000 and one.max_over_median > 1000  # Sun et al. call this massive
        assert one.kurtosis > 500  # of 576
        assert one.by_position[1:].max() < one.max_over_median / 10  # the first token's alone
    assert stats[0].kurtosis < 10 and stats[0].max_over_median < 50
    assert stats[11].largest.value < 1000 and stats[30].largest.value < 5000
