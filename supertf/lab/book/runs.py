"""What the book does with notebooks: run them as shipped, try them quickly, store them."""

import base64
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import yaml

from supertf.errors import UserError
from supertf.files import atomic_path, read_json, write_json
from supertf.lab.book.executed import Result, cleaned, outputs_of, solved, written
from supertf.lab.book.execution import CELL_SECONDS, LANES, check_known, execute, side_by_side
from supertf.lab.book.progress import Progress

NOTEBOOKS = Path("notebooks")
SMOKE_PARAMETERS = Path("tests/smoke.yaml")
EXECUTED = Path("build/notebooks")
# pictures that are stored apart, to be shown elsewhere: which one of a notebook, counted from 0, and where
PICTURES = {"00_start_here": (2, NOTEBOOKS / "images/one_weight.png")}
SECONDS = NOTEBOOKS / "seconds.json"  # that each took where it was stored: a guide for what is left
MAX_BYTES = 600_000  # code-hosting sites give up on large notebooks


def find_notebooks(names: list[str]) -> list[Path]:
    """The notebooks of these names, or all, in number order; `UserError` when there is none such."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise UserError(f"no {NOTEBOOKS}/NN_*.ipynb here: run this from the repository's root")
    known = {path.stem: path for path in paths}
    if unknown := set(names) - set(known):
        raise UserError(f"no notebook called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else paths


def run(paths: list[Path]) -> list[Result]:
    """Execute the notebooks as shipped; the book gets each page as soon as its notebook is done.

    The first has all cores, so that there is something to read early; the others run side by side.
    """
    from supertf.lab.book.pages import empty_book, write_book

    book = Path("build/book")
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    progress = Progress(list(notebooks), EXECUTED, usual_seconds())
    results: list[Result] = []

    def begin(waiting: Sequence[str]) -> Path:
        progress.begin(waiting[:LANES])
        return write_book(book, notebooks, results, progress.running)

    empty_book(book)
    try:
        with progress.shown():
            for group in (paths[:1], paths[1:]):
                waiting = [path.stem for path in group]
                begin(waiting)
                jobs = [(path, CELL_SECONDS) for path in group]
                with contextlib.closing(side_by_side(run_one, jobs)) as found:
                    for result in found:
                        results.append(result)
                        waiting.remove(result.name)
                        begin(waiting)
                        progress.say(result.line())
                        if len(results) == 1:
                            page = book / f"{result.name}.html"
                            progress.say(f"{'':24} to be read from now on: {page}")
    finally:  # also when interrupted: then no row says for ever that it is running
        print(f"book: {begin([])}", flush=True)
    return results


def run_one(path: Path, cell_seconds: int) -> Result:
    """Execute one notebook as shipped."""
    return execute(path, EXECUTED / path.name, {}, {"passed", "unsolved"}, NOTEBOOKS, cell_seconds)


def usual_seconds() -> dict[str, float]:
    """The seconds that each notebook took where it was stored."""
    return read_json(SECONDS) if SECONDS.exists() else {}


def smoke(paths: list[Path]) -> list[Result]:
    """Execute the notebooks with quick parameters and their exercises solved."""
    wanted = smoke_parameters()
    results = []
    jobs = [(path, wanted[path.stem]) for path in paths]
    with contextlib.closing(side_by_side(smoke_one, jobs)) as found:
        for result in found:
            print(result.line(), flush=True)
            results.append(result)
    return results


def smoke_one(path: Path, parameters: dict[str, Any]) -> Result:
    """Execute one notebook with its exercises solved."""
    notebook = solved(nbformat.read(path, as_version=4))
    return execute(notebook, Path("build/smoke") / path.name, parameters, {"passed"}, NOTEBOOKS)


def smoke_parameters() -> dict[str, dict[str, Any]]:
    """Quick parameters of every notebook; `UserError` unless all names are known."""
    text = SMOKE_PARAMETERS.read_text(encoding="utf-8") if SMOKE_PARAMETERS.exists() else ""
    entries = {name: entry or {} for name, entry in (yaml.safe_load(text) or {}).items()}
    paths = find_notebooks([])
    if odd := set(entries) ^ {path.stem for path in paths}:
        raise UserError(
            f"{SMOKE_PARAMETERS} and {NOTEBOOKS} disagree on {', '.join(sorted(odd))}: one entry each"
        )
    for path in paths:
        check_known(nbformat.read(path, as_version=4), path.stem, entries[path.stem])
    return entries


def save(paths: list[Path]) -> list[Result]:
    """Re-execute the notebooks and store them in place, cleaned; a failed or too large one is left alone."""
    results = []
    with contextlib.closing(side_by_side(save_one, [(path,) for path in paths])) as found:
        for result in found:
            results.append(store(result))
            print(result.line(), flush=True)
    return results


def save_one(path: Path) -> Result:
    """Execute one notebook as shipped, its exercises unsolved."""
    return execute(path, Path("build/save") / path.name, {}, {"unsolved"}, NOTEBOOKS)


def store(result: Result) -> Result:
    """Put a notebook, its picture and its seconds where they are kept, unless there is a problem, which is
    noted on the result."""
    path = NOTEBOOKS / f"{result.name}.ipynb"
    notebook = cleaned(result.notebook)
    text = written(notebook)
    if (size := len(text.encode())) > MAX_BYTES:
        result.problems.append(
            f"{size / 1000:.0f} kB exceed {MAX_BYTES / 1000:.0f} kB: make its pictures smaller"
        )
    pictures = outputs_of(notebook, "image/png")
    number, picture = PICTURES.get(path.stem, (-1, None))
    if number >= len(pictures):
        result.problems.append(f"it has {len(pictures)} pictures, none for {picture}")
    if not result.problems:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        if picture is not None:
            with atomic_path(picture) as temporary:
                temporary.write_bytes(base64.b64decode(pictures[number]))
        write_json(SECONDS, usual_seconds() | {path.stem: round(result.seconds)})
    return result
