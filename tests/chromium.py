"""Chromium, where there is one, and pages of which none may complain or ask a network."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]
NEEDED = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]


def open_page(browser, path, complaints, **screen):
    """A page of a file on disk; what it says on the console or asks of a network is added to `complaints`."""
    page = browser.new_page(**screen)
    page.set_default_timeout(10_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.route("http*://**", lambda route: complaints.append(route.request.url))
    page.goto(path.as_uri())
    return page


def moved(page, explorer) -> list[str]:
    """What an explorer shows: at first, and after each move of its sliders and choice of its menus."""
    shown = "e => JSON.stringify([e.data.map(d => [d.x, d.y, d.z, d.text]), e.layout.shapes, e.layout.title])"
    seen = [explorer.evaluate(shown)]
    for rail in explorer.locator(".slider-rail-touch-rect").all():
        rail.scroll_into_view_if_needed()
        box = rail.bounding_box()
        for share in (0.95, 0.4):
            page.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
            page.wait_for_timeout(400)
            seen.append(explorer.evaluate(shown))
    for menu in explorer.locator(".updatemenu-header").all():
        menu.click()
        explorer.locator(".updatemenu-dropdown-button").last.click()
        page.wait_for_timeout(400)
        seen.append(explorer.evaluate(shown))
    return seen
