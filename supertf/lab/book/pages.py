"""The browsable book: executed notebooks, an index and the lab's claims, made by Sphinx (see conf.py)."""

import copy
import html
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from supertf.files import atomic_path
from supertf.lab.book.executed import Result, code_cells, without_widgets
from supertf.lab.explorers import PLOTLY_MIME, plotly_script
from supertf.lab.notebook import figures_text

CLAIMS = Path("CLAIMS.md")  # in the repository's root, where there is one
PICTURES = Path("notebooks/images")  # that notebooks show
PLOTLY = "plotly.min.js"  # beside the pages, once
EXPLORER = '{library}<div id="{name}"></div>\n{script}'
PICTURE = (
    '<noscript><img alt="a picture of it" src="data:image/png;base64,{}"></noscript>'  # below an explorer
)
REFRESH = '---\nmyst:\n  html_meta:\n    "http-equiv=refresh": "10"\n---\n'  # the index, while notebooks run
INDEX = """{refresh}# supertf: the book

An interactive lab on super transformers: scalable softmax, no positional encoding, super weights. These pages
are the notebooks as executed on this machine; open them live with `make lab`.

{rows}

```{{toctree}}
:hidden:

{pages}
```
"""


def empty_book(folder: Path) -> None:
    """Take away the pages of an earlier run, and what they were made from."""
    for old in (folder, sources(folder), folder.parent / "jupyter_execute"):  # the last is myst-nb's
        shutil.rmtree(old, ignore_errors=True)


def write_book(
    folder: Path, notebooks: dict[str, NotebookNode], results: list[Result], running: Collection[str] = ()
) -> Path:
    """Make the book of a run over `notebooks` in `folder`; returns the index's path.

    Those in `results` are done; `running` are executed now, the others come later: never, if none is running.
    """
    from sphinx.cmd.build import build_main

    done = {result.name: result for result in results}
    rows, pages = [], []
    for name, notebook in notebooks.items():
        if name in done:
            pages.append(f"{name[:2]} {title_and_promise(notebook)[0]} <{name}>")
            rows.append(_done(done[name]))
            write_source(folder, done[name])
        else:
            state = "running" if name in running else "to come" if running else "not run"
            rows.append(_row(name, notebook, f'<p class="state">{state}</p>'))
    if CLAIMS.exists():
        pages.append("claims")
        _write(sources(folder) / "claims.md", CLAIMS.read_text(encoding="utf-8"))
    if PICTURES.is_dir():
        shutil.copytree(PICTURES, sources(folder) / PICTURES.name, dirs_exist_ok=True)
    texts = {"rows": "\n\n".join(rows), "pages": "\n".join(pages), "refresh": REFRESH if running else ""}
    _write(sources(folder) / "index.md", INDEX.format(**texts))
    configured = str(Path(__file__).parent)
    if build_main(["-q", "-a", "-c", configured, str(sources(folder)), str(folder)]):
        raise RuntimeError("Sphinx made no book, and says why above")
    return folder / "index.html"


def sources(folder: Path) -> Path:
    """Where lies what Sphinx makes a book from."""
    return folder.with_name(f"{folder.name}-sources")


def write_source(folder: Path, result: Result) -> None:
    """An executed notebook as Sphinx is to see it, unless it is there already."""
    path = sources(folder) / f"{result.name}.ipynb"
    if path.exists():
        return
    notebook = for_a_page(result.notebook)
    if PLOTLY in nbformat.writes(notebook) and not (folder / PLOTLY).exists():
        from plotly.offline import get_plotlyjs

        _write(folder / PLOTLY, get_plotlyjs())
    _write(path, nbformat.writes(notebook))


def for_a_page(notebook: NotebookNode) -> NotebookNode:
    """A copy that loads nothing, without widgets; explorers are drawn by plotly.js, set-up is folded."""
    notebook, count = copy.deepcopy(without_widgets(notebook)), 0
    notebook.metadata.language_info = {"name": "python", "pygments_lexer": "ipython3"}  # has % and !
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # a badge, say: its text, rather than a picture from elsewhere
            cell.source = re.sub(r"!\[([^]]*)\]\(https?:[^)]*\)", r"\1", cell.source)
        elif cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    for cell in code_cells(notebook):
        below_explorer = False
        for output in cell.outputs:
            data = output.get("data", {})
            figure, picture = data.get(PLOTLY_MIME), data.get("image/png")
            if figure is not None:
                count += 1
                name = f"explorer-{count}"
                script = plotly_script(name, figure)
                text = EXPLORER.format(library=_plotly(count), name=name, script=script)
                output.data = NotebookNode({"text/html": text})
            elif below_explorer and picture is not None:
                output.data = NotebookNode({"text/html": PICTURE.format(picture)})
            below_explorer = figure is not None
            for own in [mime for mime in data if mime.startswith("application/vnd.supertf")]:
                del data[own]  # for programs
    return notebook


def _plotly(count: int) -> str:
    """What loads plotly.js, before a page's first explorer."""
    return f'<script src="{PLOTLY}"></script>\n' if count == 1 else ""


def title_and_promise(notebook: NotebookNode) -> tuple[str, str]:
    """A notebook's title (its first heading) and the paragraph after it."""
    lines = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in [*cell.source.splitlines(), ""]
    ]
    start = next((i for i, line in enumerate(lines) if line.startswith("# ")), None)
    if start is None:
        return "", ""
    rest = "\n".join(lines[start + 1 :]).strip()
    return lines[start][2:].strip(), " ".join(rest.split("\n\n")[0].split())


def _done(result: Result) -> str:
    figures = figures_text(result.figures)
    more = f'<p class="figures">{result.seconds:.0f} s: {html.escape(figures)}</p>'
    if result.problems:
        more = f'<div class="failed">failed{_lines(result.problems)}</div>'
    return _row(result.name, result.notebook, more, link=True)


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"<div>{html.escape(text)}</div>" for text in texts)


def _row(name: str, notebook: NotebookNode, more: str, link: bool = False) -> str:
    title, promise = title_and_promise(notebook)
    title = title or name
    title = f"[{title}]({name}.ipynb)" if link else title
    return f"## {title}\n\n{promise}\n\n{more}"


def _write(path: Path, text: str) -> None:
    """Write a text unless it stands there already: Sphinx reads again what is new."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
