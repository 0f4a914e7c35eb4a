"""What tests of experiments on the real texts share: the losses that a cell should tell, by hand."""

import pytest

from supertf.analysis import perplexity
from supertf.data import TEXTS, held_out_texts, load_tokenizer


def losses_by_hand(model, length: int, rel: float):
    """Of one window of two texts of each domain, to be compared with a cell's `losses`."""
    sizes = {"count": 2, "windows": 1, "length": length}
    return {
        name: pytest.approx(
            [
                perplexity(model, text.ids, length).loss
                for text in held_out_texts(name, load_tokenizer("bytes"), **sizes)
            ],
            rel=rel,
        )
        for name in TEXTS
    }
