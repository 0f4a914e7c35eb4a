"""Byte-level BPEs as tiktoken encodings: made of a vocabulary and merges, trained, described as JSON."""

import base64
import itertools
import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import tiktoken

from supertf.errors import UserError
from supertf.files import is_sealed, seal

ENDOFTEXT = "<|endoftext|>"
# How GPT-2 splits text before merging: contractions, words, numbers, punctuation, white space.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
FORMAT = "supertf tokenizer 1"
SPACES = 100_000  # only runs of at least twice as many white-space characters are cut: see `_cut`
WORD = 1_000  # a longer word is cut for training, whose work grows with the square of a word's length


def bpe_encoding(
    name: str,
    vocab: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: str,
    special_tokens: dict[str, int],
) -> "BytePairEncoding":
    """A byte-level BPE in GPT-2's spelling (each byte one printable character) as a tiktoken encoding.

    tiktoken stores no merge list: of the neighbours whose concatenation is a token it merges those with
    the lowest id. That is the same procedure only if ids grow in merge order and every longer token comes
    from a merge, so both are checked. Characters whose UTF-8 needs a byte the vocabulary lacks are
    dropped, as in Hugging Face's BPE without an unknown token.

    Args:
        name: of the encoding, also in messages.
        vocab: id by token.
        merges: pairs of tokens, the earliest first.
        pattern: regular expression that splits text before merging.
        special_tokens: id by token; `<|endoftext|>` is one of them.

    Raises:
        UserError: the vocabulary cannot be expressed this way; the message says why.
    """
    ids = {token: index for token, index in vocab.items() if token not in special_tokens}
    before = -1
    for i, (left, right) in enumerate(merges):
        made = ids.get(left + right)
        if made is None:
            raise UserError(
                f"tokenizer {name}: the merge of {left!r} and {right!r} gives no token of the vocabulary"
            )
        if made <= before:
            raise UserError(
                f"tokenizer {name}: merge {i} makes token {made} after token {before}; tiktoken merges the "
                "lowest id first, so ids must grow in merge order"
            )
        before = made
    unmade = {token for token in ids if len(token) > 1} - {left + right for left, right in merges}
    if unmade:
        raise UserError(
            f"tokenizer {name}: {len(unmade)} tokens, such as {min(unmade)!r}, come from no merge; pass them "
            "as special tokens"
        )
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    try:
        ranks = {bytes(byte_of[character] for character in token): index for token, index in ids.items()}
    except KeyError as error:
        raise UserError(f"tokenizer {name}: {error} is not in GPT-2's spelling of bytes") from None
    return BytePairEncoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special_tokens)


def train_bpe(documents: Iterable[str], vocab_size: int, name: str | None = None) -> "BytePairEncoding":
    """Train a byte-level BPE on `documents` with Hugging Face `tokenizers`, split as GPT-2 splits.

    Args:
        documents: the text to learn merges from; word counts are kept in memory, not the text. What the
            pattern splits off as one word of more than 1,000 bytes (a long run of spaces, say) counts as
            several.
        vocab_size: tokens wanted, the 256 bytes and `<|endoftext|>` (the last id) included. A small
            text may hold fewer merges: `encoding.n_vocab` says how many there are.
        name: of the encoding; default "bpe:<vocab_size>".

    Raises:
        UserError: `vocab_size` below 257.
    """
    if vocab_size < 257:
        raise UserError(f"a BPE vocabulary of {vocab_size} is too small: 256 bytes and {ENDOFTEXT} make 257")
    vocab, merges = bpe_parts(train_hf_bpe(documents, vocab_size - 1))
    name = name or f"bpe:{vocab_size}"
    return bpe_encoding(name, vocab, merges, GPT2_PATTERN, {ENDOFTEXT: len(vocab)})


def valid_unicode(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot hold, replaced by U+FFFD (as tiktoken does)."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def train_hf_bpe(documents: Iterable[str], vocab_size: int) -> Any:
    """The `tokenizers.Tokenizer` behind `train_bpe`: byte-level BPE, no special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.FixedLength(WORD)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(map(valid_unicode, documents), trainer)
    tokenizer.pre_tokenizer = split
    return tokenizer


def bpe_parts(tokenizer: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merge list, in merge order, of a `tokenizers.Tokenizer` holding a BPE."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's spelling: each of the 256 bytes as one printable character (Radford et al., 2019)."""
    spelling, spare = {}, iter(range(256, 512))
    for byte in range(256):
        printable = chr(byte).isprintable() and byte != ord(" ")
        spelling[byte] = chr(byte if printable else next(spare))
    return spelling


class BytePairEncoding(tiktoken.Encoding):
    """An encoding that checks its vocabulary and takes any text.

    Characters it has no bytes for are dropped, half a surrogate pair is U+FFFD, and white space of any
    length is encoded (tiktoken aborts on each of them somewhere).

    Attributes:
        bos_id: the token that begins every text of the model that it came with, None where nothing does.
    """

    bos_id: int | None = None

    def __init__(self, name: str, **parts: Any) -> None:
        ranks, special = parts["mergeable_ranks"], parts["special_tokens"]
        ids = [*ranks.values(), *special.values()]
        if not ids or not all(isinstance(i, int) and i >= 0 for i in ids) or len(set(ids)) < len(ids):
            raise UserError(f"tokenizer {name}: token ids must be whole numbers, each used once")
        if ENDOFTEXT not in special:
            raise UserError(f"tokenizer {name} has no {ENDOFTEXT} token to put between documents")
        super().__init__(name, **parts)
        self._unspellable = _unspellable([byte for byte in range(256) if bytes([byte]) not in ranks])

    def _parts(self, text: str) -> list[str]:
        return _cut(self._unspellable.sub("", text) if self._unspellable else text)

    def encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for part in self._parts(text):
            ids += super().encode_ordinary(part)
        return ids

    def encode(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = []
        for part in self._parts(text):
            ids += super().encode(part, **options)
        return ids

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, which may spell special tokens, behind the BOS token if there is one."""
        ids = self.encode(text, allowed_special="all")
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def encode_to_numpy(self, text: str, **options: Any) -> np.ndarray:
        encode = super().encode_to_numpy
        return np.concatenate([encode(valid_unicode(part), **options) for part in self._parts(text)])


def _cut(text: str) -> list[str]:
    """`text` in parts that end in the middle of very long white space; most texts are one part.

    GPT-2's pattern, like its relatives, takes a run of white space whole and steps back a character at a
    time, and tiktoken's regular expressions give up after a million steps. Runs shorter than
    `2 * SPACES` are never cut, so their ids stay what they are; parts hold less than `3 * SPACES` in a row.
    """
    multiples = range(SPACES, len(text) - SPACES + 1, SPACES)
    cuts = [at for at in multiples if text[at - SPACES : at + SPACES].isspace()]
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]


def _unspellable(missing: list[int]) -> re.Pattern[str] | None:
    """A pattern for the characters whose UTF-8 begins with one of the `missing` bytes."""
    leads = ((0x00, 0x7F, 0, 0), (0xC0, 0xDF, 6, 0x80), (0xE0, 0xEF, 12, 0x800), (0xF0, 0xF4, 18, 0x10000))
    ranges = []
    for byte in missing:
        if 0x80 <= byte < 0xC0:  # a continuation byte, part of characters all over Unicode
            raise UserError(
                f"the vocabulary lacks byte {byte:#x}, without which hardly any text can be written"
            )
        for low, high, shift, smallest in leads:  # characters of 1, 2, 3 and 4 bytes
            if low <= byte <= high:
                first = byte - low << shift
                ranges.append((max(first, smallest), min(first + (1 << shift) - 1, 0x10FFFF)))
    ranges = [(first, last) for first, last in ranges if first <= last]  # C0 and C1 begin no character
    if not ranges:
        return None
    return re.compile("[" + "".join(f"{re.escape(chr(a))}-{re.escape(chr(b))}" for a, b in ranges) + "]+")


def describe(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """A checksummed JSON object with all of `encoding`; tokens in id order, base64, comma-separated."""
    tokens = [b""] * encoding.n_vocab
    for token, index in encoding._mergeable_ranks.items():
        tokens[index] = token
    return seal(
        {
            "format": FORMAT,
            "name": encoding.name,
            "pattern": encoding._pat_str,
            "special_tokens": encoding._special_tokens,
            "tokens": ",".join(base64.b64encode(token).decode() for token in tokens),
        }
    )


def from_description(spec: Any, where: str) -> "BytePairEncoding":
    """The encoding that `describe` described; `UserError` (naming `where`) when it is damaged."""
    problem = f"{where} does not hold a tokenizer written by supertf, or was changed since; write it again"
    if not isinstance(spec, dict) or spec.get("format") != FORMAT or not is_sealed(spec):
        raise UserError(problem)
    try:
        tokens = [base64.b64decode(token) for token in spec["tokens"].split(",")]
        ranks = {token: index for index, token in enumerate(tokens) if token}
        return BytePairEncoding(
            spec["name"],
            pat_str=spec["pattern"],
            mergeable_ranks=ranks,
            special_tokens=spec["special_tokens"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(problem) from error
