"""How attention's logits may scale with n, the number of keys that a query sees: one factor per query.

A new scaling is a function here and its line in `SCALINGS`. Nothing heavy is imported: the command line takes
its choices from here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """One way to scale logits.

    Attributes:
        factor: what multiplies the logits, from n (B or 1, 1, T, 1) and, by name, what is listed below;
            None for 1.
        numbers: those of `start` that every layer has.
        learned: whether they are parameters, or stay at their start.
        given: fields of the model's config.
    """

    factor: Callable[..., "Tensor | float"] | None = None
    numbers: tuple[str, ...] = ()
    learned: bool = True
    given: tuple[str, ...] = ()


def s_log_n(n: "Tensor", s: "Tensor") -> "Tensor":
    """s log n, one s per head: scalable softmax (Nakanishi 2025, arXiv 2501.19399)."""
    return s[:, None, None] * n.log()  # (B or 1, H, T, 1)


def s_log_n_and_b(n: "Tensor", s: "Tensor", b: "Tensor") -> "Tensor":
    """s log n + b, one of each per head."""
    return s_log_n(n, s) + b[:, None, None]


def log_n_beyond_context(n: "Tensor", n_ctx: int) -> "Tensor":
    """max(1, log n / log L): no parameters; swaps into a model trained at context L."""
    return (n.log() / math.log(max(n_ctx, 2))).clamp(min=1.0)


def constant(n: "Tensor", attention_constant: float) -> float:
    """c, the control: sharper, but blind to n."""
    return attention_constant


def free(n: "Tensor", p: "Tensor") -> "Tensor":
    """p_n, one number per n: which function of n does training ask for?"""
    return p[n.long() - 1]


SCALINGS = {
    "softmax": Scaling(),
    "ssmax": Scaling(s_log_n, ("s",)),
    "ssmax_fixed": Scaling(s_log_n, ("s",), learned=False),
    "ssmax_bias": Scaling(s_log_n_and_b, ("s", "b")),
    "logn": Scaling(log_n_beyond_context, given=("n_ctx",)),
    "constant": Scaling(constant, given=("attention_constant",)),
    "free": Scaling(free, ("p",)),
}


def start(number: str, n_head: int, n_ctx: int) -> tuple[int, float]:
    """How many of a number a layer has, and the value they start from."""
    return {"s": (n_head, initial_s(n_ctx)), "b": (n_head, 0.0), "p": (n_ctx, 1.0)}[number]


def initial_s(n_ctx: int) -> float:
    """1 / mean(log n) over n = 1 ... n_ctx: the average multiplier at the trained context is then 1."""
    mean_log = math.lgamma(n_ctx + 1) / n_ctx  # mean of log n = log(n_ctx!) / n_ctx
    return 1.0 / mean_log if mean_log else 1.0
