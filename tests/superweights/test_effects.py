"""What weights do is measured right: curves, activations put back, paths, next tokens, sinks."""

import math
import string

import pytest
import torch
from families import PROMPT, plant, tiny
from planted import TEXT, planted_model

from supertf.analysis.attention_statistics import attention_stats, sink_rate
from supertf.analysis.residual_stream import hidden_states
from supertf.data.tokenizer import load_tokenizer
from supertf.model.generation import generate
from supertf.superweights.ablation import text_loss
from supertf.superweights.edit import scaled_weights
from supertf.superweights.effects import (
    Restoration,
    activation_path,
    attention_sinks,
    next_tokens,
    restoration,
    restored_activations,
    scaling_curve,
    token_groups,
    unigram,
)

IDS = TEXT[:60].tolist()
WEIGHT = (1, 7, 21)
KINDS = ["supertf SwiGLU", "Llama", "GPT2", "OPT"]  # OPT's projection reads (B * T, in), GPT2's is transposed


@pytest.fixture(scope="module", params=KINDS)
def planted(request):
    """A model in float64 whose weight `WEIGHT` carries a spike at the first token of `PROMPT`."""
    model = tiny(request.param).double()
    plant(model, WEIGHT)
    return model


def states(model, *texts):
    """Logits (B, T, V) of texts of equal length."""
    with torch.no_grad():
        return model(torch.tensor(texts)).logits


def test_the_curve_is_the_loss_of_a_model_with_that_weight_and_exactly_one_at_factor_one():
    model, changed = planted_model(), planted_model()
    changed.h[1].mlp.c_proj.weight.data[7, 21] *= 2.5
    loss = text_loss(IDS, 16)
    base = loss(model)
    curve = scaling_curve(model, [WEIGHT], [0, 1, 2.5], loss, progress=False)
    assert [point.factor for point in curve] == [0, 1, 2.5]
    assert curve[1].loss == base and curve[1].ratio == 1.0
    assert curve[2].loss == loss(changed) != base
    assert curve[2].ratio == pytest.approx(math.exp(loss(changed) - base))


def test_with_one_token_a_restored_activation_is_the_unchanged_model(planted):
    whole = states(planted, PROMPT[:1])
    with scaled_weights(planted, [WEIGHT]):
        removed = states(planted, PROMPT[:1])
    with restored_activations(planted, [WEIGHT]):
        restored = states(planted, PROMPT[:1])
    assert not torch.allclose(removed, whole, rtol=1e-3)
    assert torch.allclose(restored, whole, rtol=1e-9, atol=1e-9)


def test_each_window_gets_one_token_back_and_the_rest_stay_without(planted):
    """Of two windows; the expected output is computed from the projection's own inputs and weights."""
    other = [7, *PROMPT[:-1]]  # its spike, if any, is elsewhere
    seen = {}
    projection = planted.get_submodule(
        next(
            name
            for name, _ in planted.named_modules()
            if name.endswith(("1.mlp.c_proj", "1.mlp.down_proj", "1.fc2"))
        )
    )
    weight = projection.weight.detach().clone()
    weight = weight.t() if type(projection).__name__ == "Conv1D" else weight
    with restored_activations(planted, [WEIGHT]):
        hook = projection.register_forward_hook(lambda _, inputs, output: seen.update(x=inputs[0], y=output))
        states(planted, PROMPT, other)
        hook.remove()
    x, y = (seen[name].view(2, 5, -1) for name in "xy")
    whole = x @ weight[7] + (0 if getattr(projection, "bias", None) is None else projection.bias[7])
    tokens = x[..., 21].abs().argmax(dim=1)
    expected = whole - weight[7, 21] * x[..., 21]
    expected[[0, 1], tokens] = whole[[0, 1], tokens]
    assert tokens[0] == 0
    assert torch.allclose(y[..., 7], expected, rtol=1e-9, atol=1e-9)


def test_a_pass_that_continues_a_cache_gets_nothing_back(planted):
    """Token by token is then the same as all at once, where the first token of the text is restored."""
    with restored_activations(planted, [WEIGHT]):
        cached = generate(planted, PROMPT, 6)
        assert cached == generate(planted, PROMPT, 6, use_cache=False)
        cache = planted.new_cache()
        with torch.no_grad():
            for token in PROMPT:
                logits = planted(torch.tensor([[token]]), cache=cache).logits
        assert torch.allclose(logits[:, -1], states(planted, PROMPT)[:, -1], rtol=1e-9, atol=1e-9)


def test_restoring_works_for_measures_that_run_the_blocks_one_by_one():
    model = planted_model()
    idx = torch.tensor([PROMPT, IDS[:5]])
    with restored_activations(model, [WEIGHT]):
        logits = states(model, *idx.tolist())
        *_, last = hidden_states(model, idx)
        assert torch.equal(model.lm_head(model.ln_f(last)), logits)


def test_the_restoration_says_what_part_of_the_damage_comes_back():
    model, text = planted_model(), text_loss(IDS, 16)
    found = restoration(model, [WEIGHT], text)
    with scaled_weights(model, [WEIGHT]):
        removed = text(model)
    with restored_activations(model, [WEIGHT]):
        restored = text(model)
    assert (found.base, found.removed, found.restored) == (text(model), removed, restored)
    assert Restoration(2.0, 4.0, 2.5).share == 0.75
    assert Restoration(2.0, 1.9, 2.0).share is None
    one_token = restoration(model, [WEIGHT], text_loss(IDS[:2], 1))  # a window of one token loses nothing
    assert one_token.restored == pytest.approx(one_token.base, rel=1e-5) != one_token.removed


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_is_the_largest_entry_of_the_stream_before_and_after_each_block(kind):
    model = tiny(kind)
    plant(model, WEIGHT)
    path = activation_path(model, PROMPT)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    if kind == "supertf SwiGLU":
        expected = list(hidden_states(model, torch.tensor([PROMPT])))
    else:  # the last one that transformers gives is normed
        expected = model.model(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states[:-1]
    assert len(path) == 4
    for found, x in zip(path, expected, strict=False):
        token, channel = divmod(int(x[0].abs().argmax()), x.shape[-1])
        assert (found.token, found.channel) == (token, channel)
        assert found.value == pytest.approx(float(x[0, token, channel].detach()), rel=1e-5)
    with scaled_weights(model, [WEIGHT]):
        without = activation_path(model, PROMPT)
    assert without[:2] == path[:2]  # nothing before the weight changes
    assert abs(path[2].value) > 10 * abs(without[2].value) and path[2].channel == 7


def test_next_tokens_are_means_over_prompts_of_any_length():
    model = planted_model()
    prompts = [PROMPT, [2], [9, 9, 9], [8, 7, 6], PROMPT[:3], [4]]
    expected = torch.stack([states(model, prompt)[0, -1].double().softmax(-1) for prompt in prompts])
    u = torch.full((50,), 1 / 50, dtype=torch.float64)
    found = next_tokens(
        model, prompts, u, {"few": [1, 2, 2, 3], "all": range(50)}, batch_size=2, progress=False
    )
    assert torch.allclose(found.probabilities, expected.mean(0), atol=1e-6)
    assert found.groups["few"] == pytest.approx(float(expected.mean(0)[1:4].sum()), abs=1e-6)
    assert found.groups["all"] == pytest.approx(1.0)
    entropy = float(-(expected * expected.log()).sum(-1).mean())
    assert found.entropy == pytest.approx(entropy, abs=1e-5)
    assert found.kl == pytest.approx(math.log(50) - entropy, abs=1e-5)  # from the uniform distribution
    middle = (expected + u) / 2
    js = ((expected * (expected / middle).log()).sum(-1) + (u * (u / middle).log()).sum(-1)) / 2
    assert found.js == pytest.approx(float(js.mean()), abs=1e-5)


def test_the_divergences_are_zero_at_the_unigram_distribution_and_at_most_log_two():
    model = planted_model()
    same = next_tokens(model, [PROMPT], states(model, PROMPT)[0, -1].double().softmax(-1), progress=False)
    assert abs(same.kl) < 1e-6 and abs(same.js) < 1e-6
    never = torch.zeros(50, dtype=torch.float64)
    never[int(same.probabilities.argmin())] = 1.0
    other = next_tokens(model, [PROMPT], never, progress=False)
    assert other.kl == math.inf and 0.4 < other.js <= math.log(2)


def test_unigram_frequencies_are_smoothed_counts():
    found = unigram([0, 1, 1, 3], 5, smoothing=0.5)
    assert found.tolist() == pytest.approx([1.5 / 6.5, 2.5 / 6.5, 0.5 / 6.5, 1.5 / 6.5, 0.5 / 6.5])
    assert unigram([0], 3, smoothing=0).tolist() == [1, 0, 0]


def test_groups_are_words_in_any_case_and_marks():
    groups = token_groups(load_tokenizer("bytes"))
    assert groups["stop words"] == [ord(letter) for letter in "AIai"]
    assert groups["punctuation"] == sorted(map(ord, string.punctuation))
    gpt2 = load_tokenizer("gpt2")
    found = set(token_groups(gpt2)["stop words"])
    assert {gpt2.encode(word)[0] for word in ["the", " the", " The", " and"]} <= found
    assert not found & {gpt2.encode(word)[0] for word in [" theory", " cat", ","]}


def test_sinks_are_those_of_windows_side_by_side():
    model = planted_model()
    windows = torch.tensor(IDS).view(6, 10)
    expected = sink_rate(attention_stats(model, windows[:5]))
    found = attention_sinks(model, IDS[:57], length=10)  # 7 tokens are left over
    assert torch.equal(found.by_head, expected.by_head) and found.mean == expected.mean
