"""An exercise is checked, and what is solved is remembered over all notebooks."""

import json
import os
from pathlib import Path

from supertf.errors import UserError
from supertf.files import atomic_path, cache_dir, read_json
from supertf.lab.exercises.catalogue import EXERCISES, exercise, names
from supertf.lab.exercises.checking import judged
from supertf.lab.notebook import CHECK_MIME, show

MEMORY = "SUPERTF_SOLVED"  # the environment variable that names another file to remember in


def check(name: str, answer: object, *given: object) -> None:
    """Say what is to be said of an answer: right, not there yet, or what is wrong with it, whatever it is.

    Args:
        name: of the exercise.
        answer: the reader's function or value; `...` or None while there is none.
        given: numbers of the notebook that a value depends on.

    Raises:
        UserError: there is no exercise of that name.
    """
    one = exercise(name)
    verdict = judged(one, answer, *given)
    if verdict.status == "passed":
        remember(name)
        text = f"✓ {name}: right. {counts(name)}"
    elif verdict.status == "unsolved":
        stars = "●" * one.difficulty + "○" * (3 - one.difficulty)
        text = f"○ {name}: not solved yet ({one.minutes} minutes, {stars}). "
        text += "Fill in the cell above and run both again."
    else:
        text = f"✗ {name}: {verdict.text}"
    show(CHECK_MIME, {"name": name, "status": verdict.status}, text)


def show_solved() -> None:
    """Print which exercises are solved, a circle for each, notebook by notebook."""
    done = solved()
    rows = {
        notebook: "".join("●" if one.name in done else "○" for one in several)
        for notebook, several in EXERCISES.items()
    }
    shown = "  ".join(f"{notebook} {row}" for notebook, row in rows.items())
    print(f"solved {len(done)} of {len(names())}: {shown}")


def counts(name: str) -> str:
    """How many are solved in the exercise's notebook, and in all."""
    done = solved()
    [here] = [several for several in EXERCISES.values() if any(one.name == name for one in several)]
    own = sum(one.name in done for one in here)
    return f"Solved: {own} of {len(here)} in this notebook, {len(done)} of {len(names())} in all."


def memory() -> Path:
    """The file that is remembered in."""
    return Path(os.environ.get(MEMORY) or cache_dir() / "solved.json")


def solved() -> set[str]:
    """The names of the exercises that were ever solved; none where nothing can be read."""
    try:
        remembered = read_json(memory()).get("solved", [])
    except UserError:
        return set()
    return set(names()) & set(remembered)


def remember(name: str) -> None:
    """Note that an exercise is solved; where nothing can be written, nothing is remembered."""
    try:
        with atomic_path(memory()) as temporary:
            temporary.write_text(json.dumps({"solved": sorted(solved() | {name})}), encoding="utf-8")
    except UserError as error:
        print(f"(not remembered: {error})")
