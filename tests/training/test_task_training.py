"""Training on tasks and asking at other lengths: the cheap answers are the model's own."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from supertf.data.tasks import Task
from supertf.model.config import ATTENTIONS, POSITIONS
from supertf.model.gpt import GPT
from supertf.training.task_training import (
    TaskSettings,
    query_logits,
    score,
    task_config,
    train_on_task,
)

TASK = Task(keys=16, values=4, queries=3)
SMALL = {"n_embd": 16, "n_head": 2, "init_std": 0.3}


def fresh(seed: int = 0, **changes) -> GPT:
    torch.manual_seed(seed)
    return GPT(task_config(TASK, 40, **(SMALL | changes))).eval()


def batch_of(length: int = 40, seed: int = 0):
    return TASK.batch(2, length, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("n_layer", [1, 2])
def test_answers_from_the_query_rows_equal_the_models_own(attention, position, n_layer):
    model = fresh(attention=attention, position=position, n_layer=n_layer, attention_constant=2.0)
    batch = batch_of()
    whole = model(batch.tokens).logits[:, -3:]
    assert torch.allclose(query_logits(model, batch), whole, atol=1e-5)


def test_answers_from_the_query_rows_with_a_zero_key_and_grouped_heads():
    model = fresh(zero_key=True, n_kv_head=1)
    batch = batch_of()
    assert torch.allclose(query_logits(model, batch), model(batch.tokens).logits[:, -3:], atol=1e-5)


def test_training_follows_the_models_own_loss_and_gradient():
    model, batch = fresh(attention="ssmax"), batch_of()
    whole = torch.autograd.grad(model(batch.tokens, batch.targets).loss, list(model.parameters()))
    logits = query_logits(model, batch)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.answers.flatten())
    for ours, theirs in zip(torch.autograd.grad(loss, list(model.parameters())), whole, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_lengths_are_drawn_and_free_scales_move_where_queries_were(one_thread):
    several = TaskSettings(steps=12, length=(8, 20), batch_size=2)
    config = task_config(TASK, 30, attention="free", n_layer=1, **SMALL)
    p = train_on_task(config, TASK, several).model.h[0].attn.scale.p
    assert (p != 1).nonzero().flatten().tolist() == [8, 9, 10, 20, 21, 22]  # n - 1 of three queries each


def test_a_short_training_learns_to_recall(one_thread):
    config = task_config(TASK, 16, n_layer=1, n_head=1, n_embd=32, init_std=0.18)
    result = train_on_task(config, TASK, TaskSettings(steps=150, length=16, lr=5e-3, warmup=10))
    assert len(result.losses) == 150
    assert score(result.model, TASK, 16, questions=96).accuracy > 0.9  # chance is a quarter
    assert not result.model.training


def test_the_same_seed_trains_the_same_model(one_thread):
    short = TaskSettings(steps=3, length=8, batch_size=2)
    first, again = (train_on_task(task_config(TASK, 8, **SMALL), TASK, short) for _ in range(2))
    other = train_on_task(task_config(TASK, 8, **SMALL), TASK, dataclasses.replace(short, seed=1))
    assert first.losses == again.losses
    assert first.losses != other.losses


def test_s_is_followed_step_by_step_by_layer_and_head(one_thread):
    short = TaskSettings(steps=3, length=8, batch_size=2)
    assert train_on_task(task_config(TASK, 8, **SMALL), TASK, short).s == []
    result = train_on_task(task_config(TASK, 8, attention="ssmax", **SMALL), TASK, short)
    assert [len(s) for s in result.s] == [4, 4, 4]  # two layers of two heads
    last = torch.cat([block.attn.scale.s for block in result.model.h]).tolist()
    assert result.s[-1] == last
    assert result.s[0] != result.s[-1]


def test_a_score_counts_the_models_right_answers_by_depth():
    model = fresh()
    found = score(model, TASK, 40, questions=50, seed=7)
    again = score(model, TASK, 40, questions=50, seed=7)
    assert found == again
    assert found.questions >= 50
    known = [share for share in found.by_depth if share is not None]
    assert 0 <= min(known) <= found.accuracy <= max(known) <= 1
    assert len(found.by_depth) == 8
    assert [len(found.needle), len(found.needle[0])] == [2, 2]
    assert all(0 <= value <= 1 for row in found.needle + found.entropy for value in row)
    assert score(model, TASK, 40, questions=50, seed=8) != found


def test_a_uniform_model_spreads_its_weight_and_has_the_highest_entropy():
    model = fresh()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight.zero_()
    found = score(model, TASK, 40, questions=12)
    for row in found.entropy:
        assert row == pytest.approx([1.0, 1.0], abs=1e-5)
    for row in found.needle:
        assert row == pytest.approx([1 / 42, 1 / 42], rel=0.03)  # 41, 42 or 43 visible keys
