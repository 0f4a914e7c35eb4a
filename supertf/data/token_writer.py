"""How token files come to be whole or absent: a staging folder, a counting writer, names given last."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from supertf.errors import UserError
from supertf.files import seal, write_json

try:
    import fcntl
except ImportError:  # Windows: two runs into one folder are not kept apart there
    fcntl = None

FORMAT = "supertf tokens 1"
SPLITS = ("train", "validation")
STAGING = ".supertf-data"


def manifest_path(path: Path) -> Path:
    """Where the manifest of the token file `path` lies."""
    return path.with_name(path.name + ".json")


def check_overwrite(out_dir: Path) -> None:
    """Refuse to replace files that `supertf data` has not written."""
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir} is a file; expected a folder to write to")
    for split in SPLITS:
        path = out_dir / f"{split}.bin"
        was_publishing = manifest_path(out_dir / STAGING / path.name).exists()  # killed while naming
        if path.exists() and not manifest_path(path).exists() and not was_publishing:
            raise UserError(f"{path} is there but was not written by supertf; move it or name another folder")


@contextlib.contextmanager
def staging_folder(out_dir: Path) -> Iterator[Path]:
    """A folder inside `out_dir` for files being written, emptied before and removed after.

    What a killed run left there is deleted; a run that is alive holds a lock that the system drops
    with the process.
    """
    folder = out_dir / STAGING
    lock = None
    try:
        with disk_errors(out_dir):
            folder.mkdir(parents=True, exist_ok=True)
            if fcntl is not None:
                lock = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(f"another `supertf data` is writing to {out_dir}; wait for it") from None
            for leftover in folder.iterdir():
                leftover.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


class TokenWriter:
    """A token file being written: appends documents, and counts and hashes as it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.documents = self.tokens = self.text_bytes = self.max_token = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> "TokenWriter":
        with disk_errors(self.path.parent.parent):
            self.file = open(self.path, "wb")
        return self

    def __exit__(self, *exception: object) -> None:
        with disk_errors(self.path.parent.parent), self.file:
            if exception == (None, None, None):
                self.file.flush()
                os.fsync(self.file.fileno())  # on disk before it gets its name

    def write(self, tokens: np.ndarray, text_bytes: int) -> None:
        """Append one document's (n,) token ids, n >= 1, which came from `text_bytes` bytes of text."""
        data = tokens.tobytes()
        with disk_errors(self.path.parent.parent):
            self.file.write(data)
        self.digest.update(data)
        self.documents += 1
        self.tokens += len(tokens)
        self.text_bytes += text_bytes
        self.max_token = max(self.max_token, int(tokens.max()))


def publish(out_dir: Path, writers: list[TokenWriter], common: dict[str, Any]) -> None:
    """Give the finished files their names. Without its manifest a token file is refused, so the old
    manifests go first and the new ones come last: a crash in between never pairs old with new."""
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
    with disk_errors(out_dir):
        for writer in writers:
            manifest_path(out_dir / writer.path.name).unlink(missing_ok=True)
        for writer in writers:
            os.replace(writer.path, out_dir / writer.path.name)
        for writer in writers:
            os.replace(manifest_path(writer.path), manifest_path(out_dir / writer.path.name))


@contextlib.contextmanager
def disk_errors(out_dir: Path) -> Iterator[None]:
    """Turn a disk that is full or a folder that cannot be written into one clear line."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"could not write to {out_dir}: {error.strerror or error}. Token files that were there are "
            "unchanged; free space or choose another folder"
        ) from error
