"""Documents of the hub and of Python's own documentation, in a fixed order; their source and licence."""

import dataclasses
import functools
import itertools
import json
import operator
import sys

import pyarrow
import pyarrow.parquet
import pytest

from supertf.data import python_docs
from supertf.data.corpus import iter_documents, origin
from supertf.data.roles import PARTS, ROLES
from supertf.data.staging import Place
from supertf.errors import Note, UserError

ROWS = ["first row", "second\nrow with é", "third"]


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
    file = tmp_path / "owner" / "name" / "data" / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": ROWS, "id": [1, 2, 3]}), file)
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


def test_wikitext_is_read_article_by_article_from_its_test_split(monkeypatch):
    import datasets

    lines = [
        " \n",
        " = A = \n",
        " It is a letter . \n",
        " = = Use = = \n",
        " Often . \n",
        " = B = \n",
        " Rare . \n",
    ]
    asked = []

    def load_dataset(name, configuration, streaming):
        asked.append((name, configuration))
        return datasets.IterableDatasetDict(
            {
                "train": datasets.Dataset.from_dict({"text": ["no"]}).to_iterable_dataset(),
                "test": datasets.Dataset.from_dict({"text": lines}).to_iterable_dataset(),
            }
        )

    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(iter_documents("wikitext")) == ["".join(lines[1:5]), "".join(lines[5:])]
    assert asked == [("Salesforce/wikitext", "wikitext-2-raw-v1")]


@pytest.fixture
def unreliable(monkeypatch):
    """Returns a function that plays a hub which is lost after so many rows, each time it is asked."""
    import datasets

    waited = []
    rows = [f"document {i}" for i in range(700)]

    def unreliable(*losses, error=ConnectionError):
        left = list(losses)

        def load_dataset(name, configuration, streaming):
            ends = left.pop(0) if left else len(rows)

            def some():
                for i, text in enumerate(rows):
                    if i == ends:
                        raise error("no answer")
                    yield {"text": text}

            return datasets.IterableDatasetDict({"train": datasets.IterableDataset.from_generator(some)})

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return rows, waited

    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: None)
    monkeypatch.setattr("supertf.data.corpus.time.sleep", waited.append)
    return unreliable


@pytest.mark.parametrize("error", [ConnectionError, TimeoutError])
def test_a_hub_that_is_lost_or_slow_is_asked_again_from_where_it_was(unreliable, capsys, error):
    rows, waited = unreliable(300, 10, 600, error=error)
    assert list(iter_documents("owner/name")) == rows, "each once, in order"
    assert waited == [2, 4, 2], "longer while nothing comes"
    assert "owner/name: no answer; trying again in 2 s" in capsys.readouterr().err


def test_a_hub_that_stays_away_is_given_up_by_name(unreliable):
    unreliable(*[300] * 9)
    with pytest.raises(UserError, match="the hub was lost 6 times in a row after 256 documents of 'owner/na"):
        list(iter_documents("owner/name"))


# --- texts with roles -------------------------------------------------------------------------------------


def test_a_shipped_text_is_the_sum_of_its_roles():
    by_role = [list(iter_documents(f"readmes:{role}")) for role in ROLES]
    assert sorted(functools.reduce(operator.iadd, by_role, [])) == sorted(iter_documents("readmes"))
    parts = [list(iter_documents(f"readmes:evaluate:{part}")) for part in range(PARTS)]
    assert functools.reduce(operator.iadd, parts, []) == by_role[0] and all(parts)
    assert origin("readmes:live") == origin("readmes") and "Python packages" in origin("readmes")["source"]


@pytest.mark.real_model
def test_a_file_of_ones_own_has_roles_too(tmp_path):
    path = tmp_path / "notes.jsonl"
    documents = [" ".join(str(i * 1000 + j) for j in range(500)) for i in range(200)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    by_role = {role: list(iter_documents(f"{path}:{role}")) for role in ROLES}
    assert sorted(functools.reduce(operator.iadd, by_role.values(), [])) == sorted(documents)
    assert all(by_role.values()) and list(iter_documents(str(path))) == documents


# --- python-docs ------------------------------------------------------------------------------------------


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
    stated = origin("python-docs")
    for name, version in python_docs.parts().items():
        assert f"{name} {version}" in stated["source"]
        assert f"{name}: " in stated["license"]
    assert "numpy" not in origin("python-docs:stdlib")["source"]


def test_a_damaged_cache_says_which_file_to_delete(tmp_path, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    monkeypatch.setattr(
        python_docs, "_extract", lambda name, path, progress: path.parent.mkdir() or path.write_text("{")
    )
    with pytest.raises(UserError, match="delete that file"):
        list(iter_documents("python-docs:stdlib"))


# --- damaged files of a folder ----------------------------------------------------------------------------


@pytest.fixture
def shards(tmp_path):
    """Three files of documents, of which the second ends in the middle of a row."""
    for number, name in enumerate(("a", "b", "c")):
        rows = "".join(json.dumps({"text": f"{name}{i}"}) + "\n" for i in range(3))
        (tmp_path / f"{name}.jsonl").write_text(rows[:-6] if number == 1 else rows)
    return tmp_path


def test_a_damaged_file_of_a_folder_is_named_and_ends_the_reading(shards):
    with pytest.raises(UserError, match=r"b\.jsonl"):
        list(iter_documents(str(shards)))


def test_a_damaged_file_of_a_folder_is_named_and_left_when_asked(shards):
    with pytest.warns(Note, match=r"b\.jsonl.*; the rest of that file is left out"):
        found = list(iter_documents(str(shards), skip_damaged=True))
    assert found == ["a0", "a1", "a2", "b0", "b1", "c0", "c1", "c2"]


def test_a_single_damaged_file_is_never_left(shards):
    with pytest.raises(UserError, match=r"b\.jsonl"):
        list(iter_documents(str(shards / "b.jsonl"), skip_damaged=True))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A dataset of five shards in the hub's layout, which `datasets` streams; gives its folder."""
    import datasets

    folder = tmp_path / "owner" / "name" / "data"
    folder.mkdir(parents=True)
    for shard in range(5):
        rows = pyarrow.table({"text": [f"row {shard} {i}" for i in range(300)]})
        name = f"train-{shard:05}-of-00005.parquet"
        pyarrow.parquet.write_table(rows, folder / name, row_group_size=70)
    load_dataset = datasets.load_dataset
    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: None)
    monkeypatch.setattr("supertf.data.corpus._hub_info", lambda name: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda n, c, **o: load_dataset(str(tmp_path / n), c, **o))
    return folder


@pytest.mark.parametrize("cuts", [(70, 71, 300), (256, 512, 768), (1, 2, 3), (299, 301, 1400)])
def test_a_stream_goes_on_also_from_where_it_had_gone_on(hub, cuts):
    everything, found, place = [f"row {shard} {i}" for shard in range(5) for i in range(300)], [], Place()
    for start, end in itertools.pairwise((0, *cuts, None)):
        place = Place(**json.loads(json.dumps(dataclasses.asdict(place))))
        count = None if end is None else end - start
        found += itertools.islice(iter_documents("owner/name", place=place), count)
    assert found == everything


@pytest.mark.parametrize("read", [0, 1, 69, 70, 255, 256, 257, 300, 700, 1024, 1499, 1500])
def test_a_stream_goes_on_exactly_where_it_was(hub, read):
    everything = [f"row {shard} {i}" for shard in range(5) for i in range(300)]
    place = Place()
    first = list(itertools.islice(iter_documents("owner/name", place=place), read))
    kept = json.dumps(dataclasses.asdict(place))  # as a journal keeps it
    assert place.documents == len(first) == read
    rest = list(iter_documents("owner/name", place=Place(**json.loads(kept))))
    assert first + rest == everything
    some = iter_documents("owner/name", sample_size=800, place=Place(**json.loads(kept)))
    assert list(some) == everything[read:800]


def test_a_stream_that_goes_on_does_not_ask_for_what_it_has_read(hub):
    place = Place()
    list(itertools.islice(iter_documents("owner/name", place=place), 1000))
    first = hub / "train-00000-of-00005.parquet"
    held = first.read_bytes()
    first.write_bytes(held[:4] + bytes(200) + held[204:])  # the rows; the schema at the end is read
    with pytest.raises(UserError):
        next(iter(iter_documents("owner/name")))
    assert next(iter(iter_documents("owner/name", place=place))) == "row 3 100"


def test_other_corpora_are_read_up_to_the_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(30)))
    for name in (str(path), f"{path}:train", "prose:live"):
        everything = list(iter_documents(name))
        assert list(iter_documents(name, place=Place(documents=2))) == everything[2:]
        assert list(iter_documents(name, sample_size=3, place=Place(documents=2))) == everything[2:3]
