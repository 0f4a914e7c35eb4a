"""The book's pages: readable without network, one row of the index per notebook."""

import re

from a_notebook import a_notebook
from nbformat.v4 import new_markdown_cell, new_notebook

from supertf.lab.book.executed import Result
from supertf.lab.book.pages import page, title_and_promise, write_index


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
