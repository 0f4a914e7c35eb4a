"""Tables for people: rich in a terminal, aligned text in a file, HTML in a notebook."""

import html
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table


def number(value: float | None) -> str:
    """Four digits, and no exponent before a million; nothing for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def is_number(cell: str) -> bool:
    """Whether a table's cell is a number, or empty."""
    try:
        return not cell or float(cell) is not None
    except ValueError:
        return False


class Tabular(ABC):
    """A result that prints itself as a table."""

    @abstractmethod
    def columns(self) -> list[str]:
        """The table's head."""

    @abstractmethod
    def rows(self) -> Iterable[Sequence[Any]]:
        """A cell for each column, line by line."""

    def caption(self) -> str:
        """A line below the table; none if empty."""
        return ""

    def cells(self) -> list[list[str]]:
        """The rows as texts."""
        return [[str(cell) for cell in row] for row in self.rows()]

    def __rich__(self) -> "Group":
        """For `rich.print`."""
        from rich.console import Group

        below = [self.caption()] if self.caption() else []
        return Group(rich_table(self.columns(), self.cells()), *below)

    def __str__(self) -> str:
        return as_text(self.__rich__())

    def _repr_html_(self) -> str:
        """For notebooks."""
        cells = self.cells()
        sides = ["right" if every else "left" for every in numeric(cells)]

        def line(tag: str, row: Sequence[str]) -> str:
            parts = zip(row, sides or ["left"] * len(row), strict=True)
            inside = (
                f"<{tag} style='text-align: {side}'>{html.escape(cell)}</{tag}>" for cell, side in parts
            )
            return f"<tr>{''.join(inside)}</tr>"

        body = "".join(line("td", row) for row in cells)
        head, below = line("th", self.columns()), html.escape(self.caption())
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>" + f"<p>{below}</p>" * bool(below)


def numeric(cells: list[list[str]]) -> list[bool]:
    """Which columns hold numbers only."""
    return [all(map(is_number, column)) for column in zip(*cells, strict=True)]


def rich_table(columns: Sequence[str], cells: list[list[str]]) -> "Table":
    """Aligned columns without a frame: texts to the left, numbers to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, right in zip(columns, numeric(cells) or [False] * len(columns), strict=True):
        table.add_column(name, justify="right" if right else "left")
    for row in cells:
        table.add_row(*row)
    return table


def as_text(shown: "RenderableType") -> str:
    """A table, or several, as plain text, as wide as it needs to be."""
    from rich.console import Console

    out = io.StringIO()
    console = Console(
        file=out, width=10_000, color_system=None, highlight=False, markup=False, force_jupyter=False
    )
    console.print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
