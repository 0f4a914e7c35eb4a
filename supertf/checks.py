"""Checks of what users give that several modules share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from supertf.errors import UserError


def check_vocabulary(ids: Sequence[int] | Tensor, vocab_size: int, what: str) -> None:
    """`UserError` unless `ids`, of `what`, has tokens, all of the model's vocabulary."""
    ids = torch.as_tensor(ids, dtype=torch.int64)
    if not ids.numel():
        raise UserError(f"{what} is empty: give at least one token, for example the end-of-text token")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise UserError(
            f"{what} has token ids from {int(ids.min())} to {int(ids.max())}, but the model's vocabulary is "
            f"0 to {vocab_size - 1}: is this the model's own tokenizer?"
        )


def check_finite(value: float, what: str) -> None:
    """`UserError` when a value, of which `what` tells, is infinite or no number."""
    if not math.isfinite(value):
        raise UserError(
            f"{what} is {value}: the weights are damaged, or their dtype is too narrow for this model (try "
            "float32)"
        )
