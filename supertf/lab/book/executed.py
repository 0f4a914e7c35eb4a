"""What an executed notebook says: its errors (also those that widgets swallow), checks and figures."""

import base64
import copy
import io
import json
import re
from dataclasses import dataclass, field
from typing import Any

import nbformat
from nbformat import NotebookNode

from supertf.errors import UserError
from supertf.lab.explorers import PLOTLY_MIME
from supertf.lab.notebook import CHECK_MIME, FIGURES_MIME, figures_text

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
WIDGET_TEXT = "[an interactive control: run the notebook to use it]"
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
KEPT = ("tags", "jupyter", "cellView")  # the last two fold cells in JupyterLab and Colab


def problems(notebook: NotebookNode, statuses: set[str]) -> list[str]:
    """What is wrong with an executed notebook although nothing stopped it; empty when nothing is.

    `statuses` are those ("passed", "unsolved", "failed") that its exercise checks may report.
    """
    found = []
    for cell in code_cells(notebook):
        if cell.execution_count is None:
            found.append(f"{where(cell.source)} was not executed")
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                found.append(f"{where(cell.source, cell.execution_count)}: {output.ename}: {output.evalue}")
    found += widget_errors(notebook)
    for outcome in outputs_of(notebook, CHECK_MIME):
        if outcome["status"] not in statuses:
            found.append(f"the check {outcome['name']!r} says {outcome['status']}")
    if not code_cells(notebook):
        found.append("it has no code cells")
    if not outputs_of(notebook, FIGURES_MIME):
        found.append("it records no headline figures (supertf.lab.notebook.record)")
    return found


def widget_errors(notebook: NotebookNode) -> list[str]:
    """Errors in widget callbacks and `Output` blocks, which stop no kernel and fail no papermill run."""
    widgets = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    states = {key: model.get("state", {}) for key, model in widgets.get("state", {}).items()}
    places = {}  # of each widget, the cell that shows it
    for cell in code_cells(notebook):
        shown = [o.data[WIDGET_MIME]["model_id"] for o in cell.outputs if WIDGET_MIME in o.get("data", {})]
        for model in shown:  # grows while it is walked: a box shows its children
            places[model] = where(cell.source, cell.execution_count)
            children = states.get(model, {}).get("children", [])
            shown += [child.removeprefix("IPY_MODEL_") for child in children]
    return [
        f"{places.get(model, 'a hidden widget')}, inside a widget: {output['ename']}: {output['evalue']}"
        for model, state in states.items()
        for output in state.get("outputs", [])
        if output.get("output_type") == "error"
    ]


def outputs_of(notebook: NotebookNode, mime: str) -> list[Any]:
    """Everything a notebook's cells put out under a MIME type, in order."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output.data[mime] for output in outputs if mime in output.get("data", {})]


def solved(notebook: NotebookNode) -> NotebookNode:
    """The notebook with each stub tagged `exercise` replaced, in place, by the solution folded after it."""
    stub = None
    for cell in notebook.cells:
        if cell.cell_type == "code" and "exercise" in cell.metadata.get("tags", []):
            if stub is not None:
                raise UserError(
                    f"{where(stub.source)} has no <details> with a solution before the next exercise"
                )
            stub = cell
        elif cell.cell_type == "markdown" and stub is not None and "<details>" in cell.source:
            blocks = re.findall(r"```python\n(.*?)\n```", cell.source, re.DOTALL)
            if not blocks:
                continue  # a folded hint
            stub.source, stub = blocks[-1], None
    if stub is not None:
        raise UserError(f"{where(stub.source)} has no <details> with a solution")
    return notebook


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """An executed notebook as the repository carries it: its outputs without timings, widgets and stderr.

    Its pictures have a palette, which makes line drawings four times smaller.
    """
    notebook = without_widgets(notebook)
    kept = {key: notebook.metadata[key] for key in ("accelerator",) if key in notebook.metadata}
    notebook.metadata = NotebookNode(kept, kernelspec=KERNELSPEC, language_info={"name": "python"})
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)})
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]  # progress bars
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = NotebookNode()
            if picture := output.get("data", {}).get("image/png"):
                output.data["image/png"] = with_palette(picture)
    return notebook


def written(notebook: NotebookNode) -> str:
    """A notebook as it is stored: nbformat's text, but for explorers, each of which is on one line.

    Indented, as nbformat would have them, every number has a line of its own and takes five times the space.
    """
    notebook = copy.deepcopy(notebook)
    figures: dict[str, str] = {}  # by the JSON text that stands in its place
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if (figure := output.get("data", {}).get(PLOTLY_MIME)) is not None:
                name = f"explorer {len(figures)} of this notebook"
                figures[json.dumps(name)] = json.dumps(figure, ensure_ascii=False, separators=(",", ":"))
                output.data[PLOTLY_MIME] = name
    text = nbformat.writes(notebook)
    for name, figure in figures.items():
        text = text.replace(name, figure)
    return text + "\n"


def with_palette(picture: str, colors: int = 256) -> str:
    """A base64 PNG with at most so many colours, or as it was where that is no smaller.

    By octree, which keeps the colours of small dots and thin lines; a median cut spends most colours on the
    shades of grey of letters, and turned a blue dot green.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    buffer = io.BytesIO()
    few = image.quantize(colors, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.putpalette([255 if level > 251 else level for level in few.getpalette() or []])  # white stays white
    few.save(buffer, "PNG", optimize=True)
    return min(base64.b64encode(buffer.getvalue()).decode(), picture, key=len)


def without_widgets(notebook: NotebookNode) -> NotebookNode:
    """A copy in which widgets, which need a kernel, are one line of text."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata.pop("widgets", None)
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if WIDGET_MIME in output.get("data", {}):
                output.data = NotebookNode({"text/plain": WIDGET_TEXT})
    return notebook


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Code cells that hold something."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def where(source: str, count: int | None = None) -> str:
    """Name a cell so that a reader finds it: its number when executed, and its first line."""
    first = next((line for line in source.splitlines() if line.strip()), "")
    return f"cell {'' if count is None else f'[{count}] '}`{first[:60]}`"


@dataclass
class Result:
    """What became of one notebook."""

    name: str
    seconds: float
    notebook: NotebookNode  # as executed
    problems: list[str]
    figures: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One line: name, seconds, headline figures or the first problem."""
        what = f"FAILED: {'; '.join(self.problems)}" if self.problems else figures_text(self.figures)
        return f"{self.name:<24} {self.seconds:6.1f} s  {what}"
