"""Whether a model finds the last word of passages."""

from collections.abc import Sequence

from supertf.analysis.continuations import Continuation, score_continuations
from supertf.data import Passage
from supertf.model import LanguageModel


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
    words = [Continuation(one.ids[: -one.size], one.ids[-one.size :]) for one in passages]
    return [one.greedy for one in score_continuations(model, words, batch_size, "the passages")]
