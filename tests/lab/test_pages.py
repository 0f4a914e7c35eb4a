"""The book's pages: readable without network, with contents, neighbours, search and the lab's claims."""

import re

import pytest
from a_notebook import a_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from supertf.lab.book.conf import mathml
from supertf.lab.book.executed import Result
from supertf.lab.book.pages import empty_book, title_and_promise, write_book
from supertf.lab.explorers import PLOTLY_MIME


@pytest.fixture
def book(tmp_path, monkeypatch, capfd):
    """Returns a function that makes a book of notebooks; Sphinx has nothing to complain of."""
    monkeypatch.chdir(tmp_path)

    def make(**notebooks):
        write_book(
            tmp_path / "book", notebooks, [Result(name, 1.0, nb, []) for name, nb in notebooks.items()]
        )
        assert capfd.readouterr().err == ""
        return tmp_path / "book"

    return make


def article(text):
    """What a page has between its own frame."""
    return text[text.index("<article") : text.index("</article>")]


def test_pages_load_nothing_from_the_network(book):
    shown = a_notebook("x")
    badge = "[![Open in Colab](https://example.org/badge.svg)](https://example.org/x)"
    shown.cells.insert(1, new_markdown_cell(badge + "\n\n$$\\frac{a}{b}$$"))
    folder = book(x=shown)
    for page in folder.glob("*.html"):
        text = page.read_text()
        assert re.findall(r'(?:src|<link[^>]*href)="?(?:https?:)?//[^"]+', text) == [], page
    text = article((folder / "x.html").read_text())
    assert "<mfrac>" in text and "Open in Colab" in text and "<script" not in text


def test_formulas_are_mathml_or_shown_as_written():
    assert "<mfrac>" in mathml(r"\frac{a}{b}", "block")
    assert mathml(r"\frac{", "inline") == r"<code>\frac{</code>"


def test_an_explorer_is_drawn_from_a_file_beside_the_page_and_a_picture_without_javascript(book):
    shown = a_notebook("x")
    figure = {"data": [{"type": "scatter", "text": ["</script><b>"]}], "layout": {"height": 300}}
    bundles = {PLOTLY_MIME: figure, "text/plain": "[an explorer]"}, {"image/png": "iVBORw0KGgo="}
    for _ in "12":
        outputs = [new_output("display_data", bundle) for bundle in (*bundles, bundles[1])]
        shown.cells.append(new_code_cell("explorer()", outputs=outputs))
    folder = book(x=shown, y=a_notebook("y"))
    text = article((folder / "x.html").read_text())
    assert text.count('<script src="plotly.min.js"></script>') == 1
    assert '<div id="explorer-2"></div>\n<script>' in text
    assert text.count('<noscript><img alt="a picture of it" src="data:image/png;base64,iVBORw0KGgo=">') == 2
    assert text.count("<img") == 4, "a later picture of the cell is shown"
    assert '"height": 300' in text and text.count("</script>") == 3, "texts close no script"
    assert "Plotly" in (folder / "plotly.min.js").read_text()[:2000]
    assert "plotly" not in article((folder / "y.html").read_text())


def test_pages_know_their_neighbours_and_links_between_notebooks_lead_to_pages(book):
    first, second = a_notebook("00_a"), a_notebook("01_b")
    first.cells.append(new_markdown_cell("[two](01_b.ipynb), [other](https://x.org/01_b.ipynb)"))
    folder = book(**{"00_a": first, "01_b": second})
    text = (folder / "00_a.html").read_text()
    assert set(re.findall(r'href="([^"]*01_b[^"]*)"', text)) == {"01_b.html", "https://x.org/01_b.ipynb"}
    assert 'rel="next" title="A title" href="01_b.html"' in text
    assert 'rel="prev" title="A title" href="00_a.html"' in (folder / "01_b.html").read_text()
    assert "00 A title" in text and "01 A title" in text, "contents have the notebooks' numbers"


def test_what_the_lab_claims_is_a_page_and_searched_too(book, tmp_path):
    (tmp_path / "CLAIMS.md").write_text("# What the lab claims\n\n| claim | n |\n|-|-|\n| zebras | 30 |\n")
    folder = book(x=a_notebook("x"))
    assert "<td><p>zebras</p></td>" in (folder / "claims.html").read_text()
    assert '"zebra"' in (folder / "searchindex.js").read_text()
    assert 'href="claims.html"' in (folder / "x.html").read_text()


def test_set_up_is_folded_and_what_is_for_programs_left_out(book):
    shown = a_notebook("x")
    hidden = new_code_cell("%pip install x", metadata={"jupyter": {"source_hidden": True}})
    bundle = {"application/vnd.supertf.figures+json": {}, "text/plain": "for people"}
    shown.cells += [hidden, new_code_cell("record()", outputs=[new_output("display_data", bundle)])]
    text = article((book(x=shown) / "x.html").read_text())
    assert "Show the set-up" in text and "for people" in text and "supertf.figures" not in text


def test_a_failure_and_what_is_to_come_are_said_in_the_index(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    notebooks = {name: a_notebook("x") for name in ("00_failed", "01_runs", "02_later")}
    problems = ["cell [3] `f()`: ValueError: " + "x" * 300, "<other>"]
    failed = Result("00_failed", 61.2, notebooks["00_failed"], problems)
    index = write_book(tmp_path / "book", notebooks, [failed], ["01_runs"]).read_text()
    assert index.count('class="failed"') == 1 and "x" * 300 in index and "&lt;other&gt;" in index
    assert '<p class="state">running</p>' in index and '<p class="state">to come</p>' in index
    assert 'http-equiv="refresh"' in index
    results = [failed, *(Result(name, 1.0, notebooks[name], []) for name in ("01_runs", "02_later"))]
    index = write_book(tmp_path / "book", notebooks, results).read_text()
    assert "refresh" not in index and "state" not in index and 'href="02_later.html"' in index
    assert capfd.readouterr().err == ""
    empty_book(tmp_path / "book")
    assert list(tmp_path.iterdir()) == []


def test_the_promise_is_the_paragraph_after_the_title():
    assert title_and_promise(a_notebook("x")) == ("A title", "A promise about $n^2$, on two lines.")
    assert title_and_promise(new_notebook()) == ("", "")
