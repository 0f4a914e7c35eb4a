"""Documents of local files: text, rows of JSON, CSV or Parquet, each as it is or compressed."""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from supertf.errors import UserError

TEXT_COLUMNS = ("text", "content")
KINDS = {
    ".txt": "text",
    ".md": "text",
    ".json": "json",
    ".jsonl": "json",
    ".jsonlines": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
ABOUT_DATA = ("dataset_info.json", "dataset_infos.json", ".bin.json")  # of `datasets` and of token files
DOCUMENT_CHARS = 4096  # a text file is cut into documents of about this size, at blank lines


def suffixes(path: Path) -> tuple[str, str]:
    """The suffix that says what is in a file, and that of its compression ("" where there is none)."""
    last = path.suffix.lower()
    return (Path(path.stem).suffix.lower(), last) if last in OPENERS else (last, "")


def local_files(path: Path) -> tuple[list[Path], str]:
    """The files of text that `path` names, in order, and a note on what a reader would not expect.

    A folder is searched with its subfolders. What it holds beside files of text is left out, and so are
    empty and hidden files, the card of a dataset, and a compressed copy of a file that is there; the note
    counts them. A single file whose suffix says nothing is read as plain text, which the note says.
    """
    note = ""
    try:
        if path.is_dir():
            files, note = _folder_files(path)
        elif path.is_file():
            files = [path] if path.stat().st_size else []
            if suffixes(path)[0] not in KINDS:
                note = "read as plain text"
        else:
            raise UserError(f"{path} is neither a file nor a folder, and text is read more than once")
    except OSError as error:
        raise UserError(f"could not read {error.filename or path}: {error.strerror or error}") from error
    if not files:
        raise UserError(f"{path} is empty{f' ({note})' if note else ''}; give a file or folder with text")
    return files, note


def file_documents(path: Path, text_column: str | None) -> Iterator[str]:
    """The documents of one file: its rows, or, of a file of text, parts of about `DOCUMENT_CHARS`."""
    suffix, _ = suffixes(path)
    readers = {"json": _json_documents, "csv": _csv_documents, "parquet": _parquet_documents}
    if suffix not in KINDS:
        _check_plain(path)
    if reader := readers.get(KINDS.get(suffix, "text")):
        yield from reader(path, text_column)
    else:
        yield from _text_documents(path)


def strings(place: str, column: Any) -> Iterator[str]:
    """The strings of an Arrow column; a null counts as empty."""
    from pyarrow import types

    held = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_string(held) or types.is_large_string(held) or types.is_string_view(held)):
        raise UserError(f"the text column of {place} holds {column.type}, expected strings")
    yield from (text or "" for text in column.to_pylist())


def text_of(place: str, value: Any) -> str:
    """The text of a row, as in `strings`."""
    if value is None or isinstance(value, str):
        return value or ""
    raise UserError(f"the text column of {place} holds {type(value).__name__}, expected strings")


def find_column(place: str, columns: list[str], wanted: str | None) -> str:
    """The name of the column with the text; `UserError` when none or more than one has it."""
    for name in [wanted] if wanted else TEXT_COLUMNS:
        if columns.count(name) == 1:
            return name
        if name in columns:
            raise UserError(f"{place!r} has {columns.count(name)} columns called {name!r}; expected one")
    expected = repr(wanted) if wanted else " or ".join(map(repr, TEXT_COLUMNS))
    found = ", ".join(columns)
    found = f"{found[:200]}..." if len(found) > 200 else found or "none"
    raise UserError(f"{place!r} has no column {expected}, only {found}; name one with --text_column")


def deepest_cause(error: BaseException) -> str:
    """What went wrong, from the deepest cause that an error names."""
    return (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]


def _folder_files(folder: Path) -> tuple[list[Path], str]:
    """The files to read in `folder`, sorted by path, and what was left out; `OSError` as it comes."""

    def stop(error: OSError) -> None:
        raise error

    left_out: Counter[str] = Counter()
    found = []
    for where, folders, names in os.walk(folder, onerror=stop):
        paths = [Path(where, name) for name in names]
        shown = [path for path in paths if not path.name.startswith(".")]
        inner = [name for name in folders if not name.startswith(".")]
        left_out["hidden"] += len(paths) - len(shown) + len(folders) - len(inner)
        folders[:] = [name for name in inner if not Path(where, name).is_symlink()]
        left_out["linked folders"] += len(inner) - len(folders)
        found += shown
    files = set()
    for path in found:
        suffix, compression = suffixes(path)
        if suffix not in KINDS or not path.is_file():
            left_out[f"{suffix}{compression}" or "without a suffix"] += 1
        elif path.name.lower().endswith(ABOUT_DATA):
            left_out[path.name] += 1
        else:
            files.add(path)
    if not files:
        raise UserError(f"no {', '.join(KINDS)} file in the folder {folder}{_in_words(left_out, ' (', ')')}")
    kept = []
    has_rows = any(KINDS[suffixes(path)[0]] != "text" for path in files)
    for path in files:
        if path.stat().st_size == 0:
            left_out["empty"] += 1
        elif _is_card(path, has_rows):
            left_out[path.name] += 1
        elif suffixes(path)[1] and path.with_suffix("") in files:
            left_out[f"{path.suffix} beside the same file uncompressed"] += 1
        else:
            kept.append(path)
    return sorted(kept), _in_words(left_out)


def _in_words(left_out: Counter[str], before: str = "", after: str = "") -> str:
    counts = ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()) if count)
    return f"{before}left out {counts}{after}" if counts else ""


def _is_card(path: Path, has_rows: bool) -> bool:
    """Whether a README is about the data, not part of it: beside rows, or under a card's metadata."""
    if path.stem.lower() != "readme":
        return False
    with open(path, "rb") as file:
        return has_rows or file.read(4).rstrip() == b"---"


def _check_plain(path: Path) -> None:
    """Refuse rows of JSON under a suffix that does not say so: as text, names and braces would be learnt."""
    first = next((line for line in _lines(path, 1 << 26) if line.strip()), "")
    try:
        is_row = isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return
    if is_row:
        raise UserError(
            f"the first line of {path} is a JSON object: rename the file to .jsonl if its rows are meant, "
            "or to .txt if it is text"
        )


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
    """The text of each object of a file with one JSON object a line, or with one JSON list of objects, or
    with a single object on many lines.

    Read here because the reader behind `datasets` aborts the process on some malformed files.
    """
    for number, row in _json_rows(path):
        place = f"row {number} of {path}"
        if not isinstance(row, dict):
            raise UserError(f"{place} is not a JSON object; expected one object a line, or a list of objects")
        text = row[find_column(place, list(row), text_column)]
        if not isinstance(text, str | None):
            raise UserError(f"the text column in {place} holds {type(text).__name__}, expected a string")
        yield text or ""


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """The rows, numbered by line or by place in the list."""
    lines = ((number, line) for number, line in enumerate(_lines(path), start=1) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    rows = itertools.chain([first], lines)
    if first[1].lstrip().startswith("[") or first[1].strip() == "{":
        whole = _parse("".join(line for _, line in rows), str(path))
        yield from enumerate(whole if isinstance(whole, list) else [whole], start=1)
    else:
        for number, line in rows:
            yield number, _parse(line, f"row {number} of {path}")


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({error}); expected one object a line") from error


def _csv_documents(path: Path, text_column: str | None) -> Iterator[str]:
    """One column of a table whose first row names the columns, separated by commas, or by tabs in a .tsv."""
    csv.field_size_limit(2**31 - 1)  # of the process; the default, 131,072 characters, is less than a book
    delimiter = "\t" if suffixes(path)[0] == ".tsv" else ","
    reader = csv.reader(_lines(path, newline=""), delimiter=delimiter, strict=True)
    rows = (row for row in reader if row)  # no blank lines
    try:
        names = next(rows, None)
        if names is None:
            return
        column = names.index(find_column(str(path), names, text_column))
        for row in rows:
            if len(row) != len(names):
                raise UserError(
                    f"line {reader.line_num} of {path} ends a row of {len(row)} fields; the first row names "
                    f"{len(names)} columns"
                )
            yield row[column]
    except csv.Error as error:
        raise UserError(
            f"could not read {path} at line {reader.line_num}: {error}; a field that begins with a quote "
            "must end with one, and quotes inside it are doubled"
        ) from error


def _parquet_documents(path: Path, text_column: str | None) -> Iterator[str]:
    """The rows of a Parquet file, a row group at a time (`datasets` would buffer the whole file)."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    if suffixes(path)[1]:
        raise UserError(f"{path} is a compressed Parquet file, which cannot be read in parts: decompress it")
    try:
        with ParquetFile(path, pre_buffer=False) as file:
            column = find_column(str(path), file.schema_arrow.names, text_column)
            for batch in file.iter_batches(256, columns=[column]):
                yield from strings(str(path), batch.column(column))
    except UserError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise UserError(f"could not read {path}: {deepest_cause(error)}") from error


def _open_zstandard(path: Path) -> IO[bytes]:
    import pyarrow  # Python's own library reads it from 3.14 on

    return pyarrow.input_stream(path, compression="zstd")


OPENERS: dict[str, Callable[[Path], IO[bytes] | gzip.GzipFile]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstandard,
}


def _lines(path: Path, limit: int = -1, newline: str | None = None) -> Iterator[str]:
    """The lines of a UTF-8 text file, decompressed, with their ends; those longer than `limit` in pieces."""
    compression = suffixes(path)[1]
    try:
        with (
            OPENERS[compression](path) if compression else open(path, "rb") as data,
            io.TextIOWrapper(data, encoding="utf-8-sig", newline=newline) as file,
        ):
            while line := file.readline(limit):
                if "\0" in line:
                    raise UserError(f"{path} is a binary file (it has zero bytes); expected UTF-8 text")
                yield line
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.object[error.start]:#04x}: {error.reason}); convert it "
            f"first, for example with iconv, or, if it is compressed, end its name in {', '.join(OPENERS)}"
        ) from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"could not read {path}: {reason}") from error
