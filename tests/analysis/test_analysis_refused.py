"""Analysis: what cannot be read or averaged is refused in one line that names it."""

import dataclasses
import re

import pytest
import torch

from supertf.analysis import (
    attention_entropy,
    attention_stats,
    holm,
    loss_by_position,
    mean_interval,
    paired_difference,
    perplexity,
    probe_positions,
    read_positions,
    residual_stats,
    sink_rate,
    two_by_two,
)
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig

TINY = GPTConfig(vocab_size=40, n_ctx=32, n_layer=3, n_head=4, n_embd=32)
IDX = torch.arange(40).view(2, 20)  # two texts
NEEDLES = torch.zeros(2, 20, dtype=torch.int64)
ROWS = torch.arange(50 * 32).view(50, 32) % 40  # 50 sequences to fit a probe on


def tiny(**changes) -> GPT:
    return GPT(dataclasses.replace(TINY, **changes)).eval()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: perplexity(tiny(), [], 8), "0 tokens: too short"),
        (lambda: holm({"a": 0.5, "b": 1.5}), "expected numbers from 0 to 1"),
        (lambda: perplexity(tiny(), [1], 8), "1 tokens: too short"),
        (lambda: perplexity(tiny(), [1, 2, 300], 8), "vocabulary is 0 to 39"),
        (lambda: perplexity(tiny(), [1, -2, 3], 8), "vocabulary is 0 to 39"),
        (lambda: perplexity(tiny(), [1, 2, 3], 0), "window length is 0"),
        (lambda: perplexity(tiny(), [1, 2, 3], 8, stride=9), "stride is 9"),
        (lambda: perplexity(tiny(), [1, 2, 3], 8, stride=0), "stride is 0"),
        (lambda: perplexity(tiny(), ROWS.flatten(), 64), "learned positions for 32 tokens and was given 64"),
        (lambda: loss_by_position(tiny(), range(16), 16), "fewer than one window of 16"),
        (lambda: attention_stats(tiny(), IDX, layers=[3]), "layers are [3], expected some of 0 to 2"),
        (lambda: attention_stats(tiny(), IDX, layers=[]), "expected some of 0 to 2"),
        (
            lambda: attention_stats(tiny(), IDX, rows=[20]),
            "rows are 20 to 20, expected indices of the 20 tok",
        ),
        (lambda: attention_stats(tiny(), IDX, rows=[]), "rows are empty"),
        (lambda: attention_stats(tiny(), IDX, needles=NEEDLES - 1), "needles are -1 to -1"),
        (
            lambda: attention_stats(tiny(), IDX, needles=NEEDLES[:, :3]),
            "needles come out as shape (2, 3, 1), expected (2 or 1, 20, K)",
        ),
        (lambda: sink_rate(attention_stats(tiny(), IDX[:, :1])), "two or more tokens"),
        (lambda: attention_entropy(tiny(), []), "the tokens have shape (1, 0), expected (B, T)"),
        (lambda: attention_entropy(torch.nn.Linear(2, 2), [1]), "a Linear does not show its layers"),
        (lambda: residual_stats(tiny(), IDX[0]), "the tokens have shape (20,), expected (B, T)"),
        (lambda: residual_stats(tiny(), IDX + 1), "token ids from 1 to 40, but the model's vocabulary"),
        (lambda: residual_stats(tiny(), IDX.view(1, 40)), "learned positions for 32 tokens and was given 40"),
        (lambda: residual_stats(tiny(dropout=0.1).train(), IDX), "call model.eval()"),
        (
            lambda: probe_positions(tiny(), ROWS[:, :9], ROWS),
            "training sequences have 9 tokens and test sequences 32",
        ),
        (lambda: probe_positions(tiny(), ROWS[:, :1], ROWS[:, :1]), "two tokens or more"),
        (
            lambda: read_positions(tiny(), ROWS[:1], ROWS),
            "1 training sequences of 32 tokens are too few to fit 33 weights: give 2",
        ),
        (lambda: probe_positions(tiny(), ROWS + 1, ROWS), "the model's vocabulary is 0 to 39"),
        (lambda: mean_interval([1.0]), "at least 2 seeds, got 1"),
        (lambda: mean_interval([]), "at least 2 seeds, got 0"),
        (lambda: mean_interval([1.0, None]), "expected finite numbers"),
        (lambda: mean_interval([1.0, float("nan")]), "expected finite numbers"),
        (lambda: mean_interval([1.0, 2.0], 95), "confidence 95: expected a number between 0 and 1"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "the same seeds on every side, got [2, 1]"),
        (lambda: paired_difference([1.0, 2.0], [1.0, None]), "expected finite numbers"),
        (lambda: two_by_two({("a", "x"): [1, 2], ("b", "y"): [1, 2]}), "needs the four combinations"),
        (
            lambda: two_by_two({(a, x): [1, 2, 3][: 2 + (a == "a")] for a in "ab" for x in "xy"}),
            "the same seeds on every side",
        ),
    ],
)
def test_what_cannot_be_read_or_averaged_is_one_line(call, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        call()
    assert "\n" not in str(error.value)
