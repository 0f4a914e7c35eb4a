"""The free scale: curves are recognised, and training reaches the p_n that are fitted."""

import itertools
import math

import pytest
import torch

from supertf.data.tasks import Task
from supertf.errors import UserError
from supertf.experiments.free_scale import fits, gap, scale
from supertf.experiments.sweep.catalogue import experiment
from supertf.model.gpt import GPT
from supertf.training.task_training import task_config

N = [16, 24, 40, 64, 100, 256, 500, 1024]
CURVES = {
    "log n": lambda n: 0.2 * math.log(n) + 0.1,
    "power of n": lambda n: 0.3 * n**0.4,
    "square root of n": lambda n: 0.3 * math.sqrt(n) + 2,
    "linear in n": lambda n: 0.01 * n + 0.5,
}


@pytest.mark.parametrize("name", CURVES)
def test_each_curve_fits_its_own_points_best(name):
    found = fits(N, [CURVES[name](n) for n in N])
    assert found[name]["r2"] == pytest.approx(1)
    assert max(found, key=lambda other: found[other]["r2"]) == name
    if name == "log n":
        assert (found[name]["a"], found[name]["b"]) == pytest.approx((0.2, 0.1))
    if name == "power of n":
        assert (found[name]["a"], math.exp(found[name]["b"])) == pytest.approx((0.4, 0.3))


@pytest.mark.parametrize("p", [[1.0, 1.0, 1.0], [1.0, -0.5, 2.0]])
def test_scales_that_no_curve_can_be_fitted_to_are_refused(p):
    with pytest.raises(UserError, match="positive scales that differ"):
        fits([8, 16, 32], p)


def test_a_cell_fits_exactly_the_scales_that_queries_used(one_thread):
    settings = experiment("free_scale").narrowed(changes={"steps": 6}).settings
    found = scale(settings, 0, (16, 40))
    assert found["n"] == [17, 18, 19, 20, 41, 42, 43, 44]
    assert all(value != 1 for value in found["p"])
    assert found["fits"] == fits(found["n"], found["p"])
    assert found["slope_gap"] == pytest.approx(found["fits"]["log n"]["a"] * found["gap"])


def test_lengths_below_the_shortest_are_left_out(one_thread):
    settings = {**experiment("free_scale").settings, "steps": 6, "shortest": 40}
    assert scale(settings, 0, (16, 40, 64))["n"] == [41, 42, 43, 44, 65, 66, 67, 68]


@pytest.mark.parametrize("family", ["recall", "majority"])
def test_the_gap_is_what_attention_weights_say(family):
    task, length = Task(family, queries=4), 48
    torch.manual_seed(0)
    model = GPT(task_config(task, length, n_layer=1, n_head=2, attention="free")).eval()
    plain = GPT(task_config(task, length, n_layer=1, n_head=2)).eval()
    with torch.no_grad():
        model.h[0].attn.scale.p.copy_(torch.linspace(0.5, 3, model.config.n_ctx))
        plain.load_state_dict(model.state_dict(), strict=False)
        batch = task.batch(16, length, torch.Generator().manual_seed(5))
        weights = plain(batch.tokens, output_attentions=True).attentions[0]  # (B, H, T, T)
    above = []
    for b, query, head in itertools.product(range(16), range(4), range(2)):
        asked = batch.tokens[b, :length, 0] == batch.tokens[b, length + query, 0]
        logits = weights[b, head, length + query, :length].log()  # up to a number
        above.append(float(logits[asked].mean() - logits[~asked].mean()))
    assert gap(model, task, length, seed=5) == pytest.approx(sum(above) / len(above), rel=1e-4)
