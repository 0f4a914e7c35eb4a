"""The book's pages: readable without network, one row of the index per notebook."""

import re

from a_notebook import a_notebook
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from supertf.lab.book.executed import Result
from supertf.lab.book.pages import page, title_and_promise, write_index, write_page
from supertf.lab.explorers import PLOTLY_MIME


def test_pages_load_nothing_from_the_network():
    shown_ = a_notebook("x")
    badge = "[![Open in Colab](https://example.org/badge.svg)](https://example.org/x)"
    shown_.cells.insert(0, new_markdown_cell(badge + "\n\n$$\\frac{a}{b}$$ and $\\frac{$"))
    text = page("x", shown_)
    assert re.findall(r'(?:src|<link[^>]*href)="?(?:https?:)?//[^"]+', text) == []
    assert "<script" not in text
    assert "<mfrac>" in text and "Open in Colab" in text
    assert "<code>\\frac{</code>" in text  # a formula that is none is shown as written
    assert 'href="index.html"' in text


def test_an_explorer_is_drawn_from_a_file_beside_the_page_and_a_picture_without_javascript(tmp_path):
    shown_ = a_notebook("x")
    figure = {"data": [{"type": "scatter", "text": ["</script><b>"]}], "layout": {"height": 300}}
    bundle = {PLOTLY_MIME: figure, "image/png": "iVBORw0KGgo=", "text/plain": "[an explorer]"}
    shown_.cells.append(new_code_cell("explorer()", outputs=[new_output("display_data", bundle)]))
    path = write_page(tmp_path, Result("x", 1.0, shown_, []))
    text = path.read_text()
    assert text.count('<script src="plotly.min.js"></script>') == 1
    assert '<div id="explorer-1"></div>\n<noscript><img alt' in text and "base64,iVBORw0KGgo=" in text
    assert '"height": 300' in text and text.count("</script>") == 2, "texts close no script"
    assert "Plotly" in (tmp_path / "plotly.min.js").read_text()[:2000]
    assert PLOTLY_MIME not in page("y", a_notebook("y")) and "plotly" not in page("y", a_notebook("y"))


def test_links_between_notebooks_lead_to_their_pages():
    shown_ = a_notebook("x")
    shown_.cells[0].source = "[one](01_a.ipynb), [part](01_a.ipynb#two), [other](https://x.org/01_a.ipynb)"
    links = re.findall(r'href="([^"]*01_a[^"]*)"', page("x", shown_))
    assert links == ["01_a.html", "01_a.html#two", "https://x.org/01_a.ipynb"]


def test_a_long_failure_has_a_row_of_its_own(tmp_path):
    notebook_ = a_notebook("x")
    failed = Result("00_failed", 61.2, notebook_, ["cell [3] `f()`: ValueError: " + "x" * 300, "<other>"])
    index = write_index(tmp_path, {"00_failed": notebook_}, [failed]).read_text()
    assert index.count("<tr") == 3, "head, notebook, problems"
    problems_ = index[index.rindex("<tr") :]
    assert 'colspan="4"' in problems_ and "x" * 300 in problems_ and "&lt;other&gt;" in problems_
    assert ".problems { border: 0; padding-top: 0; overflow-wrap: anywhere; }" in index


def test_the_promise_is_the_paragraph_after_the_title():
    assert title_and_promise(a_notebook("x")) == ("A title", "A promise about $n^2$, on two lines.")
    assert title_and_promise(new_notebook()) == ("", "")
