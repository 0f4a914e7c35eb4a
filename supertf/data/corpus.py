"""Where text comes from: documents of a dataset on the hub, of local files, or Python's own documentation."""

import contextlib
import gc
import itertools
import os
import re
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from tqdm.auto import tqdm

from supertf.data import python_docs
from supertf.data.roles import assign_roles
from supertf.data.staging import Place
from supertf.data.text_files import (
    KINDS,
    OPENERS,
    deepest_cause,
    file_documents,
    find_column,
    local_files,
    suffixes,
    text_of,
)
from supertf.data.texts import TEXTS, chosen, shipped, split_name
from supertf.errors import Note, UserError

PYTHON_DOCS = ("python-docs", "python-docs:stdlib")  # everything installed; the standard library alone
ON_HUB = {  # name, configuration, split
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", "test"),
    "c4": ("allenai/c4", "en", "validation"),
}
ATTEMPTS = 6  # to read on, without a document in between, before a hub is given up
MOST_ASSIGNED = 4096  # documents that roles are given to
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


def iter_documents(
    data_name: str,
    sample_size: int | None = None,
    text_column: str | None = None,
    progress: bool = True,
    *,
    skip_damaged: bool = False,
    place: Place | None = None,
) -> Iterator[str]:
    """The documents of a corpus, always in the same order.

    Args:
        data_name: one of
            - "library-docs", "readmes" or "prose", the same on every machine (see `texts`);
            - "wikitext" (WikiText-2 raw, test) or "c4" (English, validation), from the hub;
            - "python-docs" (the documentation of Python and of the scientific packages installed) or
              "python-docs:stdlib" (Python alone);
            - a local file of rows, each a document: JSON lines or a JSON list (`.jsonl`, `.ndjson`,
              `.jsonlines`, `.json`), a table with names in its first row (`.csv`, `.tsv`), or `.parquet`;
            - a text file, `.txt`, `.md` or another, which is cut into documents of about 4,096 characters at
              blank lines; it, and rows but for Parquet, may be compressed: `.gz`, `.bz2`, `.xz`, `.zst`;
            - a folder of files with these suffixes, searched with its subfolders in order of path;
            - a dataset on the Hugging Face hub, "owner/name" or "owner/name:configuration", streamed;
            - any of these with a role behind it, "prose:calibrate" or "notes.txt:evaluate:3": the documents
              of that role only (see `roles`; of what has no end, of its first 4,096 documents).
        sample_size: only the first so many; default all.
        text_column: the column with the text; default "text", else "content".
        progress: show a bar while "python-docs" is collected for the first time, and say on standard error
            what of a folder is left out.
        skip_damaged: of a folder, go on with the next file where one cannot be read to its end; a `Note`
            names it. Otherwise it is an error.
        place: where to begin; it is moved on before each text is yielded. A dataset on the hub goes on in the
            file of its that it was in, other corpora are read up to it.

    Yields:
        One text at a time.

    Raises:
        UserError: nothing there, empty, binary, not UTF-8, damaged, without a text column or with two, or
            a hub that cannot be reached.
    """
    place = place or Place()
    first = 0 if place.stream else place.documents  # a stream begins at its place by itself
    left = None if sample_size is None else first + max(sample_size - place.documents, 0)
    documents = _chosen_documents(str(data_name), text_column, progress, skip_damaged, place)
    with contextlib.closing(documents):
        for text in itertools.islice(documents, first, left):
            place.documents += 1
            yield text


def _chosen_documents(
    data_name: str, text_column: str | None, progress: bool, skip_damaged: bool, place: Place
) -> Generator[str, None, None]:
    """All documents of a corpus, or of a role."""
    base, role, part = split_name(data_name)
    if base in TEXTS:
        yield from chosen(shipped(base), role, part)
        return
    if role is None:
        yield from _documents(base, text_column, progress, skip_damaged, place)
        return
    with contextlib.closing(_documents(base, text_column, progress, skip_damaged, Place())) as documents:
        own = list(itertools.islice(documents, MOST_ASSIGNED))
    from supertf.data.tokenizer import load_tokenizer  # heavy

    assigned = assign_roles(own, load_tokenizer("smollm2-135m").encode_ordinary)
    yield from chosen(assigned, role, part)


class Origin(TypedDict):
    """Where a text comes from and under which licence, as the manifest of a token file says it."""

    source: str
    license: str


def origin(data_name: str) -> Origin:
    """The `Origin` of a corpus, by the name that `iter_documents` takes."""
    data_name, _, _ = split_name(data_name)
    if data_name in TEXTS:
        return {"source": TEXTS[data_name].source, "license": TEXTS[data_name].license}
    if data_name in PYTHON_DOCS:
        stdlib_only = data_name != PYTHON_DOCS[0]
        names = ", ".join(f"{name} {version}" for name, version in python_docs.parts(stdlib_only).items())
        return {"source": f"documentation of {names}", "license": python_docs.licenses(stdlib_only)}
    if os.path.exists(data_name):
        _, note = local_files(Path(data_name))
        source = f"local {os.path.basename(os.path.abspath(data_name))}"
        return {"source": f"{source} ({note})" if note else source, "license": "not stated"}
    name, *_ = _hub_dataset(data_name)
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


def _documents(
    data_name: str, text_column: str | None, progress: bool, skip_damaged: bool, place: Place
) -> Generator[str, None, None]:
    if data_name in PYTHON_DOCS:
        yield from python_docs.documents(data_name != PYTHON_DOCS[0], progress)
    elif os.path.exists(data_name):
        files, note = local_files(Path(data_name))
        if note and progress:
            tqdm.write(f"{data_name}: {note}", file=sys.stderr)  # a bar may be on this line
        for file in files:
            try:
                yield from file_documents(file, text_column)
            except UserError as error:
                if not skip_damaged or len(files) == 1:
                    raise
                warnings.warn(Note(f"{error}; the rest of that file is left out"), stacklevel=2)
    else:
        name, configuration, split = _hub_dataset(data_name)
        if data_name == "wikitext":  # an article is many rows
            yield from articles(_hub_documents(name, configuration, split, text_column, Place()))
        else:
            yield from _hub_documents(name, configuration, split, text_column, place)


def _hub_dataset(data_name: str) -> tuple[str, str | None, str | None]:
    """Name, configuration and split of a dataset on the hub, once the hub is known to answer."""
    name, configuration, split = ON_HUB.get(data_name, (*data_name.partition(":")[::2], None))
    kind, compression = suffixes(Path(name))
    if not HUB_ID.fullmatch(data_name) or kind in KINDS or compression in OPENERS:
        raise UserError(f"no file or folder {data_name!r}, nor is it a hub id such as owner/name")
    if (trouble := hub_trouble()) is not None:
        raise UserError(
            f"{data_name!r} is no local file or folder, and the Hugging Face hub, where it might be, "
            f"cannot be reached ({trouble}); connect, or use a local file or python-docs"
        )
    return name, configuration or None, split


def articles(lines: Iterable[str]) -> Iterator[str]:
    """WikiText's articles, of its lines: each begins with a heading between single equals signs."""
    found: list[str] = []
    for line in lines:
        if re.fullmatch(r" = [^=]+ = \n", line) and found:
            yield "".join(found)
            found = []
        if found or line.strip():
            found.append(line)
    yield "".join(found)


def _hub_documents(
    name: str, configuration: str | None, split: str | None, text_column: str | None, place: Place
) -> Iterator[str]:
    """The rows of a dataset on the hub, see `_hub_rows`; where the connection is lost they are asked for
    again from where it was, after two seconds, four, and so on."""
    import datasets
    import pyarrow
    from huggingface_hub.errors import HTTPError

    refused = (HTTPError, datasets.exceptions.DatasetsError, pyarrow.ArrowException)
    place.stream = place.stream or {"revision": _hub_revision(name), "state": None, "read": 0}
    read, lost = place.documents, 0
    while True:
        try:
            for text in _hub_rows(name, configuration, split, text_column, place.stream):
                read, lost = read + 1, 0
                yield text
            return
        except UserError:
            raise
        except (ConnectionError, TimeoutError) as error:
            lost += 1
            if lost == ATTEMPTS:
                raise UserError(
                    f"the hub was lost {lost} times in a row after {read:,} documents of {name!r}: "
                    f"{deepest_cause(error)}"
                ) from error
            tqdm.write(f"{name}: {deepest_cause(error)}; trying again in {2**lost} s", file=sys.stderr)
            time.sleep(2**lost)
        except (OSError, ValueError, TypeError, *refused) as error:
            raise UserError(f"could not read {name!r} from the hub: {deepest_cause(error)}") from error


def _hub_rows(
    name: str, configuration: str | None, split: str | None, text_column: str | None, at: dict[str, Any]
) -> Iterator[str]:
    """The rows of a dataset from a place on, streamed by `datasets`: of a split, or of "train", else the
    first by name; `at`, as `Place.stream`, moves on with them."""
    import datasets

    revision = {} if at["revision"] is None else {"revision": at["revision"]}
    stream = None
    try:
        stream = datasets.load_dataset(name, configuration, streaming=True, **revision)
        stream = stream[split or ("train" if "train" in stream else min(stream))]
        if at["state"] is not None:
            stream.load_state_dict(at["state"])
        rows = iter(stream)  # one by one: of batches, older versions of `datasets` keep a wrong state
        while batch := list(itertools.islice(rows, 256)):
            column = find_column(name, list(batch[0]), text_column)
            for row in batch[at["read"] :]:
                at["read"] += 1
                yield text_of(name, row[column])
            at |= {"state": stream.state_dict(), "read": 0}
    finally:
        del stream
        gc.collect()  # ends Arrow's reading threads; left to the interpreter's exit they can block it


def _hub_revision(name: str) -> str | None:
    """The commit of a dataset, so that a reader who goes on later finds the same rows."""
    info = _hub_info(name)
    return None if info is None else info.sha


def _hub_license(name: str) -> str:
    """What the dataset's card states."""
    info = _hub_info(name)
    card = None if info is None else info.card_data
    return str(card["license"]) if card is not None and card.get("license") else "not stated"


def _hub_info(name: str) -> Any:
    """What the hub says of a dataset; None where it does not answer."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # of the library that this version talks through

    with contextlib.suppress(OSError, ValueError, HTTPError):
        return HfApi().dataset_info(name, timeout=10)
    return None
