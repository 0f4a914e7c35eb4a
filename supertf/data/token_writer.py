"""Token files written: in one pass with flat memory, whole or absent.

Files are written into a staging folder and get their names last.
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
from typing import Any

import numpy as np
import tiktoken
from tqdm.auto import tqdm

from supertf import __version__
from supertf.data.byte_pairs import valid_unicode
from supertf.data.staging import STAGING, Journal, Place, TokenWriter, staging_folder, writing
from supertf.data.token_files import FORMAT, TokenFile, check_enough, check_window, manifest_path
from supertf.data.tokenizer import tokenizer_spec
from supertf.errors import UserError
from supertf.files import seal, write_json

SPLITS = ("train", "validation")
BATCH_CHARS = 4_000_000  # a tokenizing batch ends here at the latest, to bound memory


def prepare(
    documents: Iterable[str],
    tokenizer: tiktoken.Encoding,
    out_dir: str | Path,
    split_ratio: float = 0.9,
    *,
    validation: Iterable[str] | None = None,
    seed: int = 0,
    max_length: int = 1024,
    stride: int = 256,
    batch_size: int = 1000,
    max_tokens: int | None = None,
    threads: int | None = None,
    source: str = "not stated",
    license: str = "not stated",
    command: str = "",
    progress: bool = True,
    place: Place | None = None,
    resume: bool = False,
) -> tuple[TokenFile, TokenFile]:
    """Tokenize `documents` into `out_dir/train.bin` and `out_dir/validation.bin`, each with its manifest.

    Documents are read once, in order, and only a batch of them is held, so memory does not grow with
    the corpus. A document goes whole to one split: of N documents, N * (1 - split_ratio) to within one
    go to validation, evenly spaced, from a place that `seed` chooses. Nothing is cut off; empty
    documents are counted. The files appear under their names when all is written. An interrupted run leaves
    what was there before; with a `place` also what it has done, for another run to go on with.

    Args:
        documents: texts, such as `iter_documents` gives.
        tokenizer: from `load_tokenizer` or `train_bpe`; kept in the manifest.
        out_dir: folder to write to, made if need be.
        split_ratio: share of the documents in the training split, between 0 and 1.
        validation: documents of the validation split; all of `documents` are then for training.
        seed: of the split.
        max_length, stride: defaults, kept in the manifest, for the windows cut at reading.
        batch_size: documents tokenized together, shared by `threads` threads (default: one per core).
        max_tokens: stop after the batch with which there are as many; None: read all.
        source, license, command: kept in the manifest; the command also decides what may be gone on with.
        progress: show a bar.
        place: of the reader that gives the `documents`, which moves it on.
        resume: go on with what an interrupted run has left in `out_dir`; `place` is moved there before the
            first document is asked for, and the files become those of a run that nothing interrupted.

    Returns:
        The training file and the validation file.

    Raises:
        UserError: an argument out of range, a split shorter than one window, a disk that is full, files in
            `out_dir` that would be overwritten and are not token files, or nothing to go on with.
    """
    if not 0 < split_ratio < 1:
        raise UserError(f"split_ratio is {split_ratio}; expected a number between 0 and 1, such as 0.9")
    check_window(max_length, stride)
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1 document")
    out_dir = Path(out_dir)
    check_overwrite(out_dir)
    if (resume and place is None) or (validation is not None and place is not None):
        raise UserError("to go on later takes the `place` of one reader, and no `validation` of another")
    dtype = "uint16" if tokenizer.n_vocab <= 1 << 16 else "uint32"
    encode = functools.partial(_encode, tokenizer, np.dtype(dtype).newbyteorder("<"))
    spec = tokenizer_spec(tokenizer)
    made = {"command": command, "tokenizer": spec, "split_ratio": split_ratio, "seed": seed}
    documents_read = empty = 0
    with staging_folder(out_dir, resume) as staging, contextlib.ExitStack() as stack:
        writers = [TokenWriter(staging / f"{split}.bin") for split in SPLITS]
        journal = None if place is None else Journal(staging, made, place, writers)
        if resume and journal is not None:
            empty = journal.go_on()
            documents_read = journal.place.documents
        for writer in writers:
            stack.enter_context(writer)
        if journal is not None:
            stack.enter_context(journal)
        divided = sum(writer.documents for writer in writers)
        spaced = itertools.islice(_spaced(1 - split_ratio, random.Random(seed).random()), divided, None)
        passes: list[tuple[Iterable[str], Iterator[bool]]] = [(documents, spaced)]
        if validation is not None:
            passes = [(documents, itertools.repeat(False)), (validation, itertools.repeat(True))]
        pool = stack.enter_context(ThreadPoolExecutor(threads or os.cpu_count()))
        bar = stack.enter_context(
            tqdm(
                desc="tokenizing",
                unit="byte",
                unit_scale=True,
                initial=sum(writer.text_bytes for writer in writers),
                disable=not progress,
                mininterval=0.5,
            )
        )
        batches = ((batch, where) for part, where in passes for batch in _batched(part, batch_size))
        for batch, to_validation in batches:
            texts = [text for text in batch if text]
            documents_read += len(batch)
            empty += len(batch) - len(texts)
            for tokens, text_bytes in pool.map(encode, texts):
                writers[next(to_validation)].write(tokens, text_bytes)
                bar.update(text_bytes)
            if journal is not None:
                journal.note(empty)
            if max_tokens is not None and sum(writer.tokens for writer in writers) >= max_tokens:
                break
        stack.close()  # the files are complete and on disk
        if documents_read == empty:
            raise UserError(f"no text in the corpus ({documents_read} documents, all empty)")
        for split, writer in zip(SPLITS, writers, strict=True):
            check_enough(f"the {split} split, {writer.documents} documents,", writer.tokens, max_length + 1)
        common = {
            "format": FORMAT,
            "tokenizer": spec,
            "vocab_size": tokenizer.n_vocab,
            "dtype": dtype,
            "source": source,
            "license": license,
            "split_ratio": split_ratio if validation is None else None,
            "seed": seed,
            "empty_documents": empty,
            "max_length": max_length,
            "stride": stride,
            "command": command,
            "versions": _versions(),
        }
        publish(out_dir, writers, common)
        if journal is not None:
            journal.discard()
    return TokenFile(out_dir / "train.bin"), TokenFile(out_dir / "validation.bin")


def check_overwrite(out_dir: Path) -> None:
    """Refuse to replace files that `supertf data` has not written."""
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir} is a file; expected a folder to write to")
    for split in SPLITS:
        path = out_dir / f"{split}.bin"
        was_publishing = manifest_path(out_dir / STAGING / path.name).exists()  # killed while naming
        if path.exists() and not manifest_path(path).exists() and not was_publishing:
            raise UserError(f"{path} is there but was not written by supertf; move it or name another folder")


def publish(out_dir: Path, writers: list[TokenWriter], common: dict[str, Any]) -> None:
    """Give the finished files their names.

    Without its manifest a token file is refused, so the old manifests go first and the new ones come last:
    a crash in between never pairs old with new.
    """
    for writer in writers:
        manifest = {
            "split": writer.path.stem,
            "documents": writer.documents,
            "tokens": writer.tokens,
            "text_bytes": writer.text_bytes,
            "max_token": writer.max_token,
            "sha256": writer.digest.hexdigest(),
        }
        write_json(manifest_path(writer.path), seal({**common, **manifest}))
    with writing(out_dir):
        for writer in writers:
            manifest_path(out_dir / writer.path.name).unlink(missing_ok=True)
        for writer in writers:
            os.replace(writer.path, out_dir / writer.path.name)
        for writer in writers:
            os.replace(manifest_path(writer.path), manifest_path(out_dir / writer.path.name))


def _encode(tokenizer: tiktoken.Encoding, dtype: np.dtype, text: str) -> tuple[np.ndarray, int]:
    """Token ids of a document with `<|endoftext|>` after it, and the bytes of its text.

    A document that mentions `<|endoftext|>` is text like any other: the special id is never read out of it.
    """
    text = valid_unicode(text)
    ids = tokenizer.encode_to_numpy(text, disallowed_special=())
    return np.append(ids, np.uint32(tokenizer.eot_token)).astype(dtype), len(text.encode())


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


def _versions() -> dict[str, str]:
    names = ("datasets", "numpy", "tiktoken", "tokenizers")
    return {
        "supertf": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }
