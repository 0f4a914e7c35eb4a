"""The command line: mistakes are one line and exit code 2, booleans are what they say."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from supertf.cli import main as cli
from supertf.errors import UserError


def test_boolean_flags_mean_what_they_say():
    """The original project's `type=bool` made "False" true."""
    assert [cli.boolean(text) for text in ("True", "true", "1", "False", "false", "0")] == [True] * 3 + [
        False
    ] * 3
    with pytest.raises(argparse.ArgumentTypeError, match="expected True or False, got 'maybe'"):
        cli.boolean("maybe")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "unknown command 'nonsense'"),
        (["data", "--stride", "0"], "argument --stride: expected a whole number of at least 1, got 0"),
        (["data", "--max_length", "abc"], "expected a whole number, got 'abc'"),
        (["data", "--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["train", "--ssmax", "maybe"], "expected True or False, got 'maybe'"),
        (["train", "--train_data", "absent.bin"], "no token file absent.bin"),
        (["generate", "--model", "absent/folder/model"], "no model at absent/folder/model"),
        (["generate", "--weights", "int3"], "invalid choice: 'int3'"),
        (
            ["generate", "--seed", "-1"],
            "argument --seed: expected a whole number from 0 to 2**63 - 1, got '-1'",
        ),
        (["data", "--seed", str(2**64)], f"got '{2**64}'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_user_error_loses_its_line_breaks_but_nothing_else(capsys, monkeypatch):
    def fail(args):
        raise UserError("first\n   second")

    monkeypatch.setattr("supertf.cli.doctor_command.run", fail)
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "supertf doctor: first second\n"


def test_ctrl_c_leaves_without_a_traceback(capsys, monkeypatch):
    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("supertf.cli.doctor_command.run", interrupt)
    assert cli.main(["doctor"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes end differently on Windows")
@pytest.mark.parametrize("words", [1, 1_000_000])  # noticed only by the last flush, or in the middle
def test_a_reader_that_closes_the_pipe_is_not_an_error(words):
    """As in `supertf generate | head -1`."""
    code = f"""
import sys
from supertf.cli import main as cli
from supertf.cli import doctor_command as cli_doctor
sys.stdin.read()  # until the pipe is closed
cli_doctor.run = lambda args: print("word " * {words}) or 0
sys.exit(cli.main(["doctor"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    process.stdin.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)
    process.stderr.close()


def test_help_lists_every_command_and_says_defaults_once(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in cli.COMMANDS)
    with pytest.raises(SystemExit):
        cli.main(["eval", "--help"])
    text = capsys.readouterr().out
    assert "(default: 16384)" in text and "None" not in text


def test_results_print_as_aligned_lines_or_json(capsys):
    cli.print_result({"loss": 1.23456, "tokens": 7}, as_json=False)
    assert capsys.readouterr().out == "loss    1.235\ntokens  7\n"
    cli.print_result({"loss": 1.23456}, as_json=True)
    assert capsys.readouterr().out == '{\n  "loss": 1.23456\n}\n'


def test_json_has_no_infinity_and_no_nan(capsys):
    cli.print_result({"a": [1, float("inf")], "b": {"c": float("nan")}}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [1, None],
        "b": {"c": None},
    }
