"""`supertf report`: a page and its numbers, and mistakes before anything is measured."""

import pytest

REPORT = "report --model planted --data book.txt --max_tokens 60"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_it_writes_a_page_and_prints_the_verdict(here, supertf):
    said = supertf(f"{REPORT} --out pages/one.html")
    assert said.code == 0, said.err
    first, second = said.out.splitlines()
    assert first.startswith("1[7, 21] = 3 is ") and second.startswith("pages/one.html (")
    text = (here / "pages/one.html").read_text()
    assert "supertf superweights ablate --model planted --weight '1[7, 21]'" in text.replace("&#39;", "'")


def test_json_has_all_numbers_and_where_the_page_is(here, supertf):
    found = supertf(f"{REPORT} --json").json
    assert found["page"] == "report.html" and (here / "report.html").exists()
    assert found["config"]["texts"] == ["book.txt"] and found["verdict"]["rows"]
    assert {"spikes", "verdict", "dial", "smaller", "attention", "words", "versions"} <= set(found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("report --out .", "--out . is a folder: name a file, such as report.html"),
        ("report --model nothing-here", "nothing-here"),
        ("report --model planted --data missing.txt", "no file or folder 'missing.txt'"),
        ("report --model planted --data bpe/train.bin", "written with another tokenizer"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_page(here, supertf, line, message):
    said = supertf(line)
    assert said.code == 2 and message in said.line
    assert not (here / "report.html").exists()


def test_a_text_that_is_too_short_for_a_verdict_is_refused(here, supertf):
    (here / "short.txt").write_text("hello world")
    said = supertf("report --model planted --data short.txt")
    assert said.code == 2 and "tokens, too few for a verdict: give at least 48" in said.line
    assert not (here / "report.html").exists()
