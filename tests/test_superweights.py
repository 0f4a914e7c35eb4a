"""Super weights: a planted one is found at its coordinates."""

import pytest
import torch
from planted import CONFIG, PROMPT, planted_model

from supertf.errors import UserError
from supertf.model import GPT
from supertf.superweights import candidates, find_spikes


@pytest.mark.parametrize("coordinate", [(0, 0, 0), (1, 7, 21), (2, 15, 39)])
def test_a_planted_weight_is_found_at_its_coordinates(coordinate):
    found = candidates(find_spikes(planted_model(*coordinate), PROMPT))
    assert [spike.coordinate for spike in found] == [coordinate]
    assert found[0].weight == 3.0


def test_a_model_without_spikes_has_no_candidates():
    torch.manual_seed(0)
    spikes = find_spikes(GPT(CONFIG).eval(), PROMPT)
    assert [spike.layer for spike in spikes] == [0, 1, 2]
    assert candidates(spikes) == []


def test_looking_leaves_no_hooks_behind():
    model = planted_model()
    find_spikes(model, PROMPT)
    assert not any(block.mlp.c_proj._forward_hooks for block in model.h)


def test_an_empty_prompt_is_one_clear_line():
    with pytest.raises(UserError, match="prompt is empty"):
        find_spikes(planted_model(), [])
