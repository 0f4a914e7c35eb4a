"""Generation: the cache changes nothing but the speed, sampling obeys its settings, limits are said."""

import dataclasses

import pytest
import torch

from supertf.errors import UserError
from supertf.model import generation
from supertf.model.config import ATTENTIONS, POSITIONS, GPTConfig
from supertf.model.generation import choose, generate, stream
from supertf.model.gpt import GPT, KVCache

pytestmark = pytest.mark.kernels

TINY = GPTConfig(
    vocab_size=50, n_ctx=24, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_inner=48, tie_head=False
)
PROMPT = [3, 1, 4, 1, 5, 9]


def tiny_model(**changes):
    torch.manual_seed(0)
    model = GPT(dataclasses.replace(TINY, **changes)).double().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.mul_(4)  # less uniform attention
    return model


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
def test_cached_generation_equals_generation_without_a_cache(attention, position):
    model = tiny_model(attention=attention, position=position)
    ends = position == "learned" or attention == "free"
    room = 18 if ends else 60  # beyond the trained context of 24 where the model can
    for temperature in (0.0, 1.0):
        cached = generate(model, PROMPT, room, temperature=temperature)
        assert cached == generate(model, PROMPT, room, temperature=temperature, use_cache=False)
    assert len(set(cached)) > 5  # the sampled text is more than a loop


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
def test_reading_in_chunks_gives_the_logits_of_reading_at_once(attention, position):
    model = tiny_model(attention=attention, position=position)
    idx = torch.randint(0, 50, (2, 20), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[1] * 20, [0] * 5 + [1] * 6 + [2] * 9])
    for row_segments in (None, segments):
        whole = model(idx, segments=row_segments).logits
        cache = KVCache(TINY.n_layer)
        pieces = [
            model(
                idx[:, a:b], segments=None if row_segments is None else row_segments[:, a:b], cache=cache
            ).logits
            for a, b in ((0, 7), (7, 8), (8, 14), (14, 20))
        ]
        assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-10, rtol=0)


@pytest.mark.parametrize("position", ["none", "rope", "alibi"])
def test_a_long_prompt_is_read_in_pieces_and_continued_as_if_it_were_not(monkeypatch, position):
    model, prompt = tiny_model(position=position, attention="ssmax"), [i * i % 50 for i in range(70)]
    whole = generate(model, prompt, 8)
    monkeypatch.setattr(generation, "PIECE", 16)
    monkeypatch.setattr(generation, "MASK", 16 * 48)  # behind 32 tokens the pieces become smaller
    pieces = list(generation.in_pieces(prompt, 0))
    assert [i for piece in pieces for i in piece] == prompt
    assert [len(piece) for piece in pieces] == [16, 16, 16, 12, 10]
    assert generate(model, prompt, 8) == whole == generate(model, prompt, 8, use_cache=False)


def test_chunks_without_segments_continue_the_last_document():
    model = tiny_model(position="rope", attention="ssmax")
    idx = torch.randint(0, 50, (2, 12), generator=torch.Generator().manual_seed(0))
    segments = torch.tensor([[1] * 12, [0] * 3 + [1] * 3 + [2] * 6])
    whole = model(idx, segments=segments).logits
    cache = KVCache(TINY.n_layer)
    model(idx[:, :8], segments=segments[:, :8], cache=cache)
    assert torch.allclose(model(idx[:, 8:], cache=cache).logits, whole[:, 8:], atol=1e-10, rtol=0)


def test_chunks_without_segments_cannot_continue_a_row_that_ends_in_padding():
    model = tiny_model(position="rope")
    idx = torch.zeros(2, 4, dtype=torch.long)
    cache = KVCache(TINY.n_layer)
    model(idx, segments=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]), cache=cache)
    with pytest.raises(UserError, match="ends in padding"):
        model(idx[:, :1], cache=cache)
    assert cache.length == 4
    model(idx[:, :1], segments=torch.tensor([[1], [2]]), cache=cache)  # a new document may follow


def test_learned_positions_say_why_they_end_and_others_go_on():
    with pytest.raises(UserError, match="24 learned positions"):
        generate(tiny_model(position="learned"), PROMPT, 20)
    with pytest.raises(UserError, match="learned positions for 24 tokens and was given 25"):
        tiny_model(position="learned")(torch.zeros(1, 25, dtype=torch.long))
    assert len(generate(tiny_model(position="learned"), PROMPT, 19)) == 19


def test_sampling_is_repeatable_by_seed_and_differs_between_seeds():
    model = tiny_model()
    first, again, other = (generate(model, PROMPT, 18, temperature=1.5, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_top_k_and_top_p_keep_only_the_likeliest_tokens():
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    generator = torch.Generator().manual_seed(0)

    def seen(**settings):
        settings = {"top_k": None, "top_p": None} | settings
        return {choose(logits, 1.0, generator=generator, **settings) for _ in range(300)}

    assert seen() == {0, 1, 2, 3}
    assert seen(top_k=2) == {0, 1}
    assert seen(top_p=0.5) == {0}
    assert seen(top_p=0.76) == {0, 1, 2}
    assert seen(top_k=2, top_p=0.9) == {0, 1}


def test_sampling_follows_the_probabilities():
    logits = torch.tensor([0.7, 0.3]).log()
    generator = torch.Generator().manual_seed(0)
    share = sum(choose(logits, 1.0, None, None, generator) for _ in range(4000)) / 4000
    assert share == pytest.approx(0.3, abs=0.03)  # four standard errors


def test_streaming_stops_before_the_stop_token():
    model = tiny_model()
    whole = generate(model, PROMPT, 10)
    stop = whole[5]
    assert list(stream(model, PROMPT, 10, stop={stop})) == whole[: whole.index(stop)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_one_clear_line(temperature):
    model = tiny_model()
    model.ln_f.weight.data[0] = float("nan")
    with pytest.raises(UserError, match="the largest logit is nan: the weights are damaged"):
        generate(model, PROMPT, 3, temperature=temperature)
    logits = torch.tensor([1.0, float("inf"), 2.0])
    with pytest.raises(UserError, match="the largest logit is inf"):
        choose(logits, temperature, None, None, torch.Generator())


@pytest.mark.parametrize("temperature", [1e-4, 1e-37, 1e-40, 5e-324])
@pytest.mark.parametrize("shift", [0.0, -9.0])
def test_a_temperature_near_zero_is_greedy(temperature, shift):
    """However far the division by it overflows: all logits to infinity, or to minus infinity."""
    logits = torch.tensor([0.5, 3.0, 2.5, -1.0]) + shift
    for settings in ((None, None), (2, 0.9)):
        assert choose(logits, temperature, *settings, torch.Generator()) == 1
    model = tiny_model()
    assert generate(model, PROMPT, 8, temperature=temperature) == generate(model, PROMPT, 8)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_excluded_tokens_are_never_chosen_and_the_others_as_if_they_were_not_there(temperature, use_cache):
    """The peer: a model whose vocabulary ends before them."""
    padded = tiny_model()
    with torch.no_grad():
        padded.lm_head.weight[40:] *= 30  # greedy would take them
    peer = tiny_model(vocab_size=40)
    state = padded.state_dict()
    peer.load_state_dict({k: v[:40] if k.startswith(("wte", "lm_head")) else v for k, v in state.items()})
    settings = {"temperature": temperature, "top_k": 5, "use_cache": use_cache}
    found = generate(padded, PROMPT, 18, exclude=range(40, 50), **settings)
    assert max(generate(padded, PROMPT, 18, **settings)) >= 40
    assert max(found) < 40
    if temperature == 0:
        assert found == generate(peer, PROMPT, 18, **settings)
