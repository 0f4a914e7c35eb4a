"""Documents: every kind of source, in a fixed order, whole; bad files give one clear error."""

import json
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data import python_docs
from supertf.data.corpus import describe, iter_documents
from supertf.data.text_files import DOCUMENT_CHARS
from supertf.errors import UserError

ROWS = ["first row", "second\nrow with é", "third"]


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_kind(path):
    """Write ROWS to `path` in the format its suffix names."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": ROWS, "id": [1, 2, 3]}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps([{"text": row, "id": 1} for row in ROWS], indent=1))
    else:
        path.write_text("\n".join(json.dumps({"id": i, "text": row}) for i, row in enumerate(ROWS)))
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_rows_of_a_file_are_its_documents(tmp_path, name):
    path = write_kind(tmp_path / name)
    assert list(iter_documents(path)) == ROWS
    assert list(iter_documents(path, sample_size=2)) == ROWS[:2]


def test_a_folder_is_read_in_order_of_path(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.txt").write_text("")  # nothing in it, no document
    (tmp_path / "notes.bin").write_bytes(b"\0")
    (tmp_path / ".hidden.txt").write_text("hidden")
    write_kind(tmp_path / "b" / "1.jsonl")
    assert list(iter_documents(str(tmp_path))) == ["one", *ROWS, "two"]


@settings(max_examples=50, deadline=None)
@given(
    lines=st.lists(
        st.sampled_from(["", "a line of text, é漢🙂", "long " * 300, "x" * 9000, " "]), max_size=60
    ),
    end=st.sampled_from(["", "\n"]),
)
def test_a_text_file_is_cut_without_losing_a_character(tmp_path_factory, lines, end):
    text = "\n".join(lines) + end
    path = tmp_path_factory.mktemp("text") / "file.txt"
    path.write_text(text, encoding="utf-8", newline="")
    if not text:
        with pytest.raises(UserError, match="is empty"):
            list(iter_documents(str(path)))
        return
    documents = list(iter_documents(str(path)))
    assert "".join(documents) == text
    assert all(0 < len(document) < 5 * DOCUMENT_CHARS for document in documents)
    assert all(len(document) >= DOCUMENT_CHARS for document in documents[:-1])


def test_text_is_cut_at_blank_lines(tmp_path):
    paragraph = "A sentence of the paragraph.\n" * 20 + "\n"
    path = tmp_path / "book.txt"
    path.write_text(paragraph * 40)
    documents = list(iter_documents(str(path)))
    assert len(documents) > 4
    assert all(document.endswith(".\n\n") for document in documents)


def test_byte_order_mark_and_windows_line_ends_are_normalised(tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes("\ufeffone\r\ntwo".encode())
    assert list(iter_documents(str(path))) == ["one\ntwo"]


def test_the_text_column_is_found_or_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"content": "by content", "story": "by name", "n": 1}\n')
    assert list(iter_documents(str(path))) == ["by content"]
    assert list(iter_documents(str(path), text_column="story")) == ["by name"]
    with pytest.raises(
        UserError, match=r"no column 'body', only content, story, n; name one with --text_column"
    ):
        list(iter_documents(str(path), text_column="body"))
    with pytest.raises(UserError, match=r"row 1 of .* holds int, expected a string"):
        list(iter_documents(str(path), text_column="n"))
    parquet = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), parquet)
    with pytest.raises(UserError, match="holds int64, expected strings"):
        list(iter_documents(str(parquet)))
    path.write_text('{"story": "by name"}\n')
    with pytest.raises(UserError, match=r"no column 'text' or 'content', only story"):
        list(iter_documents(str(path)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("empty.jsonl", b"", "is empty"),
        ("image.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8"),
        ("zeros.txt", b"text\0\0\0", "binary file"),
        ("latin.txt", "café au lait".encode("latin-1"), r"not UTF-8 text \(byte 0xe9"),
        ("wide.txt", "text".encode("utf-16"), "not UTF-8"),
        ("broken.jsonl", b'{"text": "one"}\n{"text": \n', "row 2 of .* is not JSON"),
        ("listed.json", b'[{"text": "one"}, 2]', "row 2 of .* is not a JSON object"),
        ("null.jsonl", b"null", "not a JSON object"),
        ("uneven.jsonl", b'{"text": "one"}\n{"other": ""}', "row 2 of .* has no column 'text'"),
        ("latin.jsonl", '{"text": "café"}'.encode("latin-1"), "not UTF-8"),
        ("broken.parquet", b"PAR1 not really PAR1", "could not read"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        list(iter_documents(str(path)))
    assert name in str(caught.value)


def test_a_truncated_parquet_file_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    write_kind(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"rows\.parquet"):
        list(iter_documents(str(path)))


def test_a_folder_without_text_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no \.txt, \.md, \.json, .*, \.parquet file"):
        list(iter_documents(str(tmp_path)))


@pytest.mark.parametrize(
    "name",
    ["missing.txt", "no/such/file.jsonl", "/no/such/folder", "", "what is this?", "a/b.ndjson", "b.jsonl.GZ"],
)
def test_a_missing_file_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match="no file or folder"):
        list(iter_documents(name))


def test_a_dataset_on_the_hub_is_streamed_by_datasets(monkeypatch, tmp_path):
    """The hub is played by a folder in its layout; that `datasets` fetches from the real one is not shown."""
    import datasets

    (tmp_path / "owner" / "name" / "data").mkdir(parents=True)
    write_kind(tmp_path / "owner" / "name" / "data" / "train-00000-of-00001.parquet")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: None)
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda n, c, **o: load_dataset(str(tmp_path / n), c, **o))
    assert list(iter_documents("owner/name")) == ROWS
    assert list(iter_documents("owner/name", sample_size=1)) == ROWS[:1]
    with pytest.raises(UserError, match="no column 'body'"):
        list(iter_documents("owner/name", text_column="body"))
    with pytest.raises(UserError, match=r"could not read 'owner/name' from the hub: .*configuration"):
        list(iter_documents("owner/name:configuration"))


def test_a_hub_id_without_network_is_one_clear_line(offline):
    for use in (iter_documents, describe):
        with pytest.raises(UserError, match="'eliplutchok/fineweb-small-sample' is no local file") as caught:
            list(use("eliplutchok/fineweb-small-sample"))
        assert "\n" not in str(caught.value)


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
    try:
        documents = list(iter_documents(str(path)))
    except UserError as error:
        assert str(error)
        return
    assert all(isinstance(document, str) for document in documents)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_parquet_file_gives_documents_or_a_user_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "rows.parquet"
    write_kind(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        documents = list(iter_documents(str(path)))
    except UserError:
        return
    assert all(isinstance(document, str) for document in documents)


# python-docs


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def stdlib(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPERTF_CACHE", str(cache))
        return list(iter_documents("python-docs:stdlib", progress=False))


def test_the_standard_library_is_a_megabyte_of_distinct_documents(stdlib):
    assert sum(map(len, stdlib)) > 1_000_000
    assert len(set(stdlib)) == len(stdlib)
    text = "\n".join(stdlib)
    assert "json\n\nJSON (JavaScript Object Notation)" in text  # a docstring under its module's name
    assert 'The "for" statement' in text  # a help topic
    assert "test.support" not in [document.split("\n")[0] for document in stdlib]


def test_the_second_reading_comes_from_the_cache_and_is_the_same(cache, stdlib, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(cache))
    monkeypatch.setattr(python_docs, "_extract", lambda *args: pytest.fail("read the sources again"))
    assert list(iter_documents("python-docs:stdlib")) == stdlib
    monkeypatch.setattr(python_docs, "PACKAGES", ())
    assert list(iter_documents("python-docs")) == stdlib


def test_installed_packages_are_read_without_importing_them(tmp_path, monkeypatch):
    package = tmp_path / "site" / "numpy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        '"""Arrays."""\nraise SystemExit("imported")\ndef f():\n    """Adds."""\n'
    )
    (package / "old.py").write_text('"""Not Python 3"""\nprint "text"\n')
    (package / "copy.py").write_text('def g():\n    """Adds."""\n')
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "numpy.jsonl"
    python_docs._extract("numpy", path, progress=False)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        "numpy\n\nArrays.\n\n\nnumpy.f\n\nAdds."  # the copy of a docstring is left out
    ]
    assert "numpy" not in sys.modules


def test_source_and_licence_name_what_was_read():
    stated = describe("python-docs")
    for name, version in python_docs.parts().items():
        assert f"{name} {version}" in stated["source"]
        assert f"{name}: " in stated["license"]
    assert "numpy" not in describe("python-docs:stdlib")["source"]


def test_a_damaged_cache_says_which_file_to_delete(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    monkeypatch.setattr(
        python_docs, "_extract", lambda name, path, progress: path.parent.mkdir() or path.write_text("{")
    )
    with pytest.raises(UserError, match="delete that file"):
        list(iter_documents("python-docs:stdlib"))
