"""Where text comes from: documents of a dataset on the hub, of local files, or Python's own documentation."""

import contextlib
import gc
import itertools
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from supertf import python_docs
from supertf.errors import UserError

PYTHON_DOCS = ("python-docs", "python-docs:stdlib")  # everything installed; the standard library alone
TEXT_COLUMNS = ("text", "content")
KINDS = {".txt": "text", ".md": "text", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}
DOCUMENT_CHARS = 4096  # a text file is cut into documents of about this size, at blank lines
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def iter_documents(
    data_name: str, sample_size: int | None = None, text_column: str | None = None, progress: bool = True
) -> Iterator[str]:
    """Yield the first `sample_size` documents (all by default) of a corpus, always in the same order.

    Args:
        data_name: one of
            - "python-docs" (the documentation of Python and of the scientific packages installed) or
              "python-docs:stdlib" (Python alone);
            - a local `.jsonl`, `.json` or `.parquet` file (a row is a document), or a text file, which is
              cut into documents of about 4,096 characters at blank lines;
            - a folder of such files, searched with its subfolders in order of path;
            - a dataset on the Hugging Face hub, "owner/name" or "owner/name:configuration", streamed.
        text_column: the column with the text; default "text", else "content".
        progress: show a bar while "python-docs" is collected for the first time.

    Raises:
        UserError: nothing there, empty, binary, not UTF-8, damaged, without a text column, or a hub
            that cannot be reached.
    """
    with contextlib.closing(_documents(str(data_name), text_column, progress)) as documents:
        yield from itertools.islice(documents, sample_size)


def describe(data_name: str) -> dict[str, str]:
    """The `source` and `license` of a corpus, for the manifest of a token file."""
    if data_name in PYTHON_DOCS:
        stdlib_only = data_name != PYTHON_DOCS[0]
        names = ", ".join(f"{name} {version}" for name, version in python_docs.parts(stdlib_only).items())
        return {"source": f"documentation of {names}", "license": python_docs.licenses(stdlib_only)}
    if os.path.exists(data_name):
        return {"source": f"local {Path(data_name).name}", "license": "not stated"}
    name, _ = _hub_dataset(data_name)
    return {"source": f"https://huggingface.co/datasets/{name}", "license": _hub_license(name)}


def hub_trouble(timeout: float = 5.0) -> str | None:
    """Why the hub cannot be asked, or None when it answers (`datasets` retries for half a minute first)."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    url = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=timeout):
            return None
    except urllib.error.HTTPError:
        return None  # it answered
    except (OSError, ValueError) as error:
        return f"no answer from {url}: {getattr(error, 'reason', error)}"


def _documents(data_name: str, text_column: str | None, progress: bool) -> Iterator[str]:
    if data_name in PYTHON_DOCS:
        yield from python_docs.documents(data_name != PYTHON_DOCS[0], progress)
    elif os.path.exists(data_name):
        for file in _local_files(Path(data_name)):
            kind = KINDS.get(file.suffix.lower(), "text")
            if kind == "text":
                yield from _text_documents(file)
            else:
                yield from (_json_documents if kind == "json" else _parquet_documents)(file, text_column)
    else:
        name, configuration = _hub_dataset(data_name)
        yield from _hub_documents(name, configuration, text_column)


def _hub_dataset(data_name: str) -> tuple[str, str | None]:
    """Name and configuration of a dataset on the hub, once the hub is known to answer."""
    name, _, configuration = data_name.partition(":")
    if not HUB_ID.fullmatch(data_name) or Path(name).suffix in KINDS:
        raise UserError(f"no file or folder {data_name!r}, nor is it a hub id such as owner/name")
    if (trouble := hub_trouble()) is not None:
        raise UserError(
            f"{data_name!r} is no local file or folder, and the Hugging Face hub, where it might be, "
            f"cannot be reached ({trouble}); connect, or use a local file or python-docs"
        )
    return name, configuration or None


def _local_files(path: Path) -> list[Path]:
    """The files of `path` in order, but for empty ones."""
    files = [path]
    if not path.is_file():
        found = (file for file in path.rglob("*") if file.suffix.lower() in KINDS and file.is_file())
        hidden = re.compile(r"(^|/)\.")
        files = sorted(file for file in found if not hidden.search(file.relative_to(path).as_posix()))
        if not files:
            raise UserError(f"no {', '.join(KINDS)} file in the folder {path}")
    files = [file for file in files if file.stat().st_size]
    if not files:
        raise UserError(f"{path} is empty; give a file or folder with text")
    return files


def _text_documents(path: Path) -> Iterator[str]:
    """The documents of a text file: its text, cut at blank lines once `DOCUMENT_CHARS` are passed, and at
    the latest at four times that. Joined they give the whole text back, with line ends as newlines."""
    pieces: list[str] = []
    size = 0
    for line in _lines(path, DOCUMENT_CHARS):
        pieces.append(line)
        size += len(line)
        if (size >= DOCUMENT_CHARS and line == "\n") or size >= 4 * DOCUMENT_CHARS:
            yield "".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield "".join(pieces)


def _json_documents(path: Path, text_column: str | None) -> Iterator[str]:
    """The text of each object of a file with one JSON object a line, or with one JSON list of objects.

    Read here because the reader behind `datasets` aborts the process on some malformed files.
    """
    rows: Iterable[str] = _lines(path)
    first = next(rows).lstrip()
    rows = itertools.chain([first], rows)
    if first.startswith("["):
        rows = _parse("".join(rows), str(path))
    for number, row in enumerate(rows, start=1):
        place = f"row {number} of {path}"
        if isinstance(row, str) and not row.strip():
            continue  # a blank line
        if isinstance(row, str):
            row = _parse(row, place)
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object; expected one object a line, or a list of objects")
        text = row[_text_column(place, list(row), text_column)]
        if not isinstance(text, str | None):
            raise UserError(f"the text column in {place} holds {type(text).__name__}, expected a string")
        yield text or ""


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({error}); expected one object a line") from error


def _lines(path: Path, limit: int = -1) -> Iterator[str]:
    """The lines of a UTF-8 text file, with their ends; those longer than `limit` in pieces."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            while line := file.readline(limit):
                if "\0" in line:
                    raise UserError(f"{path} is a binary file (it has zero bytes); expected UTF-8 text")
                yield line
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x}: {error.reason}); "
            "convert it first, for example with iconv"
        ) from error
    except OSError as error:
        raise UserError(f"could not read {path}: {error.strerror or error}") from error


def _parquet_documents(path: Path, text_column: str | None) -> Iterator[str]:
    """The rows of a Parquet file, a row group at a time (`datasets` would buffer the whole file)."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path, pre_buffer=False) as file:
            column = _text_column(str(path), file.schema_arrow.names, text_column)
            for batch in file.iter_batches(256, columns=[column]):
                yield from _strings(str(path), batch.column(column))
    except UserError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"could not read {path}: {_first_line(error)}") from error


def _hub_documents(name: str, configuration: str | None, text_column: str | None) -> Iterator[str]:
    """The rows of a dataset on the hub, streamed by `datasets`: its "train" split, else its first."""
    import datasets
    import pyarrow

    failures = (OSError, ValueError, TypeError, pyarrow.ArrowException, datasets.exceptions.DatasetsError)
    stream = None
    try:
        stream = datasets.load_dataset(name, configuration, streaming=True)
        stream = stream["train" if "train" in stream else min(stream)]
        for table in stream.with_format("arrow").iter(batch_size=256):
            yield from _strings(name, table.column(_text_column(name, table.column_names, text_column)))
    except UserError:
        raise
    except failures as error:
        raise UserError(f"could not read {name!r} from the hub: {_first_line(error)}") from error
    finally:
        del stream
        gc.collect()  # ends Arrow's reading threads; left to the interpreter's exit they can block it


def _strings(place: str, column: Any) -> Iterator[str]:
    """The strings of an Arrow column; a null counts as empty."""
    import pyarrow

    if not pyarrow.types.is_string(column.type) and not pyarrow.types.is_large_string(column.type):
        raise UserError(f"the text column of {place} holds {column.type}, expected strings")
    yield from (text or "" for text in column.to_pylist())


def _first_line(error: BaseException) -> str:
    return (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]


def _text_column(data_name: str, columns: list[str], wanted: str | None) -> str:
    for name in [wanted] if wanted else TEXT_COLUMNS:
        if name in columns:
            return name
    expected = repr(wanted) if wanted else " or ".join(map(repr, TEXT_COLUMNS))
    found = ", ".join(columns) or "none"
    raise UserError(f"{data_name!r} has no column {expected}, only {found}; name one with --text_column")


def _hub_license(name: str) -> str:
    """What the dataset's card states."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of the library that this version talks through

    with contextlib.suppress(OSError, ValueError, HTTPError):
        card = HfApi().dataset_info(name, timeout=10).card_data
        if card is not None and card.get("license"):
            return str(card["license"])
    return "not stated"
