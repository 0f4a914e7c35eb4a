"""Shares by kind of matrix: costs are those of pruning by hand, the choice is the best within budget."""

import dataclasses

import pytest
import torch
from planted import CONFIG

from supertf.analysis.losses import perplexity
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import input_sizes
from supertf.compression.pruning.share_search import kind_costs, most_spared
from supertf.model.gpt import GPT

IDS = torch.randint(0, 50, (65,), generator=torch.Generator().manual_seed(0))
COSTS = {
    "attn.c_attn": {0.0: 0.0, 0.5: 0.5},  # 3 * 16 * 16 weights a layer
    "attn.c_proj": {0.0: 0.0, 0.5: 0.01, 0.9: 0.3},  # 16 * 16
    "mlp.c_fc": {0.0: 0.0, 0.1: -0.02, 0.5: 0.3},  # 80 * 16
    "mlp.c_proj": {0.0: 0.0, 0.5: 0.02, 0.6: 0.04},  # 16 * 40
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return GPT(dataclasses.replace(CONFIG, init_std=0.3)).eval()


def test_costs_are_those_of_pruning_one_kind_by_hand(model):
    sizes = input_sizes(model, IDS, 16, matrices=["attn.c_attn", "mlp.c_proj"])
    costs = kind_costs(model, sizes, IDS, (0.25, 0.75), length=16, progress=False)
    assert list(costs) == ["attn.c_attn", "mlp.c_proj"]
    dense = perplexity(model, IDS, 16).loss
    for kind, by_share in costs.items():
        assert list(by_share) == [0.0, 0.25, 0.75] and by_share[0.0] == 0
        for share in (0.25, 0.75):
            with dynamically_pruned(model, plan_dynamic(model, "inputs", {kind: share}, sizes)):
                assert by_share[share] == pytest.approx(perplexity(model, IDS, 16).loss - dense, abs=1e-6)


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (0.0, [0.0, 0.0, 0.1, 0.0]),  # what it seems to gain pays for nothing
        (0.01, [0.0, 0.5, 0.1, 0.0]),
        (0.02, [0.0, 0.0, 0.1, 0.5]),  # 320 weights, where attention's output would be 128
        (0.05, [0.0, 0.5, 0.1, 0.6]),
        (0.35, [0.0, 0.5, 0.5, 0.6]),
        (10.0, [0.5, 0.9, 0.5, 0.6]),
    ],
)
def test_the_most_weights_are_spared_within_the_budget(model, budget, chosen):
    assert most_spared(model, COSTS, budget) == dict(zip(COSTS, chosen, strict=True))
