"""Super weights: what cannot be searched, edited or measured is refused in one line, and nothing changes."""

import math
import re

import pytest
import torch
from families import PROMPT, tiny
from planted import TEXT, planted_model, zeroed

from supertf.errors import UserError
from supertf.model import output_projections
from supertf.superweights import (
    ablate,
    find_spikes,
    scaled_weights,
    scaling_curve,
    search,
    text_loss,
)
from supertf.superweights.effects import activation_path, attention_sinks, next_tokens, restored_activations
from supertf.superweights.sets import greedy_set, pair_interactions, random_sets, row_pool

WEIGHT, OTHER = (1, 7, 21), (1, 7, 3)
LOSS = text_loss(TEXT[:60], 16)
UNIFORM = torch.full((50,), 0.02)


def removed(model, *coordinates):
    with scaled_weights(model, coordinates):
        pytest.fail("was removed")


def restored(model, *coordinates):
    with restored_activations(model, coordinates):
        pytest.fail("was removed")


def unmeasured(_):
    pytest.fail("was measured")


def damaged(model, value):
    """The model with one entry of layer 1's output projection spoilt."""
    with torch.no_grad():
        output_projections(model)[1].weight[3, 4] = value
    return model


def on_disk(model):
    model.h[2].mlp.c_proj.to("meta")
    return model


def tied(model):
    layers = model.model.model.layers
    layers[2].mlp.down_proj.weight = layers[1].mlp.down_proj.weight
    return model


NOT_FINITE = "{} are not finite: the weights are damaged"
CASES = [
    (lambda m: find_spikes(m, []), "the prompt is empty"),
    (lambda m: find_spikes(m, [1] * 25), "25 tokens, more than the model's context of 24"),
    (lambda m: find_spikes(m, [50]), "vocabulary is 0 to 49"),
    (lambda m: find_spikes(m, [-1]), "vocabulary is 0 to 49"),
    (lambda m: find_spikes(tiny("Llama"), [1] * 25), "25 tokens, more than the model's context of 24"),
    (lambda m: find_spikes(tiny("Llama"), [50]), "vocabulary is 0 to 49"),
    (lambda m: find_spikes(m, PROMPT, removed=[(1, 16, 0)]), "no weight 1[16, 0]"),
    (lambda m: find_spikes(damaged(tiny("Qwen3"), math.nan), PROMPT), NOT_FINITE.format("1.mlp.down_proj")),
    (lambda m: find_spikes(damaged(tiny("GPT2"), math.inf), PROMPT), NOT_FINITE.format("1.mlp.c_proj")),
    (lambda m: find_spikes(damaged(planted_model(), math.nan), PROMPT), NOT_FINITE.format("1.mlp.c_proj")),
    (lambda m: search(m, PROMPT, rounds=0), "rounds is 0"),
    (lambda m: removed(m, OTHER, (3, 0, 0)), "layers 0 to 2"),
    (lambda m: removed(m, OTHER, (-1, 0, 0)), "layers 0 to 2"),
    (lambda m: removed(m, OTHER, (0, 16, 0)), "16 x 40"),
    (lambda m: removed(m, OTHER, (0, -1, 0)), "16 x 40"),
    (lambda m: removed(m, OTHER, (0, 0, 40)), "16 x 40"),
    (lambda m: removed(tied(tiny("Llama")), WEIGHT), "layers.1.mlp.down_proj is tied to model.model"),
    (lambda m: restored(m, (1, 7, 40)), "16 x 40"),
    (lambda m: ablate(m, (1, 16, 0), unmeasured), "16 x 40"),
    (lambda m: ablate(on_disk(planted_model()), WEIGHT, unmeasured), "h.2.mlp.c_proj is on disk"),
    (lambda m: ablate(m, WEIGHT, text_loss([1], 16)), "too short"),
    (lambda m: ablate(m, WEIGHT, unmeasured, controls=0), "0 random controls"),
    (lambda m: ablate(m, WEIGHT, unmeasured, controls=640), "expected 1 to 639"),
    (lambda m: ablate(m, WEIGHT, lambda _: math.nan), "the loss of the unchanged model is nan"),
    (lambda m: ablate(damaged(planted_model(), math.nan), WEIGHT, LOSS), "the weights are damaged"),
    (lambda m: scaling_curve(m, [WEIGHT], [], LOSS), "factors are []"),
    (lambda m: scaling_curve(m, [WEIGHT], [1.0, math.nan], LOSS), "factors are [1.0, nan]"),
    (lambda m: scaling_curve(m, [WEIGHT], [1e300], LOSS), "weights times 1e+300"),
    (lambda m: activation_path(m, []), "prompt is empty"),
    (lambda m: next_tokens(m, [], UNIFORM), "no prompts"),
    (lambda m: next_tokens(m, [[1], []], UNIFORM), "prompt is empty"),
    (lambda m: next_tokens(m, [[1]], torch.full((49,), 1 / 49)), "shape (49,)"),
    (lambda m: next_tokens(m, [[1]], torch.ones(50)), "sum 50"),
    (lambda m: next_tokens(m, [[1]], UNIFORM, {"mine": [50]}), "group 'mine'"),
    (lambda m: attention_sinks(m, TEXT[:9], 10), "windows of 10 tokens in a text of 9"),
    (lambda m: attention_sinks(tiny("Llama"), TEXT[:60], 10), "lab's GPT only"),
    (lambda m: greedy_set(m, [WEIGHT, OTHER], LOSS, 3), "3 weights asked for, expected 1 to the pool's 2"),
    (lambda m: greedy_set(m, [], LOSS, 1), "pool's 0"),
    (lambda m: greedy_set(m, [(1, 7, 40)], LOSS, 1), "16 x 40"),
    (lambda m: random_sets(m, [WEIGHT, OTHER], LOSS, 1, sets=0), "0 random sets"),
    (lambda m: row_pool(m, 1, 16, PROMPT), "16 x 40"),
    (lambda m: row_pool(m, 1, 7, [], 3), "prompt is empty"),
    (lambda m: row_pool(m, 1, 7, PROMPT, 41), "row's 40"),
    (lambda m: pair_interactions(m, [WEIGHT, WEIGHT], zeroed({})), "1 different weights"),
    (lambda m: pair_interactions(m, [WEIGHT, OTHER], lambda _: math.nan), "unchanged model is nan"),
]


@pytest.mark.parametrize(("call", "message"), CASES)
def test_what_cannot_be_done_is_one_line_and_leaves_the_model_as_it_was(call, message):
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(message)) as error:
        call(model)
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
