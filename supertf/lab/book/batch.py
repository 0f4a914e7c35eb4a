"""Notebooks run unattended, with parameters of one's own; what is done is not done again."""

import ast
import contextlib
import copy
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbformat import NotebookNode

from supertf.errors import UserError
from supertf.files import read_json, write_json
from supertf.lab.book.executed import Result, solved
from supertf.lab.book.execution import LANES, execute, side_by_side
from supertf.lab.book.runs import NOTEBOOKS, smoke_parameters
from supertf.lab.digest import package_digest

PROFILES = {
    "smoke": "quick parameters, exercises solved",
    "lab": "as shipped",
    "full": "all that notebooks else read from records, live",
}


def run_batch(
    paths: Sequence[Path],
    profile: str = "lab",
    given: Mapping[str, Any] | None = None,
    folder: Path = Path("build/batch"),
    *,
    lanes: int = LANES,
    again: bool = False,
) -> Generator[tuple[Result, bool], None, None]:
    """Run notebooks with papermill, side by side.

    Args:
        paths: the notebooks.
        profile: of `PROFILES`, what parameters they have first.
        given: more parameters, each for the notebooks that have it.
        folder: where executed notebooks go, and what became of them.
        lanes: notebooks at a time.
        again: run also what is done.

    Yields:
        What became of each, as they end, and whether that was so already: the same notebook, parameters and
        code, and no problem.

    Raises:
        UserError: an unknown profile, a parameter that no notebook has, or one of another type.
    """
    jobs, done, code = [], [], package_digest()
    for path, parameters in parameters_of(paths, profile, given or {}).items():
        notebook = nbformat.read(path, as_version=4)
        notebook = solved(notebook) if profile == "smoke" else notebook
        key = digest(notebook, parameters, code)
        before = None if again else kept(folder / path.name, key)
        if before is not None:
            done.append(before)
        else:
            statuses = {"passed"} if profile == "smoke" else {"passed", "unsolved"}
            jobs.append((notebook, folder / path.name, parameters, statuses, key))
    for result in done:
        yield result, True
    with contextlib.closing(side_by_side(run_job, jobs, lanes)) as found:
        for result in found:
            yield result, False


def run_job(
    notebook: NotebookNode, target: Path, parameters: dict[str, Any], statuses: set[str], key: str
) -> Result:
    """One notebook; what became of it is noted beside it."""
    note = target.with_suffix(".json")
    note.unlink(missing_ok=True)  # a run that is interrupted leaves none
    result = execute(notebook, target, parameters, statuses, NOTEBOOKS)
    facts = {"seconds": result.seconds, "problems": result.problems, "figures": result.figures}
    write_json(note, {"key": key, **facts})
    return result


def kept(target: Path, key: str) -> Result | None:
    """What became of a notebook in an earlier run, if it was this one and went well."""
    with contextlib.suppress(UserError, OSError, KeyError, ValueError):  # damaged, or not there
        note = read_json(target.with_suffix(".json"))
        if note["key"] == key and not note["problems"]:
            notebook = nbformat.read(target, as_version=4)
            return Result(target.stem, note["seconds"], notebook, [], note["figures"])
    return None


def digest(notebook: NotebookNode, parameters: Mapping[str, Any], code: str) -> str:
    """Of all that decides what a run gives: the cells, the parameters, and the package."""
    found = hashlib.sha256(f"{code} {json.dumps(parameters, sort_keys=True)}".encode())
    for cell in notebook.cells:
        found.update(cell.source.encode() + b"\0")
    return found.hexdigest()


def parameters_of(
    paths: Sequence[Path], profile: str, given: Mapping[str, Any]
) -> dict[Path, dict[str, Any]]:
    """By notebook, the parameters that are set; `UserError` where something given fits none of them."""
    if profile not in PROFILES:
        raise UserError(f"profile is {profile!r}; expected one of {', '.join(PROFILES)}")
    quick = smoke_parameters() if profile == "smoke" else {}
    chosen, known_anywhere = {}, set()
    for path in paths:
        defaults = defaults_of(path)
        known_anywhere |= set(defaults)
        own = copy.deepcopy(quick.get(path.stem, {}))
        if profile == "full" and "PROFILE" in defaults:
            own["PROFILE"] = "full"
        for name in set(given) & set(defaults):
            own[name] = fitting(path.stem, name, given[name], defaults[name])
        chosen[path] = own
    if unknown := set(given) - known_anywhere:
        raise UserError(
            f"no notebook here has a parameter {', '.join(sorted(unknown))}; "
            f"they have {', '.join(sorted(known_anywhere))}"
        )
    return chosen


def defaults_of(path: Path) -> dict[str, Any]:
    """A notebook's parameters and the literals that they are."""
    found = papermill.inspect_notebook(path)
    return {name: ast.literal_eval(one["default"]) for name, one in found.items()}


def fitting(notebook: str, name: str, value: Any, default: Any) -> Any:
    """A value, if it is of the default's type; whole numbers and "1e-3", a text to YAML, do for fractions."""
    if isinstance(default, float) and type(value) in (int, str):
        with contextlib.suppress(ValueError):
            return float(value)
    if default is None or value is None or type(value) is type(default):
        return value
    raise UserError(
        f"{notebook}: {name} is {value!r}, a {type(value).__name__}; expected {type(default).__name__} "
        f"such as {default!r}"
    )


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """Parameters written as YAML, "STEPS: 300" or "{STEPS: 300, WIDTH: 64}", several times."""
    found: dict[str, Any] = {}
    for text in texts:
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            value = None
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            raise UserError(f"expected parameters such as 'STEPS: 300', got {text!r}")
        found |= value
    return found
