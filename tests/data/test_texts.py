"""The shipped texts: whole, with roles that share no passage, and as their sources have them."""

import gzip
import importlib.metadata
import itertools
import json

import pytest

from supertf.data import texts
from supertf.data.roles import PART, PARTS, SIZES, runs
from supertf.data.texts import TEXTS, chosen, shipped, shipped_path, split_name
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError


@pytest.mark.real_model
@pytest.mark.parametrize("name", TEXTS)
def test_no_two_roles_nor_two_texts_to_score_share_twenty_tokens(name):
    encode = load_tokenizer("smollm2-135m").encode_ordinary
    keys = [("evaluate", part) for part in range(PARTS)] + [(role, 0) for role in (*SIZES, "train")]
    found = {}
    for role, part in keys:
        ids = [encode(text) for text in chosen(shipped(name), role, part)]
        assert sum(map(len, ids)) >= {"train": 1, "evaluate": PART, **SIZES}[role], (
            "as long as the role needs"
        )
        found[role, part] = {one for document in ids for one in runs(document)}
    for (a, first), (b, second) in itertools.combinations(found.items(), 2):
        assert first.isdisjoint(second), (a, b)


@pytest.mark.real_model
def test_no_two_domains_share_twenty_tokens():
    encode = load_tokenizer("smollm2-135m").encode_ordinary
    found = {
        name: {one for text in chosen(shipped(name), None, None) for one in runs(encode(text))}
        for name in TEXTS
    }
    for a, b in itertools.combinations(found, 2):
        assert found[a].isdisjoint(found[b]), (a, b)


@pytest.mark.parametrize("name", TEXTS)
def test_every_document_says_where_it_is_from(name):
    rows = [json.loads(line) for line in gzip.decompress(shipped_path(name).read_bytes()).splitlines()]
    assert all(row["source"].strip().endswith(")") and row["text"].strip() for row in rows)


def test_readmes_are_what_their_packages_say():
    rows = map(json.loads, gzip.decompress(shipped_path("readmes").read_bytes()).splitlines())
    compared = 0
    for row in rows:
        package, version = row["source"].split()[:2]
        try:
            here = importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if here.version == version:
            assert row["text"] in (here.metadata.get_payload(), here.metadata.get("Description"))
            compared += 1
    if not compared:
        pytest.skip("none of these packages is installed in that version")


def test_a_damaged_file_is_refused_in_one_line(tmp_path, monkeypatch):
    rows = gzip.decompress(shipped_path("prose").read_bytes())
    path = tmp_path / "prose.jsonl.gz"
    path.write_bytes(gzip.compress(rows.replace(b"darkness", b"Darkness")))
    monkeypatch.setattr(texts, "shipped_path", lambda name: path)
    shipped.cache_clear()
    with pytest.raises(UserError, match=r"prose\.jsonl\.gz has SHA-256 .*, expected .*: reinstall"):
        shipped("prose")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("prose", ("prose", None, None)),
        ("prose:fit", ("prose", "fit", None)),
        ("prose:evaluate", ("prose", "evaluate", None)),
        ("prose:evaluate:11", ("prose", "evaluate", 11)),
        ("notes.txt:live", ("notes.txt", "live", None)),
        ("python-docs:stdlib", ("python-docs:stdlib", None, None)),
        ("owner/name:configuration", ("owner/name:configuration", None, None)),
    ],
)
def test_names_of_texts_say_role_and_part(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prose:test", "prose has no role 'test'; choose from evaluate, live, calibrate, fit, train"),
        ("prose:evaluate:12", "expected a text to score, prose:evaluate:0 to prose:evaluate:11"),
        ("prose:evaluate:x", "expected a text to score"),
        ("prose:fit:1", "expected a text to score"),
    ],
)
def test_a_role_or_part_that_there_is_none_of_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        split_name(name)
