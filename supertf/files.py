"""Files that are whole or absent: atomic writes, hashes and the cache folder."""

import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from supertf.errors import UserError

# What gguf, numpy and torch raise on files with a flipped bit or a missing end.
GGUF_ERRORS = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, RuntimeError),
)


def cache_dir() -> Path:
    """Folder for downloads and prepared text: `$SUPERTF_CACHE`, else the user's cache folder."""
    if "SUPERTF_CACHE" in os.environ:
        return Path(os.environ["SUPERTF_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "supertf"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Readers therefore see the old file or the complete new one, never a part.

    Raises:
        UserError: the write failed (a full disk, say); what was there before is unchanged.
    """
    path = Path(path)
    with disk_errors(str(path), "the previous file, if any, is"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # on disk before the name points at it
            temporary.chmod(0o644)  # mkstemp makes it private
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_errors(what: str, kept: str) -> Iterator[None]:
    """Turn a disk that is full, or a folder that cannot be written to, into one `UserError`.

    Args:
        what: is being written.
        kept: what is unchanged then, with its verb, for the message.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"could not write {what}: {error.strerror or error}; {kept} unchanged; free space or choose "
            "another folder"
        ) from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object; `UserError` when the file is missing, unreadable or not an object."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, a giant number
        raise UserError(f"{path} is not a readable JSON file: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """`value` with a `checksum` over everything else in it, so that a later change is noticed."""
    body = {name: item for name, item in value.items() if name != "checksum"}
    text = json.dumps(body, sort_keys=True)
    return {**body, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether the `checksum` that `seal` put in still fits the rest."""
    return "checksum" in value and seal(value)["checksum"] == value["checksum"]


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def made_from(path: Path, *modules: ModuleType) -> dict[str, Any]:
    """What a copy is made of and by: a file, known by its size and time, and the code that reads it."""
    stat = path.stat()
    code = {module.__name__: sha256(inspect.getfile(module)) for module in modules}
    made_by = {"gguf": importlib.metadata.version("gguf"), **code}
    return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, **made_by}


@contextlib.contextmanager
def readable_gguf(path: Path) -> Iterator[None]:
    """Turn whatever a missing or damaged GGUF file makes its reader raise into one `UserError`."""
    try:
        yield
    except UserError:
        raise
    except GGUF_ERRORS as error:
        raise UserError(f"{path} is not a readable GGUF file ({error}): fetch it again") from error
