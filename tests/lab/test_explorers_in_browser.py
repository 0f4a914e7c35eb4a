"""Explorers in Chromium, in a page of the book opened from disk: every slider and menu is moved.

make test-browser    (needs Debian's chromium; without it the tests are skipped)
"""

import base64
import io
import json

import matplotlib.pyplot as plt
import pytest
from a_notebook import a_notebook
from chromium import NEEDED, moved, open_page
from explored import FIGURES
from nbformat.v4 import new_code_cell, new_output

from supertf.lab.book.executed import Result
from supertf.lab.book.pages import write_book
from supertf.lab.explorers import PLOTLY_MIME

pytestmark = NEEDED


@pytest.fixture
def opened(browser, tmp_path):
    """Returns a function that opens a page with an explorer; a page that complains fails the test."""
    complaints = []

    def opened(name, **screen):
        drawn = io.BytesIO()
        plt.figure(figsize=(1, 1)).savefig(drawn, format="png")
        picture = base64.b64encode(drawn.getvalue()).decode()
        figure = json.loads(FIGURES[name]().to_json())
        notebook = a_notebook("x")
        bundles = {PLOTLY_MIME: figure, "text/plain": "[an explorer]"}, {"image/png": picture}
        outputs = [new_output("display_data", bundle) for bundle in bundles]
        notebook.cells.append(new_code_cell("explorer()", outputs=outputs))
        write_book(tmp_path / "book", {"x": notebook}, [Result("x", 1.0, notebook, [])])
        page = open_page(browser, tmp_path / "book/x.html", complaints, **screen)
        if screen.get("java_script_enabled", True):
            page.wait_for_selector("#explorer-1 .main-svg")
        return page

    yield opened
    assert complaints == []


@pytest.mark.parametrize("name", FIGURES)
def test_every_slider_and_menu_changes_what_is_shown(opened, name):
    page = opened(name, viewport={"width": 1000, "height": 1800})
    seen = moved(page, page.locator("#explorer-1"))
    assert len(seen) >= 2 or name == "cost"
    assert len(set(seen)) == len(seen), "each move shows something else"


def test_the_legend_hides_a_line_and_the_mouse_reads_a_point(opened):
    page = opened("cost", viewport={"width": 1000, "height": 1800})
    page.locator(".legendtoggle").first.click()
    page.wait_for_timeout(600)
    hidden = "document.getElementById('explorer-1').data[0].visible"
    assert page.evaluate(hidden) == "legendonly"
    page.locator(".legendtoggle").first.click()
    page.wait_for_timeout(600)
    point = page.locator(".scatterlayer .point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector(".hovertext")
    assert "mlp.c_proj" in page.locator(".hovertext").first.text_content()


@pytest.mark.parametrize("name", FIGURES)
def test_on_a_phone_it_is_no_wider_than_the_screen(opened, name):
    page = opened(name, viewport={"width": 390, "height": 800}, device_scale_factor=2)
    box = page.locator("#explorer-1").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390


def test_without_javascript_there_is_the_picture(opened):
    page = opened("needle", java_script_enabled=False)
    assert page.locator("noscript img").count() == 1 and page.locator("#explorer-1 .main-svg").count() == 0
