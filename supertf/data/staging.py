"""Token files while they are written: into a staging folder, counted and hashed as they grow.

Beside them a journal says where the reader is, so that a run that ends early can be gone on with.
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from supertf.errors import Note, UserError
from supertf.files import disk_errors, is_sealed, read_json, seal, write_json

STAGING = ".supertf-data"  # the folder, beside where the files will be
JOURNAL = "unfinished.json"
EVERY = 10.0  # seconds between two notes in it
WRITTEN = ("documents", "tokens", "text_bytes", "max_token", "bytes")  # that a writer counts


@dataclass
class Place:
    """Where a reader is in a corpus; `iter_documents` moves it on, document by document.

    Attributes:
        documents: read so far.
        stream: of a dataset on the hub, its `revision`, the `state` that `datasets` gave before the rows that
            came last, and how many of these are `read`; None elsewhere.
    """

    documents: int = 0
    stream: dict[str, Any] | None = None


def writing(out_dir: Path) -> AbstractContextManager[None]:
    """A disk that is full while token files are written is one clear line."""
    return disk_errors(f"to {out_dir}", "token files that were there are")


def unfinished(out_dir: str | Path) -> bool:
    """Whether a run that ended early has left something in a folder to go on with."""
    return (Path(out_dir) / STAGING / JOURNAL).exists()


@contextlib.contextmanager
def staging_folder(out_dir: Path, keep: bool = False) -> Iterator[Path]:
    """A folder inside `out_dir` for files being written, removed after, unless a `Journal` in it says that
    another run can go on with them.

    What a killed run left there is deleted, unless it is to be kept; a run that is alive holds a lock that
    the system drops with the process.
    """
    if keep and not unfinished(out_dir):
        raise UserError(f"nothing unfinished in {out_dir} to go on with: leave out --resume")
    folder = out_dir / STAGING
    with contextlib.ExitStack() as stack:
        with writing(out_dir):
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform != "win32":  # there two runs into one folder are not kept apart
                import fcntl

                lock = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, lock)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"another `supertf data` is writing to {out_dir}; wait for it") from None
            for leftover in [] if keep else folder.iterdir():
                leftover.unlink()
        try:
            yield folder
        finally:
            if not unfinished(out_dir):
                shutil.rmtree(folder, ignore_errors=True)


class TokenWriter:
    """A token file being written: appends documents, and counts and hashes as it goes."""

    def __init__(self, path: Path) -> None:
        self.path, self.out_dir = path, path.parent.parent
        self.documents = self.tokens = self.text_bytes = self.max_token = self.bytes = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> "TokenWriter":
        with writing(self.out_dir):
            self.file = open(self.path, "r+b" if self.bytes else "wb")
            self.file.seek(self.bytes)
            self.file.truncate()
        return self

    def __exit__(self, *exception: object) -> None:
        with writing(self.out_dir), self.file:
            if exception == (None, None, None):
                self.flush()

    def state(self) -> dict[str, int]:
        """How much is written, for `go_on`."""
        return {name: getattr(self, name) for name in WRITTEN}

    def go_on(self, state: dict[str, int]) -> None:
        """Begin behind what another writer had written at a `state`; what follows there is dropped."""
        for name in WRITTEN:
            setattr(self, name, state[name])
        left = self.bytes
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as file:
            while piece := file.read(min(left, 1 << 20)):
                self.digest.update(piece)
                left -= len(piece)
        if left:
            raise UserError(f"{self.path} is shorter than it was: delete {self.path.parent} to begin anew")

    def flush(self) -> None:
        """All that was written is on disk."""
        with writing(self.out_dir):
            self.file.flush()
            os.fsync(self.file.fileno())

    def write(self, tokens: np.ndarray, text_bytes: int) -> None:
        """Append one document's (n,) token ids, n >= 1, which came from `text_bytes` bytes of text."""
        data = tokens.tobytes()
        with writing(self.out_dir):
            self.file.write(data)
        self.digest.update(data)
        self.bytes += len(data)
        self.documents += 1
        self.tokens += len(tokens)
        self.text_bytes += text_bytes
        self.max_token = max(self.max_token, int(tokens.max()))


class Journal:
    """What of unfinished token files is complete: noted after every batch, kept every few seconds, and at the
    end of a run that ends early."""

    def __init__(
        self, folder: Path, made: dict[str, Any], place: Place, writers: Sequence[TokenWriter]
    ) -> None:
        """folder: that the files are written in. made: what decides what they hold."""
        self.path, self.out_dir, self.made = folder / JOURNAL, folder.parent, made
        self.place, self.writers = place, writers
        self.noted: dict[str, Any] = {}
        self.kept = time.monotonic()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and self.noted:
            with contextlib.suppress(UserError):  # a disk that is full: what was kept before is still right
                self.keep()
            if self.path.exists():
                warnings.warn(
                    Note(f"what was read is kept in {self.out_dir}: the same with --resume goes on there"),
                    stacklevel=2,
                )

    def go_on(self) -> int:
        """Move reader and writers to where a run was that ended early; how many empty documents it read.

        Raises:
            UserError: it was made otherwise, or it is damaged.
        """
        found = read_json(self.path)
        if not is_sealed(found):
            raise UserError(f"{self.path} was changed since it was written: delete it to begin anew")
        for name, value in self.made.items():
            if (before := found["made"].get(name)) != value:
                raise UserError(
                    f"what is unfinished in {self.out_dir} has another {name}, {str(before)[:300]!r}: ask "
                    f"for the same, or delete {self.path.parent} to begin anew"
                )
        noted = found["noted"]
        for writer, state in zip(self.writers, noted["written"], strict=True):
            writer.go_on(state)
        self.place.documents, self.place.stream = noted["place"]["documents"], noted["place"]["stream"]
        self.noted = noted
        return noted["empty"]

    def note(self, empty: int) -> None:
        """Remember that all is complete up to the reader's place; keep it if it is time to."""
        written = [writer.state() for writer in self.writers]
        self.noted = {"place": asdict(self.place), "empty": empty, "written": written}
        if time.monotonic() - self.kept >= EVERY:
            self.keep()

    def keep(self) -> None:
        """Write what was noted last, once it is on disk."""
        for writer in self.writers:
            writer.flush()
        write_json(self.path, seal({"made": self.made, "noted": self.noted}))
        self.kept = time.monotonic()

    def discard(self) -> None:
        """The files have their names: there is nothing to go on with."""
        self.path.unlink(missing_ok=True)
