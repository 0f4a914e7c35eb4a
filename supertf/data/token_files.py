"""Token files: written in one pass with flat memory, memory-mapped, and cut into windows when read.

A token file `train.bin` is nothing but token ids, two bytes each (four from a vocabulary of 65,537 on),
with an `<|endoftext|>` after every document. `train.bin.json` beside it is its manifest.
"""

import contextlib
import functools
import importlib.metadata
import itertools
import math
import os
import platform
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tiktoken
from tqdm.auto import tqdm

from supertf import __version__
from supertf.data.byte_pairs import valid_unicode
from supertf.data.token_writer import (
    FORMAT,
    SPLITS,
    TokenWriter,
    check_overwrite,
    manifest_path,
    publish,
    staging_folder,
)
from supertf.data.tokenizer import tokenizer_from_spec, tokenizer_spec
from supertf.errors import UserError
from supertf.files import is_sealed, read_json, sha256

if TYPE_CHECKING:
    import torch  # imported where it is used, so that `supertf data` starts without it

BATCH_CHARS = 4_000_000  # a tokenizing batch ends here at the latest, to bound memory


def prepare(
    documents: Iterable[str],
    tokenizer: tiktoken.Encoding,
    out_dir: str | Path,
    split_ratio: float = 0.9,
    *,
    seed: int = 0,
    max_length: int = 1024,
    stride: int = 256,
    batch_size: int = 1000,
    threads: int | None = None,
    source: str = "not stated",
    license: str = "not stated",
    command: str = "",
    progress: bool = True,
) -> tuple["TokenFile", "TokenFile"]:
    """Tokenize `documents` into `out_dir/train.bin` and `out_dir/validation.bin`, each with its manifest.

    Documents are read once, in order, and only a batch of them is held, so memory does not grow with
    the corpus. A document goes whole to one split: of N documents, N * (1 - split_ratio) to within one
    go to validation, evenly spaced, from a place that `seed` chooses. Nothing is cut off; empty
    documents are counted. The files appear under their names when all is written; an interrupted
    run leaves what was there before.

    Args:
        split_ratio: share of the documents in the training split, between 0 and 1.
        max_length, stride: defaults, kept in the manifest, for the windows cut at reading.
        batch_size: documents tokenized together, shared by `threads` threads (default: one per core).
        source, license, command: kept in the manifest.

    Raises:
        UserError: an argument out of range, a split shorter than one window, a disk that is full, or
            files in `out_dir` that would be overwritten and are not token files.
    """
    if not 0 < split_ratio < 1:
        raise UserError(f"split_ratio is {split_ratio}; expected a number between 0 and 1, such as 0.9")
    _check_window(max_length, stride)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1 document")
    out_dir = Path(out_dir)
    check_overwrite(out_dir)
    dtype = "uint16" if tokenizer.n_vocab <= 1 << 16 else "uint32"
    encode = functools.partial(_encode, tokenizer, np.dtype(dtype).newbyteorder("<"))
    to_validation = _spaced(1 - split_ratio, random.Random(seed).random())
    documents_read = empty = 0
    with staging_folder(out_dir) as staging, contextlib.ExitStack() as stack:
        writers = [stack.enter_context(TokenWriter(staging / f"{split}.bin")) for split in SPLITS]
        pool = stack.enter_context(ThreadPoolExecutor(threads or os.cpu_count()))
        bar = stack.enter_context(
            tqdm(desc="tokenizing", unit="byte", unit_scale=True, disable=not progress, mininterval=0.5)
        )
        for batch in _batched(documents, batch_size):
            texts = [text for text in batch if text]
            documents_read += len(batch)
            empty += len(batch) - len(texts)
            for tokens, text_bytes in pool.map(encode, texts):
                writers[next(to_validation)].write(tokens, text_bytes)
                bar.update(text_bytes)
        stack.close()  # the files are complete and on disk
        if documents_read == empty:
            raise UserError(f"no text in the corpus ({documents_read} documents, all empty)")
        for split, writer in zip(SPLITS, writers, strict=True):
            _check_enough(f"the {split} split, {writer.documents} documents,", writer.tokens, max_length + 1)
        common = {
            "format": FORMAT,
            "tokenizer": tokenizer_spec(tokenizer),
            "vocab_size": tokenizer.n_vocab,
            "dtype": dtype,
            "source": source,
            "license": license,
            "split_ratio": split_ratio,
            "seed": seed,
            "empty_documents": empty,
            "max_length": max_length,
            "stride": stride,
            "command": command,
            "versions": _versions(),
        }
        publish(out_dir, writers, common)
    return TokenFile(out_dir / "train.bin"), TokenFile(out_dir / "validation.bin")


class TokenFile:
    """A token file with its manifest, memory-mapped: `file.tokens` is a read-only array of token ids.

    Attributes:
        path: of the `.bin` file.
        manifest: the JSON object beside it.
        tokens: (len(file),) uint16 or uint32 `np.memmap`.

    Raises:
        UserError: missing, renamed without its manifest, truncated, or a manifest that was changed.
            Changed tokens are found by `verify`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not os.path.isfile(path):
            raise UserError(f"no token file {path}; make one with `supertf data`")
        if not os.path.isfile(manifest_path(self.path)):
            raise UserError(
                f"{path} has no manifest {manifest_path(self.path).name} beside it: renamed, interrupted, or "
                "no token file; rename both together or run `supertf data` again"
            )
        manifest = read_json(manifest_path(self.path))
        if manifest.get("format") != FORMAT or not is_sealed(manifest):
            raise UserError(
                f"{manifest_path(self.path)} is not a manifest of supertf, or was changed since it was "
                "written; run `supertf data` again"
            )
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        size = self.path.stat().st_size
        if size != manifest["tokens"] * dtype.itemsize:
            raise UserError(
                f"{path} holds {size} bytes, but its manifest says {manifest['tokens']} tokens of "
                f"{dtype.itemsize} bytes: truncated or another file; run `supertf data` again"
            )
        self.manifest = manifest
        self._verified = False
        self.tokens = np.memmap(self.path, dtype=dtype, mode="r", shape=(manifest["tokens"],))

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids the tokenizer can give."""
        return self.manifest["vocab_size"]

    @functools.cached_property
    def tokenizer(self) -> tiktoken.Encoding:
        """The tokenizer the file was written with."""
        return tokenizer_from_spec(self.manifest["tokenizer"], str(manifest_path(self.path)))

    def verify(self) -> None:
        """Read the whole file, once, and compare its SHA-256; `UserError` when any bit has changed."""
        if not self._verified and sha256(self.path) != self.manifest["sha256"]:
            raise UserError(f"{self.path} was changed since it was written; run `supertf data` again")
        self._verified = True


class Windows:
    """Overlapping stretches of a token file, cut when asked for; `windows[i]` has inputs and targets.

    Window i is `length + 1` int64 tokens: its first `length` are the inputs, its last `length` the
    targets. As in GPT-2, windows run across the ends of documents, where an end-of-text token stands; a
    token sees what comes before it in the window, also from the document before. (The model itself can
    restart there: `segments` of `GPT.forward`.)

    Windows begin every `stride` tokens; one more, aligned with the end of the file, covers the
    tokens left over, so every token but the first is a target. With `bos_id` each window is that id
    and then `length` tokens, so that the first token is predicted as well (a model without positions
    needs the BOS token to tell where the text begins).

    Args:
        length, stride: defaults from the manifest; `stride` at most `length`, or tokens would be skipped.

    Raises:
        UserError: a length or stride out of range, or a file shorter than one window.
    """

    def __init__(
        self,
        file: TokenFile,
        length: int | None = None,
        stride: int | None = None,
        bos_id: int | None = None,
    ) -> None:
        self.file = file
        self.length = file.manifest["max_length"] if length is None else length
        self.stride = min(file.manifest["stride"], self.length) if stride is None else stride
        self.bos_id = bos_id
        _check_window(self.length, self.stride)
        self._span = self.length + (bos_id is None)  # tokens of the file in one window
        _check_enough(str(file.path), len(file), self._span)

    def __len__(self) -> int:
        return 1 + math.ceil((len(self.file) - self._span) / self.stride)

    def __getitem__(self, index: int) -> "torch.Tensor":
        """Window `index`: (length + 1,) int64."""
        import torch

        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        start = min(index * self.stride, len(self.file) - self._span)
        window = self.file.tokens[start : start + self._span].astype(np.int64)
        if self.bos_id is not None:
            window = np.concatenate([[self.bos_id], window])
        return torch.from_numpy(window)


def batches(
    windows: "Windows | torch.Tensor", batch_size: int, seed: int, start: int = 0
) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Endless batches (inputs, targets), each (batch_size, length) int64, shuffled anew every epoch.

    Windows are dealt in one endless order that depends on `seed` alone, so a run that goes on after `start`
    of them sees what it would have seen, also with another batch size. All windows are used before any
    returns; a batch may hold the end of one epoch and the start of the next.

    Args:
        windows: of a file, or (N, length + 1) int64 themselves.
        start: windows dealt before.
    """
    import torch

    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    epoch, order = -1, None
    for first in itertools.count(start, batch_size):
        rows = []
        for position in range(first, first + batch_size):
            if position // len(windows) != epoch:
                epoch = position // len(windows)
                order = np.random.default_rng([seed, epoch]).permutation(len(windows))
            rows.append(windows[int(order[position % len(windows)])])
        batch = torch.stack(rows)
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def check_vocab(file: TokenFile, vocab_size: int) -> None:
    """`UserError` when the file holds a token id that a model of `vocab_size` tokens does not know."""
    if file.manifest["max_token"] >= vocab_size:
        raise UserError(
            f"{file.path} holds token id {file.manifest['max_token']}, but the model's vocabulary has "
            f"{vocab_size} tokens; use a model with vocab_size {file.vocab_size} or another tokenizer"
        )


def _encode(tokenizer: tiktoken.Encoding, dtype: np.dtype, text: str) -> tuple[np.ndarray, int]:
    """Token ids of a document with `<|endoftext|>` after it, and the bytes of its text.

    A document that mentions `<|endoftext|>` is text like any other: the special id is never read out of it.
    """
    try:
        text_bytes = len(text.encode())
    except UnicodeEncodeError:
        text = valid_unicode(text)
        text_bytes = len(text.encode())
    ids = tokenizer.encode_to_numpy(text, disallowed_special=())
    return np.append(ids, np.uint32(tokenizer.eot_token)).astype(dtype), text_bytes


def _spaced(share: float, offset: float) -> Iterator[bool]:
    """Endless answers of which `share` are true, evenly spaced, shifted by `offset` in [0, 1)."""
    for index in itertools.count():
        yield math.floor((index + 1) * share + offset) > math.floor(index * share + offset)


def _batched(documents: Iterable[str], batch_size: int) -> Iterator[list[str]]:
    """Lists of up to `batch_size` documents, fewer when they are long."""
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if len(batch) == batch_size or size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_window(length: int, stride: int) -> None:
    if length < 1 or not 1 <= stride <= length:
        raise UserError(
            f"windows of length {length} at stride {stride}: expected a length of at least 1 and a stride "
            "from 1 to the length"
        )


def _check_enough(what: str, tokens: int, needed: int) -> None:
    if tokens < needed:
        raise UserError(
            f"{what} has {tokens} tokens, fewer than the {needed} of one window; use more text, a "
            "shorter window or another split"
        )


def _versions() -> dict[str, str]:
    names = ("datasets", "numpy", "tiktoken", "tokenizers")
    return {
        "supertf": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }
