"""Continue a prompt token by token, with a KV cache."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor

from supertf.data import check_vocabulary
from supertf.device import check_finite
from supertf.errors import UserError
from supertf.model.fast import fast_rows
from supertf.model.gpt import GPT
from supertf.model.language_model import LanguageModel

PIECE = 512  # tokens of a prompt that are read at once, at most
MASK = 2**22  # entries of the mask of who sees whom, which a piece behind others needs


def stream(
    model: LanguageModel,
    prompt: list[int],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop: Collection[int] = (),
    exclude: Collection[int] = (),
    use_cache: bool = True,
) -> Iterator[int]:
    """Yield token ids that continue a prompt, as they are chosen; see `generate`."""
    check(model, prompt, max_new_tokens, temperature, top_k, top_p)  # here, not at the first token
    generator = torch.Generator(model.device).manual_seed(seed)
    settings = (temperature, top_k, top_p, generator)
    return _stream(model, list(prompt), max_new_tokens, settings, stop, sorted(exclude), use_cache)


@torch.inference_mode()
def _stream(
    model: LanguageModel,
    text: list[int],
    max_new_tokens: int,
    settings: tuple[float, int | None, float | None, torch.Generator],
    stop: Collection[int],
    exclude: list[int],
    use_cache: bool,
) -> Iterator[int]:
    cache = model.new_cache() if use_cache else None  # None also for a model that has none
    modules = list(model.modules()) if isinstance(model, GPT) else []
    unread = text
    for _ in range(max_new_tokens):
        pieces = [text] if cache is None else in_pieces(unread, len(text) - len(unread))
        with fast_rows(modules):  # only here: between two tokens the model is the caller's
            for piece in pieces:
                idx = torch.tensor([piece], device=model.device)  # (1, T)
                logits = model(idx, cache=cache, last_only=True).logits[0, -1]  # (V,)
        if exclude:
            logits = logits.index_fill(0, torch.tensor(exclude, device=logits.device), -torch.inf)
        token = choose(logits, *settings)
        if token in stop:
            return
        text.append(token)
        unread = [token]
        yield token


def in_pieces(ids: list[int], past: int) -> Iterator[list[int]]:
    """Parts of a prompt, to be read one behind the other, so that a long one needs little more memory than a
    short one beside its keys and values.

    Args:
        ids: what is still unread.
        past: tokens that were read before.
    """
    start = 0
    while start < len(ids):
        size = max(1, min(PIECE, MASK // (past + start + PIECE)))
        yield ids[start : start + size]
        start += size


def generate(model: LanguageModel, prompt: list[int], max_new_tokens: int, **settings: Any) -> list[int]:
    """Continue a prompt token by token; `stream` yields the same tokens one by one.

    Args:
        model: the lab's `GPT`, or any Hugging Face causal model as `load` gives it.
        prompt: token ids, at least one.
        max_new_tokens: how many at most.
        temperature: 0 (the default) takes the likeliest token every time; else logits are divided by it.
        top_k, top_p: sample among this many likeliest tokens, and among the fewest that have this
            probability.
        seed: of the random numbers, which are the call's own; 0 by default.
        stop: ids that end the text; they are not in it.
        exclude: ids that are never chosen, such as `unused_ids` of a tokenizer.
        use_cache: without the cache every step reads the whole text again: slower, same tokens.

    Returns:
        The new token ids, without the prompt.

    Raises:
        UserError: an empty prompt, ids outside the vocabulary, settings out of range, a text longer than a
            table of learned positions, or logits that are no numbers.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> tokenizer.decode(generate(model, tokenizer.encode("The capital of France is"), 1))
        ' Paris'
    """
    return list(stream(model, prompt, max_new_tokens, **settings))


def choose(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator
) -> int:
    """One token id from logits (V,): the largest when temperature is 0, else a sample.

    `UserError` when the largest is no finite number.
    """
    logits = logits.float()  # argmax is several times faster than in bfloat16 on a CPU
    token = int(logits.argmax())  # of a NaN, if there is any
    check_finite(float(logits[token]), "the largest logit")
    if temperature == 0:
        return token
    logits = logits / temperature
    if not logits.max().isfinite():  # so cold that only the largest counts
        return token
    if top_k is not None and top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], -torch.inf)
    probabilities = logits.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of everything more likely than this token
        probabilities[order[before >= top_p]] = 0.0
    return int(torch.multinomial(probabilities, 1, generator=generator))


def check(
    model: LanguageModel,
    prompt: list[int],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    """`UserError` on anything that `stream` could not do."""
    config = model.config
    check_vocabulary(prompt, config.vocab_size, "the prompt")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {max_new_tokens}, expected at least 1")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature is {temperature}, expected 0 (greedy) or a positive number")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}, expected at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}, expected more than 0 and at most 1")
    limit = config.length_limit
    if limit is not None and len(prompt) + max_new_tokens - 1 > limit:
        raise UserError(
            f"{len(prompt)} prompt and {max_new_tokens} new tokens do not fit the {limit} learned "
            "positions (or scales) of this model; others, such as position none or rope, go further"
        )
