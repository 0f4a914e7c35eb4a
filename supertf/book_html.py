"""The browsable book: one page per executed notebook and an index, all readable without network."""

import html
from pathlib import Path
from typing import TYPE_CHECKING

import latex2mathml.converter
import latex2mathml.exceptions
from bs4 import BeautifulSoup
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from supertf.executed import without_widgets
from supertf.files import atomic_path
from supertf.notebook import figures_text

if TYPE_CHECKING:
    from supertf.book import Result

# latex2mathml raises one class per kind of mistake, without a common base
LATEX_ERRORS = tuple(error for error in vars(latex2mathml.exceptions).values() if isinstance(error, type))
PAGE_STYLE = """<style>
body.jp-Notebook { max-width: 62rem; margin: 0 auto; padding: 1.5rem; overflow: visible; }
.jp-RenderedHTMLCommon { line-height: 1.6; }
.jp-OutputArea-output img { max-width: 100%; height: auto; }
nav.book { max-width: 62rem; margin: 1rem auto 0; padding: 0 1.5rem; font: 0.95rem system-ui, sans-serif; }
nav.book a { color: #1565c0; }
</style>"""
BACK = '<nav class="book"><a href="index.html">All notebooks</a></nav>'
INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>supertf: the book</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.55 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1.5rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.6rem 0.8rem; border-bottom: 1px solid #8884; }}
th {{ font-weight: 600; }}
td.seconds {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
td p {{ margin: 0; }}
.figures {{ font-size: 0.9rem; }}
.figures div, .name {{ white-space: nowrap; }}
.failed {{ color: #c62828; }}
</style></head>
<body><h1>supertf: the book</h1>
<p>An interactive lab on super transformers: scalable softmax, no positional encoding, super weights.
These pages are the notebooks as executed on this machine; open them live with <code>make lab</code>.</p>
<table>
<thead><tr><th>Notebook</th><th>What it shows</th><th>Seconds</th><th>Headline figures</th></tr></thead>
<tbody>
{rows}
</tbody></table></body></html>
"""


def write_book(results: list["Result"], folder: Path) -> Path:
    """Render the executed notebooks and an index into `folder`; returns the index's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.html"):
        old.unlink()
    for result in results:
        with atomic_path(folder / f"{result.name}.html") as temporary:
            temporary.write_text(page(result.name, result.notebook), encoding="utf-8")
    index = folder / "index.html"
    with atomic_path(index) as temporary:
        temporary.write_text(INDEX.format(rows="\n".join(map(_row, results))), encoding="utf-8")
    return index


def page(name: str, notebook: NotebookNode) -> str:
    """One notebook as a page that loads nothing from elsewhere: formulas as MathML, pictures inside."""
    exporter = HTMLExporter(template_name="lab", exclude_anchor_links=True)
    exporter.register_filter("markdown2html", _markdown)
    text, _ = exporter.from_notebook_node(without_widgets(notebook), {"metadata": {"name": name}})
    soup = BeautifulSoup(text, "html.parser")
    for script in soup.find_all("script"):
        if not script.find_parent(class_="jp-OutputArea"):  # the template's own, from content networks
            script.decompose()
    soup.head.append(BeautifulSoup(PAGE_STYLE, "html.parser"))
    soup.body.insert(0, BeautifulSoup(BACK, "html.parser"))
    return str(soup)


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


def _row(result: "Result") -> str:
    title, promise = title_and_promise(result.notebook)
    if result.problems:
        figures = f'<div class="failed">{html.escape("; ".join(result.problems))}</div>'
    else:
        figures = "".join(
            f"<div>{html.escape(figures_text({k: v}))}</div>" for k, v in result.figures.items()
        )
    link = f'<a href="{result.name}.html">{html.escape(title or result.name)}</a>'
    return (
        f'<tr><td>{link}</td><td>{_markdown(promise)}</td><td class="seconds">{result.seconds:.0f}</td>'
        f'<td class="figures">{figures}</td></tr>'
    )
