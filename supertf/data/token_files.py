"""Token files read: memory-mapped, checked against their manifest, and cut into windows and batches.

A token file `train.bin` is nothing but token ids, two bytes each (four from a vocabulary of 65,537 on),
with an `<|endoftext|>` after every document. `train.bin.json` beside it is its manifest. `token_writer`
makes both.
"""

import functools
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tiktoken

from supertf.data.tokenizer import tokenizer_from_spec
from supertf.errors import UserError
from supertf.files import is_sealed, read_json, sha256

if TYPE_CHECKING:
    import torch  # imported where it is used, so that `supertf data` starts without it

FORMAT = "supertf tokens 1"


def manifest_path(path: Path) -> Path:
    """Where the manifest of the token file `path` lies."""
    return path.with_name(path.name + ".json")


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

    def check_vocabulary(self, vocab_size: int) -> None:
        """`UserError` when the file holds a token id that a model of `vocab_size` tokens does not know."""
        if self.manifest["max_token"] >= vocab_size:
            raise UserError(
                f"{self.path} holds token id {self.manifest['max_token']}, but the model's vocabulary has "
                f"{vocab_size} tokens; use a model with vocab_size {self.vocab_size} or another tokenizer"
            )


class Windows:
    """Overlapping stretches of a token file, cut when asked for; `windows[i]` has inputs and targets.

    Window i is `length + 1` int64 tokens: its first `length` are the inputs, its last `length` the
    targets. As in GPT-2, windows run across the ends of documents, where an end-of-text token stands; a
    token sees what comes before it in the window, also from the document before. (The model itself can
    restart there: `segments` of `GPT.forward`.)

    Windows begin every `stride` tokens; one more, aligned with the end of the file, covers the
    tokens left over, so every token but the first is a target.

    Args:
        file: to cut.
        length, stride: defaults from the manifest; `stride` at most `length`, or tokens would be skipped.
        bos_id: begins each window, which then has `length` tokens of the file, so that the first token is
            predicted as well. (A model without positions needs it to know where the text begins.)

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
        check_window(self.length, self.stride)
        self._span = self.length + (bos_id is None)  # tokens of the file in one window
        check_enough(str(file.path), len(file), self._span)

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
    """Endless batches, shuffled anew every epoch.

    Windows come in one endless order that depends on `seed` alone, so a run that goes on after `start`
    of them sees what it would have seen, also with another batch size. All windows are used before any
    returns; a batch may hold the end of one epoch and the start of the next.

    Args:
        windows: of a file, or (N, length + 1) int64 themselves.
        batch_size: windows in a batch.
        seed: of the order.
        start: windows already read.

    Yields:
        Inputs and targets, each (batch_size, length) int64.
    """
    import torch

    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    epoch, order = -1, np.empty(0, dtype=np.int64)  # of no epoch yet
    for first in itertools.count(start, batch_size):
        rows = []
        for position in range(first, first + batch_size):
            if position // len(windows) != epoch:
                epoch = position // len(windows)
                order = np.random.default_rng([seed, epoch]).permutation(len(windows))
            rows.append(windows[int(order[position % len(windows)])])
        batch = torch.stack(rows)
        yield batch[:, :-1].contiguous(), batch[:, 1:].contiguous()


def check_window(length: int, stride: int) -> None:
    """`UserError` on a length or stride out of range."""
    if length < 1 or not 1 <= stride <= length:
        raise UserError(
            f"windows of length {length} at stride {stride}: expected a length of at least 1 and a stride "
            "from 1 to the length"
        )


def check_enough(what: str, tokens: int, needed: int) -> None:
    """`UserError` unless there is one window."""
    if tokens < needed:
        raise UserError(
            f"{what} has {tokens} tokens, fewer than the {needed} of one window; use more text, a "
            "shorter window or another split"
        )
