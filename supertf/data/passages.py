"""Passages whose last word is to be found: a task beside perplexity, as LAMBADA's (Paperno et al. 2016).

LAMBADA's passages were chosen by people, who could guess the word from the passage and not from its last
sentence. Here a rule chooses: the word was in the passage before.
"""

import re
from dataclasses import dataclass
from typing import Any

from supertf.data.corpus import iter_documents
from supertf.errors import UserError

STOP_WORDS = (  # the commonest function words of English
    "a an and are as at be been but by can could did do does for from had has have he her him his how i if "
    "in into is it its me my no not of on or our she should so than that the their them then there these "
    "they this those to too us was we were what when where which who will with would you your"
)
LAST_WORD = re.compile(r"([A-Za-z]{4,})[.!?]")
LEAST, MOST = 40, 60  # words before the last one


@dataclass(frozen=True)
class Passage:
    """A passage up to and with its last word, as token ids.

    Attributes:
        ids: of all of it; the tokenizer's BOS token, where it has one, begins it.
        size: how many of them, at the end, are the word.
    """

    ids: tuple[int, ...]
    size: int


def last_words(data: str, tokenizer: Any, count: int = 100) -> list[Passage]:
    """Passages of what is to be scored of a text; none shares a word of it with another.

    A passage has 40 to 60 words and then the last one of a sentence, which is among them: four letters or
    more, and no stop word.

    Args:
        data: a text with roles, such as "prose", or a file.
        tokenizer: as `load` gives it.
        count: how many.

    Raises:
        UserError: there are fewer.
    """
    bos_id = getattr(tokenizer, "bos_id", None)
    first = () if bos_id is None else (bos_id,)
    found: list[Passage] = []
    for document in iter_documents(f"{data}:evaluate"):
        for before, word in passages(document):
            ids = (*first, *tokenizer.encode_ordinary(before))
            answer = tokenizer.encode_ordinary(f" {word}")
            found.append(Passage((*ids, *answer), len(answer)))
            if len(found) == count:
                return found
    raise UserError(
        f"{data} has {len(found)} passages to score whose last word they had before, not {count}: ask for "
        "fewer, or give a longer text"
    )


def passages(document: str) -> list[tuple[str, str]]:
    """The passages of a document, each without its last word, and that word."""
    words = list(re.finditer(r"\S+", document))
    found, free = [], 0  # words from here on are in no passage
    for at, last in enumerate(words):
        match = LAST_WORD.fullmatch(last[0])
        if match is None or at - free < LEAST:
            continue
        start = max(free, at - MOST)
        before = {re.sub(r"\W", "", word[0]).lower() for word in words[start:at]}
        if match[1].lower() in before - STOP:
            found.append((document[words[start].start() : words[at - 1].end()], match[1]))
            free = at + 1
    return found


STOP = frozenset(STOP_WORDS.split())
