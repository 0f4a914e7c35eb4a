"""How well a model predicts text: perplexity, and the loss at each position of a window."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from supertf.data import check_vocabulary
from supertf.errors import UserError
from supertf.model import LanguageModel

CHUNK = 2048  # tokens that loss_by_position reads at once, of a model with a cache


@dataclass(frozen=True)
class Perplexity:
    """Mean loss in nats per token, the number of tokens predicted, and exp(loss)."""

    loss: float
    tokens: int
    perplexity: float


@torch.inference_mode()
def perplexity(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    length: int,
    stride: int | None = None,
    batch_size: int = 8,
    bos_id: int | None = None,
) -> Perplexity:
    """Perplexity of a text, each token predicted exactly once.

    The text is cut into windows; the last one ends with the text. A window counts only tokens that none
    before it has predicted: with the default stride the contexts are 1, 2, ... `length` tokens; a smaller
    stride gives every token after the first window at least `length - stride + 1`, at the price of more
    windows. The first token of the text has no context and is not predicted, unless `bos_id` begins every
    window.

    Args:
        model: a `GPT` or an `HFModel`, in evaluation mode.
        ids: (N,) token ids of the text.
        length: inputs of a window.
        stride: tokens from one window's beginning to the next's; default `length`.
        batch_size: windows read at once.
        bos_id: begins every window, for models trained that way.

    Returns:
        The mean loss in nats per token, the number of tokens predicted, and exp(loss).

    Raises:
        UserError: a text shorter than two tokens, a token outside the vocabulary, or a length or stride out
            of range.

    Example:
        >>> from supertf import GPT, GPTConfig, perplexity
        >>> model = GPT(GPTConfig(vocab_size=50, n_ctx=8, n_layer=1, n_head=2, n_embd=16)).eval()
        >>> 45 < perplexity(model, range(50), length=8).perplexity < 55  # untrained: a guess among 50
        True
    """
    ids = check_ids(model, ids, length, bos_id)
    stride = length if stride is None else stride
    if not 1 <= stride <= length:
        raise UserError(f"stride is {stride}, expected 1 to the window's length of {length}")
    targets = len(ids) - (bos_id is None)
    length = min(length, targets)
    starts = [*range(0, targets - length, stride), targets - length]
    total, done, counted = 0.0, 0, 0  # done: targets predicted so far
    for first in range(0, len(starts), batch_size):
        inputs, wanted = cut(ids, starts[first : first + batch_size], length, bos_id)
        for row, start in enumerate(starts[first : first + batch_size]):
            wanted[row, : done - start] = -100
            done = start + length
        count = int((wanted != -100).sum())
        total += model(inputs.to(model.device), wanted.to(model.device)).loss.item() * count
        counted += count
    loss = total / counted
    return Perplexity(loss, counted, math.exp(min(loss, 700.0)))  # exp(710) is beyond a float


@torch.inference_mode()
def loss_by_position(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    length: int,
    batch_size: int = 4,
    bos_id: int | None = None,
) -> Tensor:
    """Mean loss at each position of a window.

    The text is cut into whole windows side by side (tokens left over at the end are not used).

    Args:
        model, ids, length, batch_size, bos_id: as in `perplexity`.

    Returns:
        (length,) float32 on the CPU, in nats; entry i is predicted from i + 1 tokens, the BOS token
        included.

    Raises:
        UserError: as `perplexity` does, and on a text shorter than one window.
    """
    ids = check_ids(model, ids, length, bos_id)
    windows = (len(ids) - (bos_id is None)) // length
    if windows < 1:
        raise UserError(
            f"the text has {len(ids)} tokens, fewer than one window of {length}: use a longer one"
        )
    starts = [i * length for i in range(windows)]
    total = torch.zeros(length, dtype=torch.float64)
    for first in range(0, len(starts), batch_size):
        inputs, wanted = cut(ids, starts[first : first + batch_size], length, bos_id)
        cache = model.new_cache() if length > CHUNK else None
        size = length if cache is None else CHUNK
        losses = []
        for start in range(0, length, size):  # in pieces, or a long text's logits would fill the memory
            part = slice(start, start + size)
            logits = model(inputs[:, part].to(model.device), cache=cache).logits.float()  # (B, size, V)
            expected = wanted[:, part].to(model.device)
            losses.append(F.cross_entropy(logits.transpose(1, 2), expected, reduction="none"))
        total += torch.cat(losses, dim=1).sum(0).cpu().double()
    return (total / len(starts)).float()


def check_ids(model: LanguageModel, ids: Sequence[int] | Tensor, length: int, bos_id: int | None) -> Tensor:
    """The ids as an int64 tensor (N,), or `UserError`."""
    ids = torch.as_tensor(ids, dtype=torch.int64)
    if length < 1:
        raise UserError(f"the window length is {length}, expected at least 1 token")
    if len(ids) < 1 + (bos_id is None):
        raise UserError(f"the text has {len(ids)} tokens: too short to predict any")
    check_vocabulary(ids, model.config.vocab_size, "the text")
    return ids


def cut(ids: Tensor, starts: list[int], length: int, bos_id: int | None) -> tuple[Tensor, Tensor]:
    """Windows that predict `length` tokens each: inputs and targets, (len(starts), length) int64."""
    if bos_id is not None:
        ids = torch.cat([ids.new_full((1,), bos_id), ids])
        # every window begins with BOS, so its inputs are BOS and the tokens from its start on
    rows = torch.stack([ids[start : start + length + 1] for start in starts])
    if bos_id is not None:
        rows[:, 0] = bos_id
    return rows[:, :-1].clone(), rows[:, 1:].clone()
