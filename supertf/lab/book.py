"""The book: run all notebooks, try them with quick parameters, and save them as the repository carries them.

    python -m supertf.lab.book run   [NAME ...]  as shipped, into build/notebooks and a browsable build/book
    python -m supertf.lab.book smoke [NAME ...]  exercises solved, quick parameters (tests/smoke.yaml)
    python -m supertf.lab.book save  [NAME ...]  as shipped and stored in place, with outputs (and PICTURES)

Run from the repository's root. Names are file names without the suffix; without any, all notebooks run in
number order. A failing notebook does not stop the others, none is tried twice; the exit code is 1 when any
failed. How long a cell takes is no matter of correctness: only after `CELL_SECONDS` is it given up.
"""

import argparse
import asyncio
import base64
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from supertf.errors import UserError
from supertf.files import atomic_path, read_json, write_json
from supertf.lab.book_lanes import LANES, side_by_side
from supertf.lab.book_progress import Progress, machine_load
from supertf.lab.executed import Result, cleaned, outputs_of, solved, where
from supertf.lab.executed import problems as problems_in
from supertf.lab.notebook import FIGURES_MIME

NOTEBOOKS = Path("notebooks")
SMOKE_PARAMETERS = Path("tests/smoke.yaml")
EXECUTED = Path("build/notebooks")
# pictures that are stored apart, to be shown elsewhere: which one of a notebook, counted from 0, and where
PICTURES = {"00_start_here": (1, NOTEBOOKS / "images/one_weight.png")}
SECONDS = NOTEBOOKS / "seconds.json"  # that each took where it was stored: a guide for what is left
CELL_SECONDS = 1800
MAX_BYTES = 300_000  # code-hosting sites give up on large notebooks


def find(names: list[str]) -> list[Path]:
    """The notebooks of these names, or all, in number order; `UserError` when there is none such."""
    paths = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise UserError(f"no {NOTEBOOKS}/NN_*.ipynb here: run this from the repository's root")
    known = {path.stem: path for path in paths}
    if unknown := set(names) - set(known):
        raise UserError(f"no notebook called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [known[name] for name in names] if names else paths


def execute(
    source: Path | NotebookNode,
    target: Path,
    parameters: dict[str, Any],
    statuses: set[str],
    cell_seconds: float = CELL_SECONDS,
) -> Result:
    """Run one notebook with papermill and look closely at what came out.

    `statuses` are those its exercise checks may have. A cell is given up after `cell_seconds`, and what else
    the machine was doing is told.
    """
    notebook = nbformat.read(source, as_version=4) if isinstance(source, Path) else source
    check_known(notebook, target.stem, parameters)
    target.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    running = NotebookNode(source="")

    def begins(cell: NotebookNode, cell_index: int) -> None:
        nonlocal running
        running = cell
        with contextlib.suppress(NotImplementedError):  # Windows, where nbclient cannot take Ctrl-C either
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)  # it ends all, not one notebook

    problems = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            papermill.execute_notebook(
                notebook,
                target,
                parameters,
                kernel_name="python3",
                cwd=NOTEBOOKS,
                timeout=cell_seconds,
                on_cell_execute=begins,
                config=kernels(folder),
                progress_bar=False,
            )
        except PapermillExecutionError as error:
            message = f"{error.ename}: {error.evalue}".strip()
            problems = [f"{where(error.source, error.exec_count)}: {message.splitlines()[0]}"]
        except CellTimeoutError:
            problems = [f"{where(running.source)}: timed out after {cell_seconds:,} s; {machine_load()}"]
        except DeadKernelError as error:
            problems = [f"{where(running.source)}: {str(error).splitlines()[0]}"]
    seconds = time.monotonic() - start
    executed = nbformat.read(target, as_version=4)
    problems = problems or problems_in(executed, statuses)
    figures = {} if problems else dict(outputs_of(executed, FIGURES_MIME)[-1]["figures"])
    return Result(target.stem, seconds, executed, problems, figures)


def check_known(notebook: NotebookNode, name: str, parameters: dict[str, Any]) -> None:
    """`UserError` on a parameter that the notebook does not have; papermill would go on with the default."""
    known = papermill.inspect_notebook(notebook)
    if unknown := set(parameters) - set(known):
        raise UserError(f"{name} has no parameter {', '.join(sorted(unknown))}; it has {', '.join(known)}")


def kernels(folder: str) -> Config:
    """How kernels are spoken to: by `PatientClient`, and through files in `folder` where the system can.

    That needs not even the loopback network. Notebooks that run at the same time have a folder each.
    """
    settings = {"AsyncKernelManager": {"client_class": "supertf.lab.book_kernel.PatientClient"}}
    if os.name == "posix":
        settings["KernelManager"] = {"transport": "ipc", "ip": f"{folder}/k"}
    return Config(settings)


def run(paths: list[Path]) -> list[Result]:
    """Execute the notebooks as shipped; the book gets each page as soon as its notebook is done.

    The first has all cores, so that there is something to read early; the others run side by side.
    """
    from supertf.lab.book_html import empty_book, write_index, write_page

    book = Path("build/book")
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in paths}
    progress = Progress(list(notebooks), EXECUTED, usual_seconds())
    results: list[Result] = []

    def begin(waiting: Sequence[str]) -> Path:
        progress.begin(waiting[:LANES])
        return write_index(book, notebooks, results, progress.running)

    empty_book(book)
    try:
        with progress.told():
            for group in (paths[:1], paths[1:]):
                waiting = [path.stem for path in group]
                begin(waiting)
                jobs = [(path, CELL_SECONDS) for path in group]
                with contextlib.closing(side_by_side(run_one, jobs)) as found:
                    for result in found:
                        results.append(result)
                        page = write_page(book, result)
                        waiting.remove(result.name)
                        begin(waiting)
                        progress.say(result.line())
                        if len(results) == 1:
                            progress.say(f"{'':24} to be read from now on: {page}")
    finally:  # also when interrupted: then no row says for ever that it is running
        print(f"book: {begin([])}", flush=True)
    return results


def run_one(path: Path, cell_seconds: float) -> Result:
    """Execute one notebook as shipped."""
    return execute(path, EXECUTED / path.name, {}, {"passed", "unsolved"}, cell_seconds)


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
    return execute(notebook, Path("build/smoke") / path.name, parameters, {"passed"})


def smoke_parameters() -> dict[str, dict[str, Any]]:
    """Quick parameters of every notebook; `UserError` unless all names are known."""
    text = SMOKE_PARAMETERS.read_text(encoding="utf-8") if SMOKE_PARAMETERS.exists() else ""
    entries = {name: entry or {} for name, entry in (yaml.safe_load(text) or {}).items()}
    paths = find([])
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
    return execute(path, Path("build/save") / path.name, {}, {"unsolved"})


def store(result: Result) -> Result:
    """Put a notebook, its picture and its seconds where they are kept, unless there is a problem, which is
    noted on the result."""
    path = NOTEBOOKS / f"{result.name}.ipynb"
    notebook = cleaned(result.notebook)
    text = nbformat.writes(notebook)
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
            temporary.write_text(text + "\n", encoding="utf-8")
        if picture is not None:
            with atomic_path(picture) as temporary:
                temporary.write_bytes(base64.b64decode(pictures[number]))
        write_json(SECONDS, usual_seconds() | {path.stem: round(result.seconds)})
    return result


def main(argv: list[str] | None = None) -> int:
    """0 when every notebook went well, 1 when one failed, 2 on a mistake in the call."""
    parser = argparse.ArgumentParser(prog="python -m supertf.lab.book", description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("run", "smoke", "save"))
    parser.add_argument("names", nargs="*", help="notebooks, without suffix; all if none is given")
    args = parser.parse_args(argv)
    try:
        results = {"run": run, "smoke": smoke, "save": save}[args.task](find(args.names))
    except UserError as error:
        print(f"supertf.lab.book: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("supertf.lab.book: stopped; what was done before is kept", file=sys.stderr)
        return 130
    failed = [result.name for result in results if result.problems]
    print(
        f"{len(results) - len(failed)} of {len(results)} notebooks passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
