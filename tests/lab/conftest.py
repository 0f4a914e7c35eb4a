"""Figures are drawn without a window and forgotten after each test; what tests solve is nobody's progress."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
from chromium import CHROMIUM, FLAGS

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session", autouse=True)
def a_memory_of_their_own(tmp_path_factory):
    """Exercises that tests solve are not remembered as the reader's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPERTF_SOLVED", str(tmp_path_factory.mktemp("memory") / "solved.json"))
        yield


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
