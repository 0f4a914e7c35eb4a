"""Results on standard output: as JSON, as lines, or as a table for people."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from supertf.tables import is_number

LONG = 40  # characters: columns of more are folded where a table is too wide


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as JSON, or as aligned `name  value` lines."""
    if as_json:
        print(json.dumps(without_infinities(result), indent=2, allow_nan=False))
        return
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        print(f"{name:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def without_infinities(value: Any) -> Any:
    """A result with None for every number that JSON has none for."""
    if isinstance(value, dict):
        return {name: without_infinities(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(names: list[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns: texts to the left and numbers to the right.

    In a terminal that is too narrow, columns of long texts are folded. Nothing is ever cut: what is still too
    wide for it, or goes to a file, has the width it needs.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    cells = [names, *([str(cell) for cell in row] for row in rows)]
    table = Table(box=None, padding=(0, 0, 0, 2))
    for name, *column in zip(*cells, strict=True):
        width = max(map(cell_len, (name, *column)))
        table.add_column(
            name,
            justify="right" if all(map(is_number, column)) else "left",
            overflow="fold",
            width=width if width <= LONG else None,
        )
    for row in cells[1:]:
        table.add_row(*row)
    console = Console(markup=False, emoji=False, highlight=False, force_jupyter=False)
    wanted = console.measure(table, options=console.options.update(width=1_000_000))
    console.width = max(console.width, wanted.minimum) if console.is_terminal else wanted.maximum
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def named_texts(texts: list[str]) -> str:
    """Names of texts, or how many there are and the first and last."""
    return ", ".join(texts) if len(texts) <= 3 else f"{len(texts)} texts, {texts[0]} to {texts[-1]}"
