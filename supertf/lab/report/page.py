"""A report as one page that needs no network: figures that answer the mouse, tables, and how it was made."""

import html
import importlib.resources
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from supertf.lab import explorers

if TYPE_CHECKING:
    import plotly.graph_objects as go

TEMPLATE = "page.html.j2"
THRESHOLDS = [5, 20, 50, 200, 1000]


def report_page(name: str, found: dict[str, Any], made: dict[str, Any]) -> str:
    """The page of a report.

    Args:
        name: of the model.
        found: what `measure` gave.
        made: how it was made: `config`, `versions` and `commands`.

    Everything that a model, a file or a person named or wrote is text on the page, never markup.
    """
    from plotly.offline import get_plotlyjs

    template = jinja2.Template(
        importlib.resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = {part: in_page(part, figure) for part, figure in figures_of(found).items()}
    return template.render(name=name, found=found, made=made, figures=figures, plotly=Markup(get_plotlyjs()))


def figures_of(found: dict[str, Any]) -> dict[str, "go.Figure"]:
    """The figures of those parts that were measured."""
    weight = found["spikes"]["tried"][0]["weight"]
    without = f"without {weight}"
    figures = {
        "spikes": explorers.spike_explorer(
            {
                shown(prompt): (
                    list(map(shown, one["tokens"])),
                    {"as it is": one["as it is"], without: one["without"]},
                )
                for prompt, one in found["spikes"]["prompts"].items()
            },
            THRESHOLDS,
        ),
        "verdict": explorers.ratio_explorer(found["verdict"]["rows"], "role"),
    }
    if "times" in found["dial"]:
        figures["dial"] = explorers.dial_explorer(found["dial"]["factors"], found["dial"]["times"])
    if rows := [row for row in found["smaller"].get("rows", ()) if "times" in row]:
        figures["smaller"] = explorers.ratio_explorer(rows, "spared")
    if "states" in found["attention"]:
        lengths, states = found["attention"]["lengths"], found["attention"]["states"]
        names = {"as it is": "as it is", "without": without}
        figures["attention"] = explorers.entropy_explorer(
            {names[state]: (lengths, one["entropy"]) for state, one in states.items()}
        )
    return figures


def shown(text: str) -> str:
    """A text that plotly, which reads some tags, shows as it is, its line ends as signs."""
    return html.escape(text.replace("\n", "⏎"))


def in_page(part: str, figure: "go.Figure") -> Markup:
    """A figure as a division and the script that draws it."""
    name = f"{part}-figure"
    script = explorers.plotly_script(name, figure.to_plotly_json())
    return Markup(f'<div id="{name}" class="figure"></div>\n{script}')
