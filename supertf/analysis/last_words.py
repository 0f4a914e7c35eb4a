"""Whether a model finds the last word of passages."""

from collections.abc import Sequence

import torch

from supertf.data import Passage, check_vocabulary
from supertf.model import LanguageModel


@torch.inference_mode()
def finds_last_words(model: LanguageModel, passages: Sequence[Passage], batch_size: int = 8) -> list[bool]:
    """Whether greedy decoding gives the whole word, as LAMBADA counts (Paperno et al. 2016).

    Args:
        model: a `GPT` or an `HFModel`, in evaluation mode.
        passages: as `last_words` gives them.
        batch_size: passages read at once.

    Returns:
        For each passage.

    Raises:
        UserError: a token outside the vocabulary.
    """
    found = []
    for first in range(0, len(passages), batch_size):
        batch = passages[first : first + batch_size]
        longest = max(len(one.ids) for one in batch)
        rows = torch.tensor([[*one.ids, *[0] * (longest - len(one.ids))] for one in batch])  # (B, longest)
        check_vocabulary(rows, model.config.vocab_size, "the passages")
        likeliest = model(rows.to(model.device)).logits.argmax(-1).cpu()  # (B, longest), of the next token
        for one, row, guess in zip(batch, rows, likeliest, strict=True):
            word = slice(len(one.ids) - one.size, len(one.ids))
            found.append(torch.equal(row[word], guess[word.start - 1 : word.stop - 1]))
    return found
