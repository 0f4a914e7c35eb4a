"""Tables and numbers for people, on the command line."""

from collections.abc import Iterable, Sequence
from typing import Any


def number(value: float) -> str:
    """Four digits, and no exponent before a million."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.4g}"


def print_table(names: list[str], rows: Iterable[Sequence[Any]]) -> None:
    """Aligned columns: texts to the left, numbers to the right."""
    cells = [names, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [all(is_number(cell) for cell in column[1:]) for column in zip(*cells, strict=True)]
    for row in cells:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        print("  " + "  ".join(aligned).rstrip())


def is_number(cell: str) -> bool:
    """Whether a table's cell is a number, or empty."""
    try:
        return not cell or float(cell) is not None
    except ValueError:
        return False
