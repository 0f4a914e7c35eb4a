"""A person's session: notebooks in JupyterLab and Chromium, all cells run, widgets and explorers moved."""

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from chromium import CHROMIUM, FLAGS, NEEDED, moved
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from supertf.lab.book.executed import KERNELSPEC, code_cells
from supertf.lab.book.runs import smoke_parameters

ROOT = Path(__file__).parents[2]
RUN_SECONDS = 300
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
MORE_TO_CHOOSE_FROM = {"09_quantization": {"BITS": [4, 8]}}
SETTINGS = {  # every cell in the page also when scrolled away, and no questions to the network
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

pytestmark = NEEDED


@dataclass
class Move:
    """A widget whose first slider was moved."""

    pictures: list[int]  # in the widget, before and after
    by_key: bool  # whether the picture was another afterwards
    by_mouse: bool = False
    milliseconds: list[float] = field(default_factory=list)  # from later keys to another picture


@dataclass
class Seen:
    """What a person would have seen."""

    moves: list[Move] = field(default_factory=list)  # of every widget with a slider
    others: list[bool] = field(default_factory=list)  # whether a picture followed each further control
    explored: list[list[str]] = field(default_factory=list)  # of every explorer what it showed, move by move
    errors: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)  # addresses asked for outside this machine


@pytest.fixture
def server(tmp_path):
    """JupyterLab on loopback over an empty folder, set up on its own; yields (folder, address, token)."""
    settings = tmp_path / "settings" / "@jupyterlab"
    for name, value in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    folder = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks/images", folder / "images")  # which notebooks show
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = os.environ | {
        "JUPYTER_TOKEN": token,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
    ]
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={folder}"]
    with open(tmp_path / "server.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api", process, tmp_path / "server.log")
        yield folder, address, token
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(address, process, log):
    for _ in range(120):
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    raise TimeoutError(log.read_text())


def quick(name: str) -> NotebookNode:
    """A notebook with quick parameters, without outputs: what is seen afterwards is of this visit."""
    notebook = load_notebook_node(str(ROOT / "notebooks" / f"{name}.ipynb"))
    parameters = smoke_parameters()[name] | MORE_TO_CHOOSE_FROM.get(name, {})
    notebook = parameterize_notebook(notebook, parameters)
    for cell in code_cells(notebook):
        cell.update(execution_count=None, outputs=[])
    return notebook


def visit(server, notebook: NotebookNode, screenshot: Path) -> Seen:
    """Open a notebook, run all cells, move every control of widgets and explorers, and report."""
    from playwright.sync_api import sync_playwright

    folder, address, token = server
    nbformat.write(notebook, folder / "visited.ipynb")
    seen = Seen()

    def outside(route):
        seen.foreign.append(route.request.url)
        route.fulfill(content_type="image/svg+xml", body='<svg xmlns="http://www.w3.org/2000/svg"/>')

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.on("console", lambda message: message.type == "error" and seen.console.append(message.text))
        page.on("pageerror", lambda error: seen.console.append(str(error)))
        page.route(lambda url: not url.startswith((address, "data:", "blob:")), outside)
        page.goto(f"{address}/doc/tree/visited.ipynb?token={token}")
        _until_idle(page)
        _choose(page, "Run", "Run All Cells")
        _wait_until_done(page)
        widgets = page.locator(".widget-interact").all()
        seen.moves = [_moved(page, one) for one in widgets if one.locator("[role=slider]").count()]
        seen.others = [followed for one in widgets for followed in _others_moved(page, one)]
        seen.explored = [moved(page, one) for one in page.locator(".js-plotly-plot").all()]
        # errors and progress bars share a MIME type in the page
        seen.errors = page.locator("[data-mime-type$=stderr]", has_text="Traceback").all_inner_texts()
        screenshot.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=screenshot)
        browser.close()
    return seen


def _until_idle(page):
    page.get_by_text(f"{KERNELSPEC['display_name']} | Idle").wait_for(timeout=RUN_SECONDS * 1000)


def _choose(page, menu: str, entry: str):
    """Choose an entry of JupyterLab's menu bar."""
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click(timeout=60_000)
    page.locator(".lm-Menu-itemLabel", has_text=entry).first.click()


def _wait_until_done(page):
    """Until the last code cell has a number, or an error stopped the run."""
    page.wait_for_function(
        """() => {
            const texts = name => [...document.querySelectorAll(name)].map(node => node.textContent);
            const last = texts('.jp-CodeCell .jp-InputPrompt').pop();
            const failed = texts("[data-mime-type$=stderr]").some(text => /Traceback/.test(text));
            return failed || /[0-9]/.test(last);
        }""",
        timeout=RUN_SECONDS * 1000,
    )


def _moved(page, widget) -> Move:
    """Move a widget's first slider by a key and, if its picture follows, more often and by the mouse."""
    handle = widget.locator("[role=slider]").first
    handle.scroll_into_view_if_needed()
    before = _pictures(widget)
    handle.focus()
    at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
    away, back = ("ArrowLeft", "ArrowRight") if at_end else ("ArrowRight", "ArrowLeft")
    page.keyboard.press(away)
    after = _settled_pictures(page, widget, before)
    move = Move([len(before), len(after)], before != after)
    if move.by_key:
        move.milliseconds = [_until_another_picture(page, widget, key) for key in (back, away) * 5]
        after, track = _pictures(widget), widget.locator(".noUi-base").first.bounding_box()
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        page.mouse.click(
            track["x"] + track["width"] * (0.02 if at_end else 0.98), track["y"] + track["height"] / 2
        )
        move.by_mouse = _settled_pictures(page, widget, after) != after
    return move


def _others_moved(page, widget) -> list[bool]:
    """Whether the widget's picture follows each further slider, by a key, and each menu with a choice."""
    followed = []
    for handle in widget.locator("[role=slider]").all()[1:]:
        before = _pictures(widget)
        at_end = handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")
        handle.focus()
        page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
        followed.append(_settled_pictures(page, widget, before) != before)
    for menu in widget.locator("select").all():
        values = [option.get_attribute("value") for option in menu.locator("option").all()]
        if len(values) > 1:
            before = _pictures(widget)
            menu.select_option(value=next(one for one in values if one != menu.input_value()))
            followed.append(_settled_pictures(page, widget, before) != before)
    return followed


def _settled_pictures(page, widget, before) -> list[str]:
    """The widget's pictures once they differ from those before and have stood for a second.

    A picture that is computed anew is first taken away, and a second picture, or an error, would
    follow the first: what is read at one moment alone would say too little.
    """
    deadline = time.monotonic() + 30
    now, since = _pictures(widget), time.monotonic()
    while time.monotonic() < deadline:
        page.wait_for_timeout(200)
        if (latest := _pictures(widget)) != now:
            now, since = latest, time.monotonic()
        elif now and now != before and time.monotonic() - since >= 1:
            break
    return now


def _until_another_picture(page, widget, key) -> float:
    """Milliseconds from a key to another picture in the widget, as the page itself notices it."""
    widget.evaluate(
        """widget => {
            const shown = () => [...widget.querySelectorAll('.jp-OutputArea img')].map(one => one.src).join();
            const before = shown();
            window.waited = new Promise(resolve => {
                widget.addEventListener('keydown', event => {
                    const started = event.timeStamp;
                    const look = () => {
                        const now = shown();
                        if (now && now != before) resolve(performance.now() - started);
                        else requestAnimationFrame(look);
                    };
                    look();
                }, {once: true, capture: true});
            });
        }"""
    )
    page.keyboard.press(key)
    return page.evaluate("window.waited")


def _pictures(widget) -> list[str]:
    return [image.get_attribute("src") for image in widget.locator(".jp-OutputArea img").all()]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_without_complaint_and_its_widgets_and_explorers_follow(server, name):
    notebook = quick(name)
    seen = visit(server, notebook, ROOT / "build" / f"browser-{name}.png")
    assert seen.errors == [] and seen.console == []
    assert len(seen.moves) == sum(
        "Slider(" in cell.source and "interact(" in cell.source for cell in code_cells(notebook)
    )
    for move in seen.moves:
        assert move.pictures == [1, 1] and move.by_key and move.by_mouse
        print(f"{name}: from key to picture, median {statistics.median(move.milliseconds):.0f} ms")
    assert all(seen.others), "a picture follows every slider and menu"
    assert len(seen.explored) == sum("explorers.explorer(" in cell.source for cell in code_cells(notebook))
    assert all(len(set(shown)) == len(shown) for shown in seen.explored), "each move shows something else"
    assert all(address.endswith("colab-badge.svg") for address in seen.foreign)


BAD = [
    "import matplotlib.pyplot as plt\nfrom ipywidgets import IntSlider, interact",
    "def render(k):\n    print(k)\n    for _ in range(2):\n        display(fig)\n    assert k == 1",
    "fig, _ = plt.subplots()\nplt.close()",
    "interact(render, k=IntSlider(1, 1, 3, continuous_update=False));",
    "from IPython.display import HTML",
    """HTML('<img src="https://example.org/x.svg"><script>console.error("loud")</script>')""",
]


def test_the_visit_notices_stuck_pictures_and_swallowed_errors(server):
    notebook = new_notebook(cells=list(map(new_code_cell, BAD)), metadata={"kernelspec": KERNELSPEC})
    seen = visit(server, notebook, ROOT / "build" / "browser-bad.png")
    assert seen.moves == [Move(pictures=[2, 2], by_key=False)]
    assert len(seen.errors) == 1 and "AssertionError" in seen.errors[0]
    assert seen.console == ["loud"] and seen.foreign == ["https://example.org/x.svg"]


def test_interrupted_run_twice_and_restarted_a_notebook_says_the_same(server):
    from playwright.sync_api import sync_playwright

    folder, address, token = server
    nbformat.write(quick("00_start_here"), folder / "visited.ipynb")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{address}/doc/tree/visited.ipynb?token={token}")

        def waiting():
            page.locator(".jp-InputPrompt", has_text="[*]").first.wait_for()

        def done():
            none_waits = "all => all.every(prompt => !prompt.textContent.includes('[*]'))"
            deadline = time.monotonic() + RUN_SECONDS
            while not page.locator(".jp-InputPrompt").evaluate_all(none_waits):
                assert time.monotonic() < deadline
                page.wait_for_timeout(200)

        def outputs() -> list[str]:
            """What is printed once no cell waits any more."""
            waiting()
            done()
            return page.locator(".jp-OutputArea-output[data-mime-type*=stdout]").all_inner_texts()

        _until_idle(page)
        _choose(page, "Run", "Run All Cells")
        waiting()
        _choose(page, "Kernel", "Interrupt Kernel")
        done()
        _choose(page, "Run", "Run All Cells")
        first = outputs()
        _choose(page, "Run", "Run All Cells")
        again = outputs()
        _choose(page, "Kernel", "Restart Kernel and Run All Cells")
        page.locator(".jp-Dialog-button", has_text="Restart").last.click()
        restarted = outputs()
        browser.close()
    assert len(first) > 5 and "Traceback" not in "".join(first)
    assert first == again == restarted
