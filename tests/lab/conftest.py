"""Figures are drawn without a window and forgotten after each test."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
from chromium import CHROMIUM, FLAGS

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
