"""The shipped texts as experiments use them: what is scored in each domain, and what plans are made from."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from supertf.analysis import finds_last_words, perplexity
from supertf.data import TEXTS, Text, held_out_texts, last_words, read_ids
from supertf.errors import UserError
from supertf.model import LanguageModel, Tokenizer

# of each domain; settings of an experiment. Passages are for their last words, where these are measured, too
SCORED = {"texts": 10, "windows": 4, "length": 512, "passages": 0}


def scored_texts(tokenizer: Tokenizer, settings: dict[str, Any]) -> dict[str, list[Text]]:
    """The texts to score by domain; settings: `SCORED`, or fewer."""
    sizes = {"count": settings["texts"], "windows": settings["windows"], "length": settings["length"]}
    return {name: held_out_texts(name, tokenizer, **sizes) for name in TEXTS}


def scored(model: LanguageModel, tokenizer: Tokenizer, settings: dict[str, Any]) -> dict[str, Any]:
    """Part of a cell's result: what the model makes of the texts; settings: `SCORED`, or fewer.

    Returns:
        By domain: `losses`, nats per token, of each text; `last_words`, of each passage whether its last word
        is found; `texts`, the SHA-256 of all token ids.
    """
    losses, found, digests = {}, {}, {}
    for name, texts in scored_texts(tokenizer, settings).items():
        losses[name] = [
            perplexity(model, one.ids, one.length, batch_size=4, bos_id=one.bos_id).loss for one in texts
        ]
        passages = last_words(name, tokenizer, settings["passages"]) if settings["passages"] else []
        found[name] = list(map(int, finds_last_words(model, passages)))
        ids = [*(one.ids.numpy() for one in texts), *(np.array(one.ids) for one in passages)]
        digests[name] = hashlib.sha256(b"".join(one.tobytes() for one in ids)).hexdigest()
    return {"losses": losses, "last_words": found, "texts": digests}


def of_role(role: str, domains: Iterable[str], tokenizer: Tokenizer, tokens: int, length: int) -> Text:
    """The beginning of what each domain has for a role, `tokens` of each, one after the other.

    Raises:
        UserError: a domain has fewer.
    """
    parts = [(name, read_ids(f"{name}:{role}", tokenizer, tokens)) for name in domains]
    for name, part in parts:
        if len(part) < tokens:
            raise UserError(
                f"{name}:{role} has {len(part)} tokens, and {tokens} are asked for: ask for fewer"
            )
    return Text(torch.from_numpy(np.concatenate([part for _, part in parts])), length, name=role)
