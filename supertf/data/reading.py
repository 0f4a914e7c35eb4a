"""Texts by name, as token ids: the beginning of any text, and the lab's own training text."""

import contextlib
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from supertf.data.byte_pairs import train_bpe
from supertf.data.corpus import iter_documents, origin
from supertf.data.token_files import TokenFile
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import tokenizer_spec
from supertf.errors import UserError
from supertf.files import cache_dir

CORPUS = "python-docs:stdlib"


def read_ids(data: str, tokenizer: Any, max_tokens: int) -> np.ndarray:
    """The beginning of a text or a token file, as token ids.

    Args:
        data: a token file (`.bin`), or what `iter_documents` takes, such as "python-docs".
        tokenizer: of the model that is to read the ids, as `load` gives it.
        max_tokens: ids wanted.

    Returns:
        (N,) int64, N at most `max_tokens`; every document ends with the end-of-text token.

    Raises:
        UserError: the text cannot be read, or the token file was changed or is of another tokenizer.
    """
    if data.endswith(".bin"):
        file = TokenFile(data)
        if file.manifest["tokenizer"] != tokenizer_spec(tokenizer):
            raise UserError(
                f"{data} was written with another tokenizer than the model's: give the text itself"
            )
        file.verify()
        return file.tokens[:max_tokens].astype(np.int64)
    ids: list[int] = []
    for document in iter_documents(data):
        ids += tokenizer.encode_ordinary(document)
        ids.append(tokenizer.eot_token)
        if len(ids) >= max_tokens:
            break
    return np.array(ids[:max_tokens], dtype=np.int64)


def lab_tokens(vocab_size: int) -> tuple[TokenFile, TokenFile]:
    """Training and validation tokens of Python's documentation, made once and kept in the cache.

    Several processes may ask for them at the same time, as an experiment's do: what the first one has made
    is used by all.

    Args:
        vocab_size: of the BPE that is trained on the same text; 257 are the bytes and `<|endoftext|>`.
    """
    folder = cache_dir() / "lab-tokens" / f"python-{platform.python_version()}-vocabulary-{vocab_size}"
    if not folder.exists():
        documents = list(iter_documents(CORPUS, progress=False))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as own:
            made = Path(own, folder.name)
            prepare(documents, train_bpe(documents, vocab_size), made, progress=False, **origin(CORPUS))
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(folder)
    return TokenFile(folder / "train.bin"), TokenFile(folder / "validation.bin")
