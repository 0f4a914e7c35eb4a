"""How likely a model finds continuations of texts, and whether greedy decoding would write them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from supertf.data import check_vocabulary
from supertf.model import LanguageModel


class Continuation(NamedTuple):
    """Token ids of a text, at least one, and of what goes on behind it."""

    context: Sequence[int]
    ids: Sequence[int]


class Scored(NamedTuple):
    """The log-probability of a continuation, in nats, and whether greedy decoding gives all of it."""

    log_probability: float
    greedy: bool


@torch.inference_mode()
def score_continuations(
    model: LanguageModel, continuations: Sequence[Continuation], batch_size: int = 8, what: str = "the texts"
) -> list[Scored]:
    """Read texts with their continuations, in batches.

    Args:
        model: a `GPT` or an `HFModel`, in evaluation mode.
        continuations: no longer than the model can read.
        batch_size: texts read at once, shorter ones filled up behind their ends.
        what: the texts, in the message of an error.

    Returns:
        One `Scored` for each.

    Raises:
        UserError: a token outside the vocabulary.
    """
    found = []
    for first in range(0, len(continuations), batch_size):
        batch = continuations[first : first + batch_size]
        texts = [[*one.context, *one.ids] for one in batch]
        longest = max(map(len, texts))
        rows = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])  # (B, longest)
        check_vocabulary(rows, model.config.vocab_size, what)
        logits = model(rows[:, :-1].to(model.device)).logits  # (B, longest - 1, V), of the next token
        for one, text, row in zip(batch, texts, logits, strict=True):
            start = len(one.context)
            own = row[start - 1 : len(text) - 1].float().log_softmax(-1)  # (len(ids), V)
            ids = torch.tensor(text[start:], device=own.device)
            written = bool((own.argmax(-1) == ids).all())
            found.append(Scored(float(own.gather(-1, ids[:, None]).double().sum()), written))
    return found
