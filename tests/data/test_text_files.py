"""Local files: every suffix is read as what it is, whole, and what a folder leaves out is said."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data.corpus import iter_documents, origin
from supertf.data.text_files import DOCUMENT_CHARS
from supertf.errors import UserError

ROWS = ["first row", 'second, "quoted"\nrow with é', "third\twith a tab"]
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=6)


def zstandard(data: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


def table(rows: list[str], delimiter: str = ",", **options) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, **options)
    writer.writerows([["id", "text"], *enumerate(rows)])
    return file.getvalue()


def json_lines(rows: list[str]) -> str:
    return "".join(json.dumps({"id": i, "text": row}) + "\n" for i, row in enumerate(rows))


def parquet(rows: list[str]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"id": range(len(rows)), "text": rows}), sink)
    return sink.getvalue().to_pybytes()


CONTENT = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".jsonlines": json_lines,
    ".JSONL": json_lines,
    ".json": lambda rows: json.dumps([{"text": row} for row in rows], indent=1),
    ".csv": table,
    ".tsv": lambda rows: table(rows, "\t"),
}


def write(path, content: str | bytes) -> str:
    """Write a file, compressed as its name says; returns its name."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return str(path)


def read(path, **options) -> list[str]:
    return list(iter_documents(str(path), **options))


# --- text -------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(["", "a line of text, é漢🙂", "long " * 300, "x" * 9000, " "]), max_size=60
    ),
    end=st.sampled_from(["", "\n"]),
)
def test_a_text_file_is_cut_without_losing_a_character(tmp_path_factory, lines, end):
    text = "\n".join(lines) + end or "\n"
    path = tmp_path_factory.mktemp("text") / "file.txt"
    path.write_text(text, encoding="utf-8", newline="")
    documents = read(path)
    assert "".join(documents) == text
    assert all(0 < len(document) < 5 * DOCUMENT_CHARS for document in documents)
    assert all(len(document) >= DOCUMENT_CHARS for document in documents[:-1])


def test_text_is_cut_at_blank_lines(tmp_path):
    paragraph = "A sentence of the paragraph.\n" * 20 + "\n"
    documents = read(write(tmp_path / "book.txt", paragraph * 40))
    assert len(documents) > 4
    assert all(document.endswith(".\n\n") for document in documents)


def test_byte_order_mark_and_windows_line_ends_are_normalised(tmp_path):
    assert read(write(tmp_path / "windows.txt", "\ufeffone\r\ntwo")) == ["one\ntwo"]


def test_a_single_file_with_an_unknown_suffix_is_text_and_said_to_be(tmp_path, capsys):
    path = write(tmp_path / "server.log", "GET /index\n[1]\n")
    assert read(path) == ["GET /index\n[1]\n"]
    assert capsys.readouterr().err == f"{path}: read as plain text\n"


# --- rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", *COMPRESS])
@pytest.mark.parametrize("suffix", CONTENT)
def test_rows_are_the_same_under_every_suffix(tmp_path, suffix, compression):
    path = write(tmp_path / f"rows{suffix}{compression}", CONTENT[suffix](ROWS))
    assert read(path) == ROWS
    assert read(path, sample_size=2) == ROWS[:2]


def test_columns_of_strings_in_any_arrow_encoding(tmp_path):
    path = tmp_path / "rows.parquet"
    rows = [*ROWS, None, *ROWS]
    plain = pyarrow.array(rows)
    kinds = (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())
    for column in (*map(plain.cast, kinds), plain.dictionary_encode()):
        pyarrow.parquet.write_table(pyarrow.table({"text": column}), path)
        assert read(path) == [*ROWS, "", *ROWS]


def test_the_text_column_is_found_or_named(tmp_path):
    path = write(tmp_path / "rows.jsonl", '{"content": "by content", "story": "by name"}\n')
    assert read(path) == ["by content"]
    assert read(path, text_column="story") == ["by name"]
    with pytest.raises(UserError, match=r"no column 'body', only content, story; name one with --text_col"):
        read(path, text_column="body")


@settings(max_examples=50, deadline=None)
@given(
    rows=TEXTS, tabs=st.booleans(), ends=st.sampled_from(["\n", "\r\n"]), mark=st.sampled_from(["", "\ufeff"])
)
def test_a_table_is_read_as_arrow_reads_it(tmp_path_factory, rows, tabs, ends, mark):
    path = tmp_path_factory.mktemp("table") / ("rows.tsv" if tabs else "rows.csv")
    path.write_bytes(
        (mark + table(rows, "\t" if tabs else ",", lineterminator=ends, quoting=csv.QUOTE_ALL)).encode()
    )
    theirs = pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t" if tabs else ",", newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types={"text": pyarrow.string()}),
    )
    assert read(path) == rows == theirs["text"].to_pylist()


def test_a_field_may_be_as_long_as_a_book(tmp_path):
    book = "It was a line, of a book.\n" * 20_000
    assert read(write(tmp_path / "rows.csv", table([book, "short"]))) == [book, "short"]


@settings(max_examples=50, deadline=None)
@given(
    rows=TEXTS,
    shape=st.sampled_from(["lines", "list", "single"]),
    indent=st.sampled_from([None, 2]),
    before=st.sampled_from(["", "\n", "\ufeff", "\ufeff \n\n"]),
)
def test_json_is_read_as_the_standard_library_reads_it(tmp_path_factory, rows, shape, indent, before):
    path = tmp_path_factory.mktemp("json") / "rows.json"
    if shape == "lines":
        path.write_text(before + "\n\n".join(json.dumps({"text": row}) for row in rows), encoding="utf-8")
    else:
        value = {"text": "".join(rows)} if shape == "single" else [{"text": row} for row in rows]
        path.write_text(before + json.dumps(value, indent=indent), encoding="utf-8")
        loaded = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [row["text"] for row in (loaded if isinstance(loaded, list) else [loaded])]
    if path.stat().st_size:
        assert read(path) == rows


def test_a_file_without_text_has_no_documents(tmp_path):
    for name in ("mark.jsonl", "mark.json", "mark.csv", "mark.txt", "mark.tsv"):
        assert read(write(tmp_path / name, "\ufeff")) == []
    assert read(write(tmp_path / "empty.jsonl.gz", "")) == []
    assert read(write(tmp_path / "names.csv", "id,text\n\n")) == []
    assert read(tmp_path, progress=False) == []


# --- compression and damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_compressed_text_in_several_parts_is_read_whole(tmp_path, compression):
    """As parallel compressors write it; a name without a second suffix is plain text."""
    path = tmp_path / f"notes{compression}"
    path.write_bytes(COMPRESS[compression]("one é\n".encode()) + COMPRESS[compression](b"two\n"))
    assert read(path) == ["one é\ntwo\n"]


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_truncated_or_foreign_compressed_file_is_named(tmp_path, compression):
    path = tmp_path / f"rows.jsonl{compression}"
    whole = COMPRESS[compression](json_lines(ROWS * 100).encode())
    for content in (whole[:-9], b"no compressed file"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"could not read .*rows\.jsonl"):
            read(path)


@settings(max_examples=80, deadline=None)
@given(
    suffix=st.sampled_from([".txt", ".jsonl", ".json", ".csv", ".tsv", ".log", ".jsonl.gz", ".txt.zst"]),
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["text", "content", "a"]), inner),
            max_leaves=5,
        ),
        max_size=4,
    ).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
)
def test_any_file_gives_documents_or_a_user_error(tmp_path_factory, suffix, content):
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}"
    path.write_bytes(content)
    assert_documents_or_a_user_error(path)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".parquet", *(f".jsonl{end}" for end in COMPRESS)]))
def test_a_file_with_a_flipped_bit_gives_documents_or_a_user_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("fuzz") / f"rows{suffix}"
    write(path, parquet(ROWS) if suffix == ".parquet" else json_lines(ROWS))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert_documents_or_a_user_error(path)


def assert_documents_or_a_user_error(path):
    try:
        documents = read(path)
    except UserError as error:
        assert str(path) in str(error)
        return
    assert all(isinstance(document, str) for document in documents)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    write(tmp_path / "a.txt", "one")
    with pytest.raises(UserError, match=r"could not read .*closed: Permission denied"):
        read(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(UserError, match=r"could not read .*a\.txt: Permission denied"):
        read(tmp_path)


# --- folders ----------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_order_of_path_and_what_it_leaves_out_is_counted(tmp_path, capsys):
    folder = tmp_path / "corpus"
    (folder / ".git").mkdir(parents=True)
    write(folder / ".git" / "config.txt", "hidden")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "again").symlink_to(folder)
    write(folder / "README.md", "# About the data\n")
    write(folder / "dataset_infos.json", '{"default": {}}')
    write(folder / "LICENSE", "MIT")
    for name in ("a.pdf", "b.pdf", "c.tar.gz"):
        write(folder / name, "no text")
    write(folder / "none.jsonl", "")
    write(folder / "a.jsonl.gz", json_lines(["a"]))
    write(folder / "b.jsonl", json_lines(["b"]))
    write(folder / "b.jsonl.zst", json_lines(["b"]))
    write(folder / "deep" / "er" / "c.csv", table(["c"]))
    write(folder / "z.txt", "z")
    assert read(folder) == ["a", "b", "c", "z"]
    note = (
        "left out 2 .pdf, 1 .tar.gz, 1 .zst beside the same file uncompressed, 1 README.md, "
        "1 dataset_infos.json, 1 empty, 1 hidden, 1 linked folders, 1 without a suffix"
    )
    assert capsys.readouterr().err == f"{folder}: {note}\n"
    assert origin(str(folder))["source"] == f"local corpus ({note})"
    read(folder, progress=False)
    assert capsys.readouterr().err == ""


def test_a_readme_is_text_unless_it_is_about_rows_or_a_dataset_card(tmp_path):
    write(tmp_path / "README.md", "# Notes\n")
    write(tmp_path / "a.txt", "one")
    assert read(tmp_path) == ["# Notes\n", "one"]
    write(tmp_path / "README.md", "---\nlicense: mit\n---\n# A dataset\n")
    assert read(tmp_path) == ["one"]
    write(tmp_path / "README.md", "# Notes\n")
    write(tmp_path / "b.jsonl", json_lines(["two"]))
    assert read(tmp_path) == ["one", "two"]
    assert read(tmp_path / "README.md") == ["# Notes\n"]  # who names it means it


def test_a_folder_without_text_says_what_it_holds(tmp_path):
    write(tmp_path / "a.pdf", "no text")
    with pytest.raises(UserError, match=r"no \.txt, \.md, .* file in the folder .* \(left out 1 \.pdf\)"):
        read(tmp_path)
    write(tmp_path / "README.md", "---\n---\n")
    with pytest.raises(UserError, match=r"is empty \(left out 1 \.pdf, 1 README\.md\)"):
        read(tmp_path)


def test_a_pipe_is_refused_since_text_is_read_more_than_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read(tmp_path / "pipe.jsonl")
