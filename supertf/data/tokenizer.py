"""Tokenizers, all as tiktoken encodings: GPT-2's, bytes, SmolLM2's, and byte-level BPEs trained here.

Every tokenizer has one special token, `<|endoftext|>` (`encoding.eot_token`), which separates
documents and also serves as the BOS token in front of a window, as in GPT-2.
"""

import os
from pathlib import Path
from typing import Any

import tiktoken

from supertf.data.byte_pairs import ENDOFTEXT, BytePairEncoding, describe, from_description
from supertf.data.downloads import is_present, smollm2_path
from supertf.data.gguf_vocabulary import read_tokenizer
from supertf.errors import UserError
from supertf.files import cache_dir, read_json, write_json

BUILT_IN = ("gpt2", "bytes", "smollm2-135m")


def load_tokenizer(name: str | Path) -> tiktoken.Encoding:
    """The tokenizer called `name`: "gpt2" (50,257 tokens), "bytes" (257), "smollm2-135m" (49,152), or
    the path of a file written by `save_tokenizer`.

    Raises:
        UserError: the name is unknown, the file damaged, or a vocabulary neither fetched nor reachable.
    """
    if name == "gpt2":
        return _gpt2()
    if name == "bytes":
        return _bytes()
    if name == "smollm2-135m":
        return read_tokenizer(smollm2_path())
    if not os.path.isfile(name):
        raise UserError(
            f"no tokenizer called {str(name)!r}: expected {', '.join(BUILT_IN)} or a tokenizer file's path"
        )
    return tokenizer_from_spec(read_json(name), str(name))


def save_tokenizer(encoding: tiktoken.Encoding, path: str | Path) -> None:
    """Write any tiktoken encoding as one checksummed JSON file that `load_tokenizer` reads."""
    write_json(path, describe(encoding))


def tokenizer_spec(encoding: tiktoken.Encoding) -> str | dict[str, Any]:
    """What a manifest stores to get `encoding` back: a built-in's name, or its whole description."""
    return encoding.name if encoding.name in BUILT_IN else describe(encoding)


def tokenizer_from_spec(spec: str | dict[str, Any], where: str = "the manifest") -> tiktoken.Encoding:
    """The encoding that `tokenizer_spec` described; `UserError` (naming `where`) when it is damaged."""
    if isinstance(spec, str):
        return load_tokenizer(spec)
    return from_description(spec, where)


def special_ids(encoding: tiktoken.Encoding) -> set[int]:
    """The special tokens of an encoding, each of which ends a text."""
    return {encoding.encode_single_token(name) for name in encoding.special_tokens_set}


def unused_ids(tokenizer: Any, vocab_size: int) -> list[int]:
    """Ids of a model's vocabulary that stand for no token, as where it was padded to a round size.

    tokenizer: a tiktoken encoding, or an `HFTokenizer`, which knows its ids itself.
    """
    if isinstance(tokenizer, tiktoken.Encoding):
        used = {*tokenizer._mergeable_ranks.values(), *special_ids(tokenizer)}
    else:
        used = tokenizer.ids
    return [index for index in range(vocab_size) if index not in used]


def _bytes() -> tiktoken.Encoding:
    ranks = {bytes([byte]): byte for byte in range(256)}
    # no merges, so where the text is split does not matter; pieces of 256 keep tiktoken's work linear
    return BytePairEncoding(
        "bytes", pat_str=r"[\s\S]{1,256}", mergeable_ranks=ranks, special_tokens={ENDOFTEXT: 256}
    )


def _gpt2() -> tiktoken.Encoding:
    """GPT-2's encoding, from our cache when fetched there, else from tiktoken's own cache or the network."""
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    if before is None or is_present("gpt2-vocabulary"):
        os.environ["TIKTOKEN_CACHE_DIR"] = str(cache_dir() / "tiktoken")
    try:
        plain = tiktoken.get_encoding("gpt2")  # checks the files' SHA-256 itself
    except (OSError, ValueError) as error:
        raise UserError(
            f"GPT-2's vocabulary is not here and could not be downloaded ({type(error).__name__}); "
            "run `supertf fetch gpt2-vocabulary` once, or use another tokenizer, such as bytes"
        ) from error
    finally:
        if before is None:
            del os.environ["TIKTOKEN_CACHE_DIR"]
        else:
            os.environ["TIKTOKEN_CACHE_DIR"] = before
    return BytePairEncoding(
        plain.name,
        pat_str=plain._pat_str,
        mergeable_ranks=plain._mergeable_ranks,
        special_tokens=plain._special_tokens,
    )
