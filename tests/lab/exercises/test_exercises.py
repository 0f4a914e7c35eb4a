"""Exercises: right answers pass, mistakes are recognized, and nothing that a reader writes does harm."""

import math
import re

import pytest
import torch

from supertf.errors import UserError
from supertf.lab.exercises import solved
from supertf.lab.exercises.catalogue import EXERCISES, exercise, names
from supertf.lab.exercises.checking import Exercise, judged, unsolved
from supertf.lab.exercises.solved import check, show_solved
from supertf.lab.notebook import CHECK_MIME

ALL = [one for several in EXERCISES.values() for one in several]
MATRIX = torch.tensor([[1.0, -9.0, 6.0], [-7.0, 0.5, 5.0], [3.0, 8.0, 10.0]])
GIVEN = {  # what a notebook gives where a value is asked for
    "share of the output peak": (5.9, 290.0, 2200.0),
    "the runner-up": ({(11, 5, 7): 6.0, (28, 5, 6): 1.02, (1, 5, 4): 1.2, (29, 5, 3): 1.01},),
    "rank in its matrix": (MATRIX, 1, 2),
    "the planted weight": ((2, 31, 40),),
}


def test_there_are_four_or_more_in_each_notebook_one_of_them_a_larger_build_and_all_names_differ():
    assert len(ALL) >= 36 and len(set(names())) == len(ALL)
    for several in EXERCISES.values():
        assert len(several) >= 4
        assert max(one.minutes for one in several) >= 12


@pytest.mark.parametrize("one", ALL, ids=names())
def test_the_solution_passes_and_each_mistake_is_told_by_its_sentence(one):
    given = GIVEN.get(one.name, ())
    assert bool(given) != bool(one.cases)
    answer = one.solution(*given) if given else one.solution
    assert judged(one, answer, *given).status == "passed"
    assert len(one.wrong) >= 3
    for sentence, mistaken in one.wrong.items():
        verdict = judged(one, mistaken(*given) if given else mistaken, *given)
        assert (verdict.status, verdict.text) == ("failed", sentence)


@pytest.mark.parametrize("one", ALL, ids=names())
@pytest.mark.parametrize("answer", [..., None, lambda *given: None], ids=["dots", "none", "stub"])
def test_as_shipped_it_is_not_solved_yet(one, answer):
    if callable(answer) and not one.cases:
        assert judged(one, answer, *GIVEN[one.name]).status == "failed"
    else:
        assert judged(one, answer, *GIVEN.get(one.name, ())).status == "unsolved"


SUM = Exercise(
    name="sums of rows",
    minutes=1,
    difficulty=1,
    hint="Add them up.",
    solution=lambda x: x.sum(1),
    wrong={"Over rows, not over columns.": lambda x: x.sum(0)},
    cases={"two by three": (torch.arange(6.0).view(2, 3),), "one number": (torch.ones(1, 1),)},
)


def forever(x):
    while True:
        pass


def stubborn(x):
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def spoil(x):
    x += 1
    return x.sum(1)


def deeper(x):
    return deeper(x)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda x: x.sum(0), "Over rows, not over columns."),
        (lambda x: x.sum(), r"two by three: the shape is \(\), and \(2,\) is expected."),
        (lambda x: x.sum(1) + 1, r"2 of 2 entries are wrong, the first at \[0\]. Add them up."),
        (lambda x: x[:, 0] + x[:, -1], r"two by three: .* Add them up. \(0 of 2 cases are right.\)"),
        (lambda x: x.sum(1) > 0, "the dtype is bool, and numbers are expected"),
        (lambda x: "three", "an array of shape .* is expected, and this is a str"),
        (lambda x: [[1, 2], [3]], "expected, and this is a list"),
        (lambda x: x.sum(5), "it raises IndexError: Dimension out of range"),
        (lambda: 3, "it raises TypeError"),
        (lambda x: 1 / 0, "it raises ZeroDivisionError"),
        (lambda x: exit(), "it raises SystemExit"),
        (deeper, "it raises RecursionError"),
        (spoil, "it changes what it is given; work on a copy"),
        (lambda x: None if len(x) == 1 else x.sum(1), "one number: it returns nothing"),
        (7, "a function is asked for, and this is a number"),
        (torch.ones(2), "a function is asked for, and this is an array of shape"),
    ],
)
def test_what_is_wrong_is_said_in_words(answer, words):
    verdict = judged(SUM, answer, limit=600)
    assert verdict.status == "failed"
    assert re.search(words, verdict.text), verdict.text
    assert "<function" not in verdict.text


@pytest.mark.parametrize("answer", [forever, stubborn])
def test_an_endless_loop_is_ended(answer):
    verdict = judged(SUM, answer, limit=0.2)
    assert verdict.text == "two by three: still running after 0.2 seconds. Does the loop end?"


def test_other_dtypes_and_lists_of_the_right_numbers_pass():
    for answer in (
        lambda x: x.double().sum(1),
        lambda x: [sum(row) for row in x.tolist()],
        lambda x: x.sum(1).numpy(),
        lambda x: x.sum(1).requires_grad_(),
        lambda x: x.sum(1) * (1 + 1e-6),
    ):
        assert judged(SUM, answer).status == "passed"


def test_whole_numbers_are_counted_exactly_and_values_are_never_told():
    count = Exercise("count", 1, 1, "Count.", lambda: 134_515_008, {})
    verdict = judged(count, 134_515_009)
    assert verdict.status == "failed" and "134515008" not in verdict.text.replace(",", "")
    assert judged(count, 134_515_008).status == "passed"


def test_a_part_of_an_answer_is_none():
    assert unsolved((1, ...)) and unsolved([None]) and not unsolved([0, 1]) and not unsolved(math.nan)


# --- over all notebooks -----------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What `check` displays, (MIME type, value, text); what is solved is remembered in a file of its own."""
    displayed = []
    monkeypatch.setattr(solved, "show", lambda *output: displayed.append(output))
    monkeypatch.setenv("SUPERTF_SOLVED", str(tmp_path / "memory" / "solved.json"))
    return displayed


def test_a_check_says_what_is_solved_here_and_in_all(shown, capsys):
    for name in ("two of four", "visible keys", "two of four"):
        check(name, exercise(name).solution)
    (mime, value, text), (_, _, second), (_, _, third) = shown
    assert (mime, value) == (CHECK_MIME, {"name": "two of four", "status": "passed"})
    assert text == f"✓ two of four: right. Solved: 1 of 4 in this notebook, 1 of {len(ALL)} in all."
    assert second.endswith(f"Solved: 1 of 4 in this notebook, 2 of {len(ALL)} in all.")
    assert third.endswith(f"2 of {len(ALL)} in all.")
    show_solved()
    line = capsys.readouterr().out
    assert line.startswith(f"solved 2 of {len(ALL)}: 00 ○○○○") and "07 ●○○○ " in line and "02 ○○●○ " in line


def test_a_check_says_how_long_an_exercise_may_take_and_what_is_wrong_with_an_answer(shown):
    check("visible keys", ...)
    check("visible keys", lambda T, past: [past + T] * T)
    check("rank in its matrix", 0, *GIVEN["rank in its matrix"])
    (_, value, text), (_, wrong, told), (_, _, number) = shown
    assert value["status"] == "unsolved" and "(3 minutes, ●○○)" in text
    assert wrong["status"] == "failed" and told.startswith("✗ visible keys: That is one n for all")
    assert number == "✗ rank in its matrix: 0 is not it. Compare magnitudes over the whole matrix, and count."


def test_a_memory_that_cannot_be_read_or_written_is_no_obstacle(shown, tmp_path, capsys):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "solved.json").write_text("{broken")
    check("visible keys", exercise("visible keys").solution)
    assert shown[-1][2].startswith("✓ visible keys: right. Solved: 1 of 4")
    (tmp_path / "memory" / "solved.json").unlink()
    (tmp_path / "memory").rmdir()
    (tmp_path / "memory").write_text("a file where a folder is needed")
    check("visible keys", exercise("visible keys").solution)
    assert shown[-1][2].startswith("✓ visible keys: right.") and "not remembered" in capsys.readouterr().out


def test_an_exercise_that_does_not_exist_is_told():
    with pytest.raises(UserError, match="there is no exercise 'three of four'; choose from share of"):
        check("three of four", 1)
