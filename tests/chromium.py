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
