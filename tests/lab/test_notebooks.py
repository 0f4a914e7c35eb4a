"""Hygiene of the committed notebooks: stored as they run, about themselves, and fit to learn from."""

import ast
import copy
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import nbformat
import nbformat.reader
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from supertf.lab.badges import badge_url, repository
from supertf.lab.book.executed import KEPT, KERNELSPEC, code_cells, outputs_of, solved, written
from supertf.lab.book.runs import MAX_BYTES
from supertf.lab.notebook import FIGURES_MIME

ROOT = Path(__file__).parents[2]
MACHINE_PATH = re.compile(r"/(?:root|home|Users|work|tmp|mnt)/\w|site-packages|[A-Z]:\\\\Users")


@pytest.fixture(params=sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


@pytest.fixture
def notebook(path) -> NotebookNode:
    return nbformat.reader.reads(path.read_text(encoding="utf-8"))  # as it is: nbformat.read mends ids


@pytest.fixture
def trees(notebook) -> list[ast.Module]:
    return list(map(tree_of, code_cells(notebook)))


def tree_of(cell: NotebookNode) -> ast.Module:
    """The syntax tree of a code cell, without magics."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def calls_in(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the last part of its function's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rsplit(".", 1)[-1], node


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


# --- stored as it runs ------------------------------------------------------------------------------------


def test_it_is_valid_small_and_has_nothing_of_the_machine_it_ran_on(notebook):
    nbformat.validate(copy.deepcopy(notebook))  # it would mend double ids in place
    ids = [cell.get("id") for cell in notebook.cells]
    assert None not in ids and len(set(ids)) == len(ids), "cells need ids of their own"
    assert len(written(notebook).encode()) < MAX_BYTES
    words = copy.deepcopy(notebook)
    for cell in code_cells(words):
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)  # whose letters mean nothing
    assert not MACHINE_PATH.search(written(words))
    assert notebook.metadata.kernelspec == KERNELSPEC
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "accelerator"}
    assert {key for cell in notebook.cells for key in cell.metadata} <= set(KEPT)


def test_it_was_executed_once_from_top_to_bottom_and_records_its_figures_at_the_end(notebook, path):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert outputs_of(notebook, "image/png"), "no picture"
    recorded = [o.data[FIGURES_MIME]["name"] for o in cells[-1].outputs if FIGURES_MIME in o.get("data", {})]
    assert recorded == [path.stem]


def test_its_badge_and_its_install_line_are_those_of_this_repository(notebook, path):
    text, repo = nbformat.writes(notebook), repository(ROOT)
    links = re.findall(r"https://colab\.research\.google\.com/github/[^)\"\s\\]+", text)
    assert set(links) == {badge_url(repo, path.name)} and "colab-badge.svg" in notebook.cells[0].source
    installed = re.findall(r"git\+https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?(?![\w.-])", text)
    assert set(installed) <= {repo}


def test_supertf_is_imported_before_torch(trees):
    """Or how threads wait stays as it was."""
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = [alias.name for node in nodes for alias in node.names]
    assert "supertf" in imported[: imported.index("torch") if "torch" in imported else None]


# --- fit to learn from ------------------------------------------------------------------------------------


def test_its_parameters_are_literals_and_the_next_cell_says_their_ranges(notebook):
    (cell,) = tagged(notebook, "parameters")
    for statement in ast.parse(cell.source).body:
        ast.literal_eval(statement.value)
    after = notebook.cells[notebook.cells.index(cell) + 1]
    assert {"in_range", "one_of"} & {name for name, _ in calls_in(tree_of(after))}


def test_it_asserts_claims_and_has_three_exercises_with_solutions_in_short_cells(notebook, trees):
    assert any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))
    checks = [name for tree in trees for name, _ in calls_in(tree) if name == "check"]
    assert min(len(tagged(notebook, "exercise")), len(checks)) >= 3
    solved(copy.deepcopy(notebook))
    lines = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in code_cells(notebook)]
    assert statistics.median(lines) <= 8 and max(lines) <= 50


def test_every_widget_has_a_static_figure_before_it_and_draws_it_anew_when_released(notebook):
    """Its callback was called at three values before, so that pages without a kernel show what it does."""
    functions, figure_before, drawn = {}, False, []  # drawn: direct calls so far, as source
    for cell in code_cells(notebook):
        tree = tree_of(cell)
        functions |= {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for name, call in calls_in(tree):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if name.endswith("Slider"):
                assert options.get("continuous_update") == "False"
            if name in ("interact", "interactive", "interactive_output"):
                assert figure_before, "a widget without a static figure before it"
                figure_before = False
                render = ast.unparse(call.args[0])
                assert "plt.show()" in ast.unparse(functions[render])
                assert len({text for one, text in drawn if one == render}) >= 3
                assert not any(isinstance(keyword.value, ast.Tuple) for keyword in call.keywords)
        statements = [node for node in tree.body if isinstance(node, ast.Expr)]
        drawn += [(name, ast.unparse(call)) for node in statements for name, call in calls_in(node)]
        figure_before = figure_before or any("image/png" in output.get("data", {}) for output in cell.outputs)


# --- nbval ------------------------------------------------------------------------------------------------


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
    outcomes = [line.split(" - ")[0] for line in lines if line.startswith(("PASSED", "FAILED"))]
    assert sorted(outcomes) == ["FAILED other.ipynb::Cell 0", "PASSED same.ipynb::Cell 0"] and status == 1


def test_a_notebook_has_outputs_that_nbval_compares():
    notebook = nbformat.read(ROOT / "notebooks/01_a_small_gpt.ipynb", as_version=4)
    assert len(tagged(notebook, "nbval-check-output")) >= 5
