"""Hygiene of the committed notebooks; each rule is shown to fail on a notebook that breaks it."""

import ast
import copy
import os
import re
import statistics
from pathlib import Path

import nbformat
import nbformat.reader
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from supertf.errors import UserError
from supertf.lab.badges import badge_url, repository
from supertf.lab.book.executed import KEPT, KERNELSPEC, code_cells, outputs_of, solved
from supertf.lab.book.runs import MAX_BYTES
from supertf.lab.notebook import FIGURES_MIME

ROOT = Path(__file__).parents[2]
MACHINE_PATH = re.compile(r"/(?:root|home|Users|work|tmp|mnt)/\w|site-packages|[A-Z]:\\\\Users")


def hygiene(notebook: NotebookNode, name: str, repo: str) -> list[str]:
    """What is wrong with a committed notebook called `name` (without suffix)."""
    return [
        *_format(notebook),
        *_metadata(notebook),
        *_outputs(notebook, name),
        *_badge(notebook, name, repo),
        *_setup(notebook),
        *_parameters(notebook),
        *_teaching(notebook),
        *_widgets(notebook),
    ]


def _format(notebook):
    try:
        nbformat.validate(copy.deepcopy(notebook))  # it would mend double ids in place
    except nbformat.ValidationError as error:
        yield f"invalid notebook: {error.message}"
    ids = [cell.get("id") for cell in notebook.cells]
    if None in ids or len(set(ids)) < len(ids):
        yield "cells need ids of their own"
    if len(nbformat.writes(notebook).encode()) >= MAX_BYTES:
        yield "too large"
    if MACHINE_PATH.search(nbformat.writes(notebook)):
        yield "a path of the machine it ran on"


def _metadata(notebook):
    if notebook.metadata.get("kernelspec") != KERNELSPEC:
        yield "the kernel is not python3"
    if extra := set(notebook.metadata) - {"kernelspec", "language_info", "accelerator"}:
        yield f"notebook metadata {extra}"
    if extra := {key for cell in notebook.cells for key in cell.metadata} - set(KEPT):
        yield f"cell metadata {extra}"


def _outputs(notebook, name):
    cells = code_cells(notebook)
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not executed once, from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    if any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs):
        yield "errors or stderr in the outputs"
    if not outputs_of(notebook, "image/png"):
        yield "no picture"
    recorded = (
        [o.data[FIGURES_MIME] for o in cells[-1].outputs if FIGURES_MIME in o.get("data", {})]
        if cells
        else []
    )
    if [figures["name"] for figures in recorded] != [name]:
        yield "the last cell does not record headline figures under the notebook's name"


def _badge(notebook, name, repo):
    text = nbformat.writes(notebook)
    links = re.findall(r"https://colab\.research\.google\.com/github/[^)\"\s\\]+", text)
    if set(links) != {badge_url(repo, f"{name}.ipynb")} or "colab-badge.svg" not in notebook.cells[0].source:
        yield "the first cell's badge does not point at this notebook"
    if set(re.findall(r"git\+https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?(?![\w.-])", text)) - {repo}:
        yield "installs another repository"


def _setup(notebook):
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(_tree(cell))]
    imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    if "supertf" not in imported[: imported.index("torch") if "torch" in imported else None]:
        yield "supertf is not imported before torch: how threads wait stays as it was"


def _parameters(notebook):
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        yield f"{len(cells)} cells tagged parameters"
    for cell in cells:
        for statement in ast.parse(cell.source).body:
            try:
                ast.literal_eval(statement.value)
            except (AttributeError, ValueError):
                yield "parameters that are not literals"
        after = notebook.cells[notebook.cells.index(cell) + 1]
        if after.cell_type != "code" or not {"in_range", "one_of"} & {
            name for name, _ in _calls(_tree(after))
        }:
            yield "no cell after the parameters says their ranges"


def _teaching(notebook):
    trees = list(map(_tree, code_cells(notebook)))
    if not any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree)):
        yield "no claim is asserted"
    stubs = [cell for cell in notebook.cells if "exercise" in cell.metadata.get("tags", [])]
    checks = sum(name == "check" for tree in trees for name, _ in _calls(tree))
    if min(len(stubs), checks) < 3:
        yield "fewer than three exercises"
    try:
        solved(copy.deepcopy(notebook))
    except UserError as error:
        yield str(error)
    lines = [
        len([line for line in cell.source.splitlines() if line.strip()]) for cell in code_cells(notebook)
    ]
    if lines and (statistics.median(lines) > 8 or max(lines) > 50):
        yield "long cells"


def _widgets(notebook):
    functions, figure_before, drawn = {}, False, []  # drawn: direct calls so far, as source
    for cell in code_cells(notebook):
        tree = _tree(cell)
        functions |= {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for name, call in _calls(tree):
            if name.endswith("Slider") and not _is_false(call, "continuous_update"):
                yield "a slider without continuous_update=False"
            if name not in ("interact", "interactive", "interactive_output"):
                continue
            if not figure_before:
                yield "a widget without a static figure before it"
            figure_before = False
            callback = (
                functions.get(call.args[0].id) if call.args and isinstance(call.args[0], ast.Name) else None
            )
            if callback is None or "plt.show()" not in ast.unparse(callback):
                yield "a render callback of a widget without plt.show()"
            elif len({text for name, text in drawn if name == callback.name}) < 3:
                yield "a render callback that is not called directly at min, mid and max"
            if any(isinstance(k.value, ast.Tuple) for k in call.keywords):
                yield "a slider without continuous_update=False"
        statements = [node for node in tree.body if isinstance(node, ast.Expr)]
        drawn += [(name, ast.unparse(call)) for node in statements for name, call in _calls(node)]
        figure_before = figure_before or any("image/png" in output.get("data", {}) for output in cell.outputs)


def _tree(cell):
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def _calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rsplit(".", 1)[-1], node


def _is_false(call, keyword):
    return any(k.arg == keyword and ast.unparse(k.value) == "False" for k in call.keywords)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_notebooks_are_clean(path):
    notebook = nbformat.reader.reads(path.read_text(encoding="utf-8"))  # as it is: nbformat.read mends ids
    assert hygiene(notebook, path.stem, repository(ROOT)) == []


# --- the rules themselves ---------------------------------------------------------------------------------


RENDER = "def render(k):\n    plt.plot([k])\n    plt.show()\n"


def a_good_notebook() -> NotebookNode:
    picture = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    figures = new_output("display_data", {FIGURES_MIME: {"name": "00_good", "figures": [["x", 1]]}})
    badge = f"[![Colab](colab-badge.svg)]({badge_url('some/lab', '00_good.ipynb')})"
    exercise = [
        new_code_cell("answer = ...", metadata={"tags": ["exercise"]}),
        new_code_cell("check('one', answer, 1)"),
        new_markdown_cell("<details>\n\n```python\nanswer = 1\n```\n</details>"),
    ]
    cells = [
        new_markdown_cell(badge),
        new_code_cell("%pip install git+https://github.com/some/lab\nimport supertf\nimport torch"),
        new_code_cell("STEPS = 3\nNAME: str = 'x'\nRATES = [1e-3, -1]", metadata={"tags": ["parameters"]}),
        new_code_cell("in_range(1, None, STEPS=STEPS)"),
        new_code_cell(f"{RENDER}\nrender(1)\nrender(2)\nrender(3)", outputs=[picture]),
        new_code_cell("interact(render, k=widgets.IntSlider(1, 1, 3, continuous_update=False))"),
        new_code_cell("assert 2 > 1"),
        *exercise,
        *copy.deepcopy(exercise),
        *copy.deepcopy(exercise),
        new_code_cell("record('00_good', x=1)", outputs=[figures]),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    return new_notebook(cells=cells, metadata={"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})


def test_a_good_notebook_passes():
    assert hygiene(a_good_notebook(), "00_good", "some/lab") == []


def source(number, text):
    return lambda notebook: notebook.cells[number].update(source=text)


def tag(number, *tags):
    return lambda notebook: notebook.cells[number].metadata.update(tags=list(tags))


def output(number, *outputs):
    return lambda notebook: notebook.cells[number].update(outputs=list(outputs))


SLIDER = "interact(render, k=widgets.IntSlider(1, 1, 3, continuous_update=False))"
FAULTS = [
    ("invalid notebook", lambda n: n.cells[0].update(cell_type="poem")),
    ("ids of their own", lambda n: n.cells[0].update(id="cell-1")),
    ("too large", source(0, "x" * MAX_BYTES)),
    ("a path of the machine", output(6, new_output("stream", name="stdout", text="/home/me/lab/x.txt"))),
    ("a path of the machine", source(6, "assert open('/tmp/x')")),
    ("the kernel is not python3", lambda n: n.metadata.kernelspec.update(name="conda-env-lab")),
    ("notebook metadata", lambda n: n.metadata.update(widgets={})),
    ("notebook metadata", lambda n: n.metadata.update(papermill={})),
    ("cell metadata", lambda n: n.cells[4].metadata.update(execution={"iopub.status.busy": "now"})),
    ("not executed once", lambda n: n.cells[4].update(execution_count=None)),
    ("not executed once", lambda n: n.cells[4].update(execution_count=40)),
    ("errors or stderr", output(6, new_output("error", ename="E", evalue="", traceback=[]))),
    ("errors or stderr", output(6, new_output("stream", name="stderr", text="Warning"))),
    ("no picture", output(4)),
    ("record headline figures", output(-1)),
    ("record headline figures", lambda n: n.cells[-1].outputs[0].data[FIGURES_MIME].update(name="01_other")),
    ("badge", source(0, "no badge")),
    ("badge", source(0, f"![x](colab-badge.svg)({badge_url('other/lab', '00_good.ipynb')})")),
    ("badge", source(0, f"![x](colab-badge.svg)({badge_url('some/lab', '01_other.ipynb')})")),
    ("installs another repository", source(1, "%pip install git+https://github.com/other/lab.git")),
    ("not imported before torch", source(1, "import torch\nimport supertf")),
    ("0 cells tagged parameters", tag(2)),
    ("2 cells tagged parameters", tag(6, "parameters")),
    ("not literals", source(2, "STEPS = 3\nTOTAL = STEPS * 2")),
    ("not literals", source(2, "import os")),
    ("says their ranges", source(3, "print(STEPS)")),
    ("no claim is asserted", source(6, "2 > 1")),
    ("fewer than three exercises", tag(7)),
    ("fewer than three exercises", source(8, "print(answer)")),
    ("no <details>", source(9, "no solution")),
    ("no <details>", source(15, "<details>only a hint</details>")),
    ("long cells", source(6, "assert 1\n" * 51)),
    ("long cells", lambda n: [cell.update(source="assert 1\n" * 9) for cell in n.cells[4:]]),
    ("static figure", source(4, f"def render(k):\n    plt.show()\n\n{SLIDER}")),
    ("static figure", source(6, f"{SLIDER}\nassert 1")),
    ("plt.show()", source(4, "def render(k):\n    plt.plot([k])")),
    ("plt.show()", source(5, SLIDER.replace("render", "lambda k: plt.show()"))),
    ("not called directly", source(4, f"{RENDER}\nrender(1)\nrender(2)")),
    ("not called directly", source(4, f"{RENDER}\nrender(1)\nrender(2)\nrender(2)")),
    (
        "not called directly",
        source(4, f"{RENDER}\ndef later():\n    render(1)\n    render(2)\n    render(3)"),
    ),
    ("continuous_update", source(5, SLIDER.replace("False", "True"))),
    ("continuous_update", source(5, "interact(render, k=(1, 3))")),
]


@pytest.mark.filterwarnings("ignore:Non-unique cell id")
@pytest.mark.parametrize(("expected", "break_it"), FAULTS, ids=[f"{i}-{f[0]}" for i, f in enumerate(FAULTS)])
def test_each_rule_catches_its_fault(expected, break_it):
    notebook = a_good_notebook()
    break_it(notebook)
    assert any(expected in problem for problem in hygiene(notebook, "00_good", "some/lab"))


@pytest.mark.slow
def test_an_output_that_nbval_compares_can_fail(tmp_path, capsys, monkeypatch):
    for name, stored in (("same", "4\n"), ("other", "5\n")):
        cell = new_code_cell("print(2 + 2)", metadata={"tags": ["nbval-check-output"]}, execution_count=1)
        cell.outputs = [new_output("stream", name="stdout", text=stored)]
        notebook = new_notebook(cells=[cell], metadata={"kernelspec": KERNELSPEC})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path)  # in this process, where all that pytest and nbval need is imported already
        options = ["-c", os.devnull, "-p", "no:cacheprovider", "--nbval-lax", "-rA"]
        status = pytest.main([*options, "other.ipynb", "same.ipynb"])
    lines = capsys.readouterr().out.splitlines()
    told = [line.split(" - ")[0] for line in lines if line.startswith(("PASSED", "FAILED"))]
    assert sorted(told) == ["FAILED other.ipynb::Cell 0", "PASSED same.ipynb::Cell 0"] and status == 1


def test_a_notebook_has_outputs_that_nbval_compares():
    tagged = nbformat.read(ROOT / "notebooks/01_a_small_gpt.ipynb", as_version=4).cells
    assert sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in tagged) >= 5
