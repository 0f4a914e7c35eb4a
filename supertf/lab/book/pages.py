"""The browsable book: one page per executed notebook and an index, all readable without network."""

import copy
import html
import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import latex2mathml.converter
import latex2mathml.exceptions
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from supertf.files import atomic_path
from supertf.lab.book.executed import Result, code_cells, without_widgets
from supertf.lab.explorers import PLOTLY_MIME
from supertf.lab.notebook import figures_text

# latex2mathml raises one class per kind of mistake, without a common base
LATEX_ERRORS: tuple[type[Exception], ...]
LATEX_ERRORS = tuple(error for error in vars(latex2mathml.exceptions).values() if isinstance(error, type))
PAGE_STYLE = """<style>
body.jp-Notebook { max-width: 62rem; margin: 0 auto; padding: 1.5rem; overflow: visible; }
.jp-RenderedHTMLCommon { line-height: 1.6; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
nav.book { max-width: 62rem; margin: 1rem auto 0; padding: 0 1.5rem; font: 0.95rem system-ui, sans-serif; }
nav.book a { color: #1565c0; }
</style>"""
PLOTLY = "plotly.min.js"  # beside the pages, once
EXPLORER = """<div id="{name}"></div>
<noscript><img alt="a picture of it" src="data:image/png;base64,{picture}"></noscript>
<script>Plotly.newPlot("{name}", {data}, {layout}, {{responsive: true, displaylogo: false}});</script>"""
BACK = '<nav class="book"><a href="index.html">All notebooks</a></nav>'
INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{refresh}
<title>supertf: the book</title>
<style>
:root {{ color-scheme: light dark; --failed: #b71c1c; --link: #1565c0; --quiet: #616161; }}
body {{ font: 1rem/1.55 system-ui, sans-serif; max-width: 66rem; margin: 3rem auto; padding: 0 1.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.6rem 0.8rem; border-top: 1px solid #8884; }}
th {{ font-weight: 600; border: 0; }}
.title {{ width: 20%; }}
.seconds {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
td p {{ margin: 0; }}
.figures {{ font-size: 0.9rem; min-width: 17rem; }}
.failed {{ color: var(--failed); }}
.problems {{ border: 0; padding-top: 0; overflow-wrap: anywhere; }}
.quiet {{ color: var(--quiet); }}
a {{ color: var(--link); }}
@media (prefers-color-scheme: dark) {{
  :root {{ --failed: #ff8a80; --link: #90caf9; --quiet: #bdbdbd; }}
}}
@media (max-width: 50rem) {{
  body {{ margin: 1rem auto; padding: 0 1rem; }}
  thead {{ display: none; }}
  tr, td {{ display: block; text-align: left !important; }}
  td {{ border: 0; padding: 0.15rem 0; }}
  tr:not(.more) {{ border-top: 1px solid #8884; padding-top: 0.6rem; }}
  tr {{ padding-bottom: 0.6rem; }}
  .seconds:not(:empty)::after {{ content: " s"; }}
}}
</style></head>
<body><h1>supertf: the book</h1>
<p>An interactive lab on super transformers: scalable softmax, no positional encoding, super weights.
These pages are the notebooks as executed on this machine; open them live with <code>make lab</code>.</p>
<table>
<thead><tr><th class="title">Notebook</th><th>What it shows</th><th class="seconds">Seconds</th>
<th>Headline figures</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""
REFRESH = '\n<meta http-equiv="refresh" content="10">'  # while notebooks run, the index is read again


def empty_book(folder: Path) -> None:
    """Take the pages of an earlier run out of `folder`."""
    for old in folder.glob("*.html"):
        old.unlink()


def write_page(folder: Path, result: Result) -> Path:
    """Render an executed notebook into `folder`; returns the page's path."""
    path, text = folder / f"{result.name}.html", page(result.name, result.notebook)
    if PLOTLY in text and not (folder / PLOTLY).exists():
        from plotly.offline import get_plotlyjs

        with atomic_path(folder / PLOTLY) as temporary:
            temporary.write_text(get_plotlyjs(), encoding="utf-8")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_index(
    folder: Path, notebooks: dict[str, NotebookNode], results: list[Result], running: Collection[str] = ()
) -> Path:
    """Render the index of a run over `notebooks`; returns its path.

    Those in `results` are done; `running` are executed now, the others come later: never, if none is running.
    """
    done = {result.name: result for result in results}
    rows = []
    for name, notebook in notebooks.items():
        if name in done:
            rows.append(_done(done[name]))
        else:
            state = "running" if name in running else "to come" if running else "not run"
            rows.append(_row(name, notebook, figures=f'<span class="quiet">{state}</span>'))
    path = folder / "index.html"
    with atomic_path(path) as temporary:
        refresh = REFRESH if running else ""
        temporary.write_text(INDEX.format(rows="\n".join(rows), refresh=refresh), encoding="utf-8")
    return path


def page(name: str, notebook: NotebookNode) -> str:
    """One notebook as a page that loads nothing from elsewhere: formulas as MathML, pictures inside."""
    exporter = HTMLExporter(template_name="lab", exclude_anchor_links=True)
    exporter.register_filter("markdown2html", _markdown)
    live, explorers = with_explorers(without_widgets(notebook))
    text, _ = exporter.from_notebook_node(live, {"metadata": {"name": name}})
    soup = BeautifulSoup(text, "html.parser")
    for script in soup.find_all("script"):
        if not script.find_parent(class_="jp-OutputArea"):  # the template's own, from content networks
            script.decompose()
    for link in soup.find_all("a", href=re.compile(r"^\d\d_\w+\.ipynb")):  # to another notebook
        link["href"] = str(link["href"]).replace(".ipynb", ".html", 1)
    assert soup.head is not None and soup.body is not None  # the template has both
    soup.head.append(BeautifulSoup(PAGE_STYLE, "html.parser"))
    if explorers:
        soup.head.append(soup.new_tag("script", src=PLOTLY))
    soup.body.insert(0, BeautifulSoup(BACK, "html.parser"))
    return str(soup)


def with_explorers(notebook: NotebookNode) -> tuple[NotebookNode, int]:
    """A copy in which explorers are drawn by plotly.js, and how many there are."""
    notebook, count = copy.deepcopy(notebook), 0
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if (figure := output.get("data", {}).get(PLOTLY_MIME)) is not None:
                count += 1
                parts = {part: json.dumps(figure[part]).replace("</", "<\\/") for part in ("data", "layout")}
                picture = output.data["image/png"]
                output.data["text/html"] = EXPLORER.format(name=f"explorer-{count}", picture=picture, **parts)
    return notebook, count


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


class MathRenderer(IPythonRenderer):
    """nbconvert's Markdown renderer, loading nothing: formulas become MathML, drawn by the browser."""

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if url.startswith(("http:", "https:")):
            return html.escape(text)  # a badge, say: its text, rather than a picture from elsewhere
        return super().image(text, url, title)

    def inline_math(self, body: str) -> str:
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        return _mathml(body, "block")


def _mathml(formula: str, display: str) -> str:
    try:
        return latex2mathml.converter.convert(formula, display=display)
    except LATEX_ERRORS:
        return f"<code>{html.escape(formula)}</code>"  # shown as written rather than not at all


def _markdown(source: str) -> str:
    return MarkdownWithMath(renderer=MathRenderer(escape=False, exclude_anchor_links=True)).render(source)


def _done(result: Result) -> str:
    figures = _lines(figures_text({key: value}) for key, value in result.figures.items())
    if result.problems:
        figures = '<span class="failed">failed</span>'
    row = _row(result.name, result.notebook, f"{result.seconds:.0f}", figures, link=True)
    if result.problems:
        problems = _lines(result.problems)
        row += f'\n<tr class="more"><td class="problems failed" colspan="4">{problems}</td></tr>'
    return row


def _lines(texts: Iterable[str]) -> str:
    return "".join(f"<div>{html.escape(text)}</div>" for text in texts)


def _row(name: str, notebook: NotebookNode, seconds: str = "", figures: str = "", link: bool = False) -> str:
    title, promise = title_and_promise(notebook)
    title = html.escape(title or name)
    title = f'<a href="{name}.html">{title}</a>' if link else title
    first = f'<td>{title}</td><td>{_markdown(promise)}</td><td class="seconds">{seconds}</td>'
    return f'<tr>{first}<td class="figures">{figures}</td></tr>'
