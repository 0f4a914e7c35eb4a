"""SmolLM2's tokenizer, out of its GGUF file; kept beside it, so that no process has to read it again."""

import contextlib
import sys
from pathlib import Path

import tiktoken

from supertf.data import byte_pairs
from supertf.data.byte_pairs import bpe_encoding, describe, from_description
from supertf.errors import UserError
from supertf.files import made_from, read_json, readable_gguf, write_json


def read_tokenizer(path: Path) -> tiktoken.Encoding:
    """`gguf_tokenizer` of a file, from the copy beside it, which is made if need be."""
    copy = path.with_suffix(".tokenizer.json")
    source = made_from(path, byte_pairs, sys.modules[__name__])
    with contextlib.suppress(UserError):  # absent or damaged
        told = read_json(copy)
        if told.get("source") == source:
            return from_description(told.get("tokenizer"), str(copy))
    encoding = gguf_tokenizer(path)
    with contextlib.suppress(UserError):  # not writable
        write_json(copy, {"source": source, "tokenizer": describe(encoding)})
    return encoding


def gguf_tokenizer(path: Path) -> tiktoken.Encoding:
    """The tokenizer in a GGUF file as a tiktoken `Encoding`; `UserError` unless it splits text as SmolLM2."""
    import gguf

    with readable_gguf(path):
        reader = gguf.GGUFReader(path)
        splits = reader.get_field("tokenizer.ggml.pre")
        if splits is None or splits.contents() != "smollm":
            raise UserError(f"{path} holds a tokenizer that does not split texts as SmolLM2's does")
        tokens, kinds, merges = (
            reader.get_field(f"tokenizer.ggml.{name}").contents()
            for name in ("tokens", "token_type", "merges")
        )
    control = 3  # GGUF's mark for special tokens
    vocab = {token: i for i, token in enumerate(tokens) if kinds[i] != control}
    special = {token: i for i, token in enumerate(tokens) if kinds[i] == control}
    # GPT-2's pattern, but every digit stands alone, also apart from the space before it
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
    pairs = [tuple(merge.split(" ")) for merge in merges]
    return bpe_encoding("smollm2-135m", vocab, pairs, pattern, special)
