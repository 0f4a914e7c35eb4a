"""What an exercise is, and how a reader's answer is judged: on cases, in words, and without raising.

An answer is a function, tried on `cases`, or a value, held against what `solution` makes of the numbers that
the notebook gives. A wrong answer is compared with wrong solutions, each of which has a sentence for whoever
thought so; else it is said where the answer differs, in shape, dtype or place, and never what is right.
"""

import contextlib
import copy
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from supertf.lab.notebook import short

TIME_LIMIT = 5.0  # seconds that a reader's function may take on one case
TOLERANCE = 1e-4  # relative or absolute


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes:
        name: as in the notebook's heading.
        minutes: that it may take.
        difficulty: 1 to 3.
        hint: shown with a wrong answer that is no known misconception.
        solution: a right answer, as a function; of an exercise that asks for a value, a function of what the
            notebook gives `check`.
        wrong: by what is to be said of them, wrong answers of the same kind.
        cases: by name, what a function is tried on; none where a value is asked for.
    """

    name: str
    minutes: int
    difficulty: int
    hint: str
    solution: Callable[..., Any]
    wrong: Mapping[str, Callable[..., Any]]
    cases: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What is said of an answer.

    Attributes:
        status: "passed", "failed" or "unsolved".
        text: for the reader; empty where it is right or not there yet.
    """

    status: str
    text: str = ""


class TooLong(BaseException):
    """A reader's function went on beyond the time limit; no `Exception`, which that function may catch."""


def judged(exercise: Exercise, answer: Any, *given: Any, limit: float = TIME_LIMIT) -> Verdict:
    """What is said of an answer.

    Args:
        exercise: that it is an answer to.
        answer: a function or a value; `...`, None, or a function that gives None, as long as there is none.
        given: numbers of the notebook that a value depends on.
        limit: seconds that a function may take on one case.
    """
    if unsolved(answer):
        return Verdict("unsolved")
    if not exercise.cases:
        return of_value(exercise, answer, given)
    if not callable(answer):
        return Verdict("failed", f"a function is asked for, and this is {kind(answer)}.")
    return of_function(exercise, answer, limit)


def of_value(exercise: Exercise, answer: Any, given: tuple[Any, ...]) -> Verdict:
    """What is said of a value."""
    if callable(answer):
        return Verdict("failed", "a value is asked for, and this is a function: call it.")
    right = exercise.solution(*given)
    if difference(answer, right) is None:
        return Verdict("passed")
    for sentence, mistaken in exercise.wrong.items():
        wrong = tried(mistaken, given)
        if difference(wrong, right) and difference(answer, wrong) is None:
            return Verdict("failed", sentence)
    return Verdict("failed", f"{difference(answer, right)} {exercise.hint}")


def of_function(exercise: Exercise, answer: Callable[..., Any], limit: float) -> Verdict:
    """What is said of a function, of the first case that it fails at."""
    got = {}
    for name, arguments in exercise.cases.items():
        own = copy.deepcopy(arguments)
        try:
            with time_limit(limit):
                got[name] = answer(*own)
        except TooLong:
            return Verdict("failed", f"{name}: still running after {limit:g} seconds. Does the loop end?")
        except (Exception, SystemExit) as error:  # whatever a reader's function does
            return Verdict("failed", f"{name}: it raises {type(error).__name__}: {short(error)}")
        if got[name] is None:
            first = len(got) == 1
            return Verdict("unsolved") if first else Verdict("failed", f"{name}: it returns nothing.")
        if any(map(difference, own, arguments)):
            return Verdict("failed", f"{name}: it changes what it is given; work on a copy.")
    right = {name: exercise.solution(*copy.deepcopy(own)) for name, own in exercise.cases.items()}
    wrong = {name: text for name, one in got.items() if (text := difference(one, right[name]))}
    if not wrong:
        return Verdict("passed")
    for sentence, mistaken in exercise.wrong.items():
        if not any(difference(got[name], tried(mistaken, own)) for name, own in exercise.cases.items()):
            return Verdict("failed", sentence)
    name, text = next(iter(wrong.items()))
    passed = f" ({len(got) - len(wrong)} of {len(got)} cases are right.)" if len(got) > 1 else ""
    return Verdict("failed", f"{name}: {text} {exercise.hint}{passed}")


def tried(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What a mistaken solution gives, if anything: where the mistake is an error, no answer is like it."""
    with contextlib.suppress(Exception):
        return function(*copy.deepcopy(arguments))
    return None


def unsolved(answer: Any) -> bool:
    """Whether there is no answer yet, or only a part of one."""
    if isinstance(answer, list | tuple):
        return any(map(unsolved, answer))
    return answer is None or answer is ...


def difference(answer: Any, right: Any) -> str | None:
    """How an answer differs from what is right, in words that do not tell what is right; None if it does not.

    Fractions are compared within `TOLERANCE`, whole numbers, shapes and lengths exactly, and true and false
    with nothing else.
    """
    if isinstance(answer, Mapping) and isinstance(right, Mapping):
        if set(answer) != set(right):
            return f"the keys are {short(sorted(answer, key=str))}; other ones are expected."
        return first_difference((f"at {name!r}: ", answer[name], right[name]) for name in right)
    if is_list(answer) and is_list(right) and not is_numbers(right):
        if len(answer) != len(right):
            return f"it has {len(answer)} entries, and {len(right)} are expected."
        pairs = enumerate(zip(answer, right, strict=True), 1)
        return first_difference((f"entry {number}: ", one, other) for number, (one, other) in pairs)
    if isinstance(right, str):
        return None if isinstance(answer, str) and answer == right else f"{short(answer)} is not it."
    ours, theirs = array(answer), array(right)
    if theirs is None:
        return None if answer == right else f"{short(answer)} is not it."
    if ours is None:
        return f"{kind(theirs)} is expected, and this is {kind(answer)}."
    if ours.shape != theirs.shape:
        return f"the shape is {ours.shape}, and {theirs.shape} is expected."
    if (ours.dtype.kind == "b") != (theirs.dtype.kind == "b"):
        expected = "true and false" if theirs.dtype.kind == "b" else "numbers"
        return f"the dtype is {ours.dtype}, and {expected} are expected."
    tolerance = TOLERANCE if theirs.dtype.kind in "fc" else 0.0  # what is counted is counted exactly
    same = np.isclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)
    if same.all():
        return None
    if not ours.shape:
        return f"{short(answer)} is not it."
    first = list(map(int, np.argwhere(~same)[0]))
    return f"{(~same).sum()} of {same.size} entries are wrong, the first at {first}."


def first_difference(parts: Iterator[tuple[str, Any, Any]]) -> str | None:
    """Of several parts, each with words that say which one it is."""
    for where, answer, right in parts:
        if text := difference(answer, right):
            return where + text
    return None


def is_list(value: Any) -> bool:
    """Whether it is a list or a tuple."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_numbers(value: Any) -> bool:
    """Whether a list is a table of numbers, which tensors are compared with."""
    return (found := array(value)) is not None and found.size > 0


def array(value: Any) -> Any:
    """A number, a table of numbers or a tensor as an array; None for anything else."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    try:
        found = np.asarray(value)
    except (TypeError, ValueError):  # a ragged list
        return None
    return found if found.dtype.kind in "biufc" else None


def kind(value: Any) -> str:
    """What a value is, for a sentence."""
    if (found := array(value)) is not None:
        return f"an array of shape {found.shape}" if found.shape else "a number"
    if callable(value):
        return "a function"
    return f"a {type(value).__name__}"


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TooLong` in what runs longer, where the platform has alarms and this is the main thread."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
