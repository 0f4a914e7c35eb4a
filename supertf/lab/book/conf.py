"""How Sphinx makes the book of executed notebooks: pages that load nothing from a network."""

import html
from typing import Any, NoReturn

import latex2mathml.converter
import latex2mathml.exceptions
from docutils import nodes
from sphinx.application import Sphinx

# latex2mathml raises one class per kind of mistake, without a common base
LATEX_ERRORS: tuple[type[Exception], ...]
LATEX_ERRORS = tuple(error for error in vars(latex2mathml.exceptions).values() if isinstance(error, type))

project = "supertf: the book"
extensions = ["myst_nb"]
myst_enable_extensions = ["amsmath", "dollarmath"]
nb_execution_mode = "off"  # they come executed
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars
nb_code_prompt_show = "Show the set-up"
nb_code_prompt_hide = "Hide the set-up"
suppress_warnings = ["myst.header", "myst.xref_missing"]  # a page may link to one that is not made yet

html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # it would be fetched, which a browser refuses for files on disk
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which the browser draws by itself."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))


def _inline(writer: Any, node: nodes.math) -> NoReturn:
    writer.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> NoReturn:
    writer.body.append(f"<p>{mathml(node.astext(), 'block')}</p>")
    raise nodes.SkipNode


def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML, or as written where it is none."""
    try:
        return latex2mathml.converter.convert(formula, display=display)
    except LATEX_ERRORS:
        return f"<code>{html.escape(formula)}</code>"
