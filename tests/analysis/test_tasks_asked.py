"""Scores of tasks: shares with their errors, and one line where a task cannot be asked."""

import importlib.util
import math

import pytest

from supertf.analysis.tasks import TaskScore, TaskScores, share, task_scores
from supertf.data import last_words
from supertf.errors import UserError
from supertf.model import load


def test_the_error_of_a_share_is_that_of_a_mean():
    found = share("a task", [True, False, False, True, True])
    assert (found.task, found.metric, found.value, found.questions) == ("a task", "acc", 0.6, 5)
    assert found.stderr == pytest.approx(math.sqrt(0.3 / 5))  # variance with n - 1
    assert share("one", [True]).stderr is None


def test_intervals_of_shares_stay_within_0_and_1_and_are_never_a_point():
    assert share("none of three", [False] * 3).interval == pytest.approx((0.0, 0.5615), abs=1e-3)
    assert share("all of three", [True] * 3).interval == pytest.approx((0.4385, 1.0), abs=1e-3)
    assert TaskScore("a", "perplexity", 9.0, 1.0, 4).interval == pytest.approx((7.04, 10.96))
    assert share("one", [True]).interval is None


def test_scores_print_with_their_intervals():
    shown = str(TaskScores((TaskScore("a", "acc", 0.5, 0.1, 25), TaskScore("b", "perplexity", 9.0, None, 3))))
    assert "0.3175  0.6825         25" in shown
    assert "perplexity      9" in shown


@pytest.mark.slow
def test_last_words_are_counted_on_every_shipped_text():
    model, tokenizer = load("smollm2-135m")
    found = task_scores(model, tokenizer, ["last_words"], limit=8).scores
    assert [(one.task, one.questions) for one in found] == [
        (f"last_words {name}", 8) for name in ("library-docs", "readmes", "prose")
    ]
    passages = last_words("prose", tokenizer, 8)
    first = [tokenizer.decode(one.ids[-one.size :]).strip() for one in passages]
    assert all(word.isalpha() for word in first)
    assert 0 < sum(one.value for one in found) < 3  # neither nothing nor everything


def test_no_task_is_a_mistake():
    with pytest.raises(UserError, match="no task is named"):
        task_scores(None, None, [])


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_a_task_of_a_harness_that_is_not_there_says_how_to_get_it():
    with pytest.raises(UserError, match=r"hellaswag: not a task of this lab.*pip install lm-eval"):
        task_scores(None, None, ["hellaswag"])
