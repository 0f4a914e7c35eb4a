"""What every notebook needs besides its idea: set-up, parameters in range, headline figures.

Parameters are two cells: one tagged `parameters`, which papermill's values come after, and one that says with
`in_range`, `one_of` and `holding` between which values the notebook's claims hold, and why.

An exercise is three cells. First code, tagged `exercise`: a stub that runs as it ships, its answer `...`
or a function that returns None. Then code, `check("name", answer)`, see `supertf.lab.exercises`. Then
Markdown: a folded `<details>` holding a solution as one ```python block, which replaces the stub's whole
source: `python -m supertf.lab.book smoke` runs every notebook with its stubs replaced by the solutions and
fails unless each check passes, `run` runs it as shipped and fails if a check says "wrong".

Figures and checks are stored in the outputs of their cells, under a MIME type of their own beside the
plain text that is shown, so the executed notebook itself is the record.
"""

import math
import platform
import random
import sys
from collections.abc import Iterable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from supertf.errors import UserError

if TYPE_CHECKING:
    import torch

FIGURES_MIME = "application/vnd.supertf.figures+json"
CHECK_MIME = "application/vnd.supertf.check+json"


def setup(seed: int = 0) -> tuple["torch.device", "torch.dtype"]:
    """Seed Python, numpy and torch, and print one line of versions, device, dtype and why.

    Args:
        seed: of all three.

    Returns:
        The device to compute on, and the dtype for autocast there.
    """
    import numpy as np
    import torch

    from supertf.device import pick_device_dtype

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    device, dtype, reason = pick_device_dtype()
    if "google.colab" in sys.modules and device.type == "cpu":
        reason += "; for a free GPU: Runtime > Change runtime type > T4 GPU"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "matplotlib", "ipywidgets"))
    print(f"Python {platform.python_version()}, {versions}; seed {seed}; {reason}")
    draw_quickly()
    return device, dtype


def draw_quickly() -> None:
    """Draw figures as fast as sliders need it: letters as they are, without fitting each to the pixels, and
    every figure once, where the inline backend would draw it once more to trim it.

    The lab's figures fill their space by themselves. Outside notebooks only letters are concerned.
    """
    import matplotlib
    from IPython import get_ipython
    from IPython.core.pylabtools import select_figure_formats
    from matplotlib_inline.config import InlineBackend

    matplotlib.rcParams["text.hinting"] = "no_hinting"
    shell = get_ipython()
    if shell is not None:
        inline = InlineBackend.instance(parent=shell)
        inline.print_figure_kwargs = {"bbox_inches": None}  # type: ignore[dict-item]  # for a backend that is loaded later
        select_figure_formats(shell, inline.figure_formats, bbox_inches=None)


def in_range(
    least: float | None, most: float | None = None, /, why: str = "", **parameters: float | list[float]
) -> None:
    """Refuse parameters outside a range: `in_range(200, 4000, "why", STEPS=STEPS)`.

    Args:
        least, most: bounds, None for none; where they are whole, so are the numbers.
        why: what is the matter outside.
        parameters: numbers, or lists of them, by name.

    Raises:
        UserError: one is out of range, or no such number.
    """
    whole = not any(isinstance(bound, float) for bound in (least, most))
    wanted = "a whole number" if whole else "a number"
    wanted += "" if least is None else f" of at least {least:,}"
    wanted += "" if most is None else f"{'' if least is None else ' and'} at most {most:,}"
    for name, value in parameters.items():
        for one in _entries(name, value, wanted):
            number = isinstance(one, int if whole else int | float) and not isinstance(one, bool)
            inside = number and (least is None or one >= least) and (most is None or one <= most)
            _refuse_unless(inside, name, value, wanted, why)


def one_of(choices: Iterable[Any], /, why: str = "", **parameters: Any) -> None:
    """Refuse parameters that are no choice: `one_of(["lab", "full"], PROFILE=PROFILE)`.

    Args:
        choices: what there is.
        why: there is nothing else.
        parameters: values by name; of a list each entry counts, of a dict each key.

    Raises:
        UserError: one is none of the choices.
    """
    choices = list(choices)
    wanted = f"one of {', '.join(map(repr, choices))}"
    for name, value in parameters.items():
        for one in _entries(name, value, wanted):
            _refuse_unless(one in choices, name, value, wanted, why)


def holding(needed: Iterable[Any], /, why: str = "", **parameters: list[Any]) -> None:
    """Refuse lists in which something is missing: `holding([0, 1], "why", FACTORS=FACTORS)`.

    Args:
        needed: what has to occur.
        why: the notebook's claims are about it.
        parameters: lists by name.

    Raises:
        UserError: one is no list, or lacks something.
    """
    needed = list(needed)
    wanted = f"a list with {', '.join(map(repr, needed))} in it"
    for name, value in parameters.items():
        there = isinstance(value, list) and all(one in value for one in needed)
        _refuse_unless(there, name, value, wanted, why)


def _entries(name: str, value: Any, wanted: str) -> list[Any]:
    """What a parameter is judged by: itself, or what is in it."""
    if not isinstance(value, list | dict):
        return [value]
    _refuse_unless(bool(value), name, value, f"{wanted}, or several in a list")
    return list(value)


def _refuse_unless(right: bool, name: str, value: Any, wanted: str, why: str = "") -> None:
    if not right:
        raise UserError(f"{name} is {short(repr(value))}; expected {wanted}{': ' * bool(why)}{why}")


def record(name: str, **figures: float | int | str | bool) -> None:
    """Show a notebook's headline figures and store them in the cell's output, for the book.

    Args:
        name: the notebook's, without the suffix.
        figures: numbers (also of numpy or torch), strings or booleans, by name.

    Raises:
        ValueError: there is none, or one is not finite.
        TypeError: one is of another type.
    """
    if not figures:
        raise ValueError("record(name, **figures) needs at least one figure")
    plain = {key: _plain(key, value) for key, value in figures.items()}
    show(FIGURES_MIME, {"name": name, "figures": list(plain.items())}, f"{name}: {figures_text(plain)}")


def figures_text(figures: dict[str, Any]) -> str:
    """Figures on one line: `ratio 5.12, parameters 134,515,008`."""
    shown = {
        key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in figures.items()
    }
    shown |= {key: f"{value:,}" for key, value in figures.items() if type(value) is int}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shown.items())


def show(mime: str, value: dict[str, Any], text: str) -> None:
    """Display plain text with a machine-readable twin."""
    from IPython.display import display

    display({"text/plain": text, mime: value}, raw=True)


def _plain(key: str, value: Any) -> float | int | str | bool:
    """A number of any library as a Python number, rounded to 6 significant digits when it is a float."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"figure {key!r} is {value}; a headline figure is finite")
        return float(f"{value:.6g}")
    if isinstance(value, int | str):
        return value
    raise TypeError(f"figure {key!r} is a {type(value).__name__}; expected a number, a string or a boolean")


def short(value: Any) -> str:
    """A text of at most 80 letters, on one line."""
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
