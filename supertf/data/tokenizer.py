"""Tokenizers, all as tiktoken encodings: GPT-2's, bytes, SmolLM2's, and byte-level BPEs trained here.

Every tokenizer has one special token, `<|endoftext|>` (`encoding.eot_token`), which separates
documents and also serves as the BOS token in front of a window, as in GPT-2.
"""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tiktoken

from supertf.data import byte_pairs
from supertf.data.byte_pairs import ENDOFTEXT, BytePairEncoding, bpe_encoding, describe, from_description
from supertf.data.downloads import is_present, smollm2_path
from supertf.errors import UserError
from supertf.files import cache_dir, made_from, read_json, readable_gguf, write_json

if TYPE_CHECKING:
    import torch  # imported where it is used, so that `supertf data` starts without it

# How SmolLM2 splits text: as GPT-2, but every digit stands alone, also apart from the space before it.
SMOLLM2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"
CONTROL = 3  # GGUF's mark for special tokens


def load_tokenizer(name: str | Path) -> BytePairEncoding:
    """Load a tokenizer by its name or from a file.

    Args:
        name: "gpt2" (50,257 tokens), "bytes" (257), "smollm2-135m" (49,152), or the path of a file written
            by `save_tokenizer`.

    Raises:
        UserError: the name is unknown, the file damaged, or a vocabulary neither fetched nor reachable.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]()
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


def tokenizer_from_spec(spec: str | dict[str, Any], where: str = "the manifest") -> BytePairEncoding:
    """The encoding that `tokenizer_spec` described; `UserError` (naming `where`) when it is damaged."""
    if isinstance(spec, str):
        return load_tokenizer(spec)
    return from_description(spec, where)


def special_ids(encoding: tiktoken.Encoding) -> set[int]:
    """The special tokens of an encoding, each of which ends a text."""
    return {encoding.encode_single_token(name) for name in encoding.special_tokens_set}


def unused_ids(tokenizer: Any, vocab_size: int) -> list[int]:
    """Ids of a model's vocabulary that stand for no token, as where it was padded to a round size.

    Args:
        tokenizer: a tiktoken encoding, or an `HFTokenizer`, which knows its ids itself.
        vocab_size: of the model.
    """
    if isinstance(tokenizer, tiktoken.Encoding):
        used = {*tokenizer._mergeable_ranks.values(), *special_ids(tokenizer)}
    else:
        used = tokenizer.ids
    return [index for index in range(vocab_size) if index not in used]


def check_vocabulary(ids: "Sequence[int] | torch.Tensor", vocab_size: int, what: str) -> None:
    """Refuse token ids that are not a model's: another tokenizer's would give wrong numbers without a word.

    Args:
        ids: of any shape.
        vocab_size: of the model.
        what: what the ids are of, for the message.

    Raises:
        UserError: there are no ids, or some are not within 0 ... vocab_size - 1.
    """
    import torch

    ids = torch.as_tensor(ids, dtype=torch.int64)
    if not ids.numel():
        raise UserError(f"{what} is empty: give at least one token, for example the end-of-text token")
    if not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise UserError(
            f"{what} has token ids from {int(ids.min())} to {int(ids.max())}, but the model's vocabulary is "
            f"0 to {vocab_size - 1}: is this the model's own tokenizer?"
        )


def read_tokenizer(path: Path) -> BytePairEncoding:
    """`gguf_tokenizer` of a file, from a copy kept beside it, since reading the file takes a second or two.

    The copy is made anew when it is absent, damaged, or not made from this very file by this very code.
    """
    copy = path.with_suffix(".tokenizer.json")
    source = made_from(path, byte_pairs, sys.modules[__name__])
    with contextlib.suppress(UserError):  # absent or damaged
        kept = read_json(copy)
        if kept.get("source") == source:
            return from_description(kept.get("tokenizer"), str(copy))
    encoding = gguf_tokenizer(path)
    with contextlib.suppress(UserError):  # not writable
        write_json(copy, {"source": source, "tokenizer": describe(encoding)})
    return encoding


def gguf_tokenizer(path: Path) -> BytePairEncoding:
    """The tokenizer in a GGUF file; `UserError` unless it splits text as SmolLM2's does."""
    import gguf

    with readable_gguf(path):
        reader = gguf.GGUFReader(path)
        splits = reader.get_field("tokenizer.ggml.pre")
        if splits is None or splits.contents() != "smollm":
            raise UserError(f"{path} holds a tokenizer that does not split texts as SmolLM2's does")
        tokens, kinds, merges = (
            reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
        )
    vocab = {token: i for i, token in enumerate(tokens) if kinds[i] != CONTROL}
    special = {token: i for i, token in enumerate(tokens) if kinds[i] == CONTROL}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    own = is_present("smollm2-135m") and path.samefile(smollm2_path())
    name = "smollm2-135m" if own else path.name  # which stands for the very tokens of that file
    return bpe_encoding(name, vocab, pairs, SMOLLM2_PATTERN, special)


def _smollm2() -> BytePairEncoding:
    return read_tokenizer(smollm2_path())


def _bytes() -> BytePairEncoding:
    ranks = {bytes([byte]): byte for byte in range(256)}
    # no merges, so where the text is split does not matter; pieces of 256 keep tiktoken's work linear
    return BytePairEncoding(
        "bytes", pat_str=r"[\s\S]{1,256}", mergeable_ranks=ranks, special_tokens={ENDOFTEXT: 256}
    )


def _gpt2() -> BytePairEncoding:
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


BUILT_IN = {"gpt2": _gpt2, "bytes": _bytes, "smollm2-135m": _smollm2}
