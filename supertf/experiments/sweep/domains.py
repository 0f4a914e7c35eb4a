"""The shipped texts as experiments score them: disjoint texts of every domain."""

import hashlib
from typing import Any

from supertf.analysis import perplexity
from supertf.data import TEXTS, Text, held_out_texts
from supertf.model import LanguageModel, Tokenizer

SCORED = {"texts": 10, "windows": 4, "length": 512}  # of each domain; settings of an experiment


def scored_texts(tokenizer: Tokenizer, settings: dict[str, Any]) -> dict[str, list[Text]]:
    """The texts to score by domain; settings: `SCORED`, or fewer."""
    sizes = {"count": settings["texts"], "windows": settings["windows"], "length": settings["length"]}
    return {name: held_out_texts(name, tokenizer, **sizes) for name in TEXTS}


def scored(model: LanguageModel, texts: dict[str, list[Text]]) -> dict[str, Any]:
    """Part of a cell's result.

    Returns:
        `losses`, nats per token, by domain and text; `texts`, by domain the SHA-256 of all token ids.
    """
    losses, digests = {}, {}
    for name, domain in texts.items():
        losses[name] = [
            perplexity(model, one.ids, one.length, batch_size=4, bos_id=one.bos_id).loss for one in domain
        ]
        digest = hashlib.sha256()
        for one in domain:
            digest.update(one.ids.numpy().tobytes())
        digests[name] = digest.hexdigest()
    return {"losses": losses, "texts": digests}
