"""The stored notebooks as a book, opened from disk in Chromium: links, search, dark, phones, print.

make test-browser    (needs Debian's chromium; without it the tests are skipped)
"""

import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from chromium import NEEDED, moved, open_page

from supertf.lab.book.executed import Result
from supertf.lab.book.pages import write_book

ROOT = Path(__file__).parents[2]
NAMES = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
LARGEST = 25_000_000  # bytes of the whole book

pytestmark = NEEDED


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book") / "book"
    notebooks = {name: nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4) for name in NAMES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        write_book(folder, notebooks, [Result(name, 1.0, nb, []) for name, nb in notebooks.items()])
    return folder


@pytest.fixture
def opened(browser, book):
    """Returns a function that opens a page of the book; a page that complains fails the test."""
    complaints = []

    yield lambda name, **screen: open_page(browser, book / name, complaints, **screen)
    assert complaints == []


def test_the_book_is_small(book):
    assert sum(path.stat().st_size for path in book.rglob("*") if path.is_file()) < LARGEST


def test_every_link_leads_somewhere(book):
    pages = {path.name: path.read_text() for path in book.glob("*.html")}
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    for name, text in pages.items():
        for link in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text):
            if re.match("https?:", link):
                continue
            path, _, part = unquote(link).partition("#")
            assert (book / (path or name)).exists(), f"{name} links to {link}"
            assert not part or part in ids[path or name], f"{name} links to {link}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*NAMES, "claims", "index"])
def test_every_page_opens_and_its_explorers_move(opened, name, scheme):
    page = opened(f"{name}.html", color_scheme=scheme)
    explorers = page.locator("[id^=explorer-]").count()
    page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {explorers}")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shade = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (shade < 200) == (scheme == "dark")
    for explorer in page.locator(".js-plotly-plot").all() if scheme == "light" else ():
        shown = moved(page, explorer)
        assert len(set(shown)) == len(shown), "each move shows something else"


@pytest.mark.parametrize("name", [*NAMES, "claims", "index"])
def test_on_a_phone_no_page_is_wider_than_the_screen(opened, name):
    page = opened(f"{name}.html", viewport={"width": 390, "height": 800}, device_scale_factor=2)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_search_finds_pages_and_leads_to_them(opened):
    page = opened("index.html", viewport={"width": 1300, "height": 900})
    page.locator("input[name=q]").fill("needle")
    page.keyboard.press("Enter")
    found = page.locator("ul.search a[href^='02_scalable_softmax']")
    found.first.wait_for()
    found.first.click()
    assert "Scalable softmax" in page.title()


def test_previous_and_next_go_through_all_notebooks(opened):
    page = opened(f"{NAMES[0]}.html", viewport={"width": 1300, "height": 900})
    for name in NAMES[1:]:
        page.locator("a.next-page").click()
        assert page.url.endswith(f"/{name}.html")
    page.locator("a.prev-page").click()
    assert page.url.endswith(f"/{NAMES[-2]}.html")


def test_printed_there_is_only_the_text(opened):
    page = opened(f"{NAMES[0]}.html", viewport={"width": 1300, "height": 900})
    page.emulate_media(media="print")
    assert not page.locator(".sidebar-drawer").is_visible() and page.locator("article").is_visible()


def test_solutions_are_folded_until_asked_for(opened):
    page = opened(f"{NAMES[1]}.html", viewport={"width": 1300, "height": 900})
    solution = page.locator("details", has=page.locator("summary", has_text="Solution")).first
    code = solution.locator("pre").first
    assert not code.is_visible()
    solution.locator("summary").click()
    assert code.is_visible()
