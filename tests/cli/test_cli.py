"""The command line: how it ends, what it prints, help, completion, and how options are spelled."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from supertf.cli.main import command, main
from supertf.cli.printing import print_result, print_table
from supertf.errors import UserError

PRUNE = "--model planted --data book.txt --windows 3 --length 16 --prompt It --max_new_tokens 4"
TEXT = "--model planted --data book.txt --length 16 --max_tokens 100"


def test_a_user_error_loses_its_line_breaks_but_nothing_else(supertf, monkeypatch):
    def fail(timeout):
        raise UserError("first\n   second")

    monkeypatch.setattr("supertf.cli.doctor.report", fail)
    said = supertf("doctor")
    assert (said.code, said.err) == (2, "supertf doctor: first second\n")


def test_ctrl_c_leaves_without_a_traceback(supertf, monkeypatch):
    def interrupt(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr("supertf.cli.doctor.report", interrupt)
    said = supertf("doctor")
    assert (said.code, said.err) == (130, "\nsupertf doctor: interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes end differently on Windows")
@pytest.mark.parametrize("words", [1, 1_000_000])  # noticed only by the last flush, or in the middle
def test_a_reader_that_closes_the_pipe_is_not_an_error(words):
    """As in `supertf generate | head -1`."""
    code = f"""
import sys
from supertf.cli import doctor
from supertf.cli.main import main
sys.stdin.read()  # until the pipe is closed
doctor.print_result = lambda *_, **__: print("word " * {words})
doctor.report = lambda _: {{"ok": True}}
sys.exit(main(["doctor", "--json"]))
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


def test_without_a_command_all_are_listed(supertf):
    for group, within in (("", command), ("superweights", command.commands["superweights"])):
        said = supertf(group)
        assert said.code == 2 and said.out == supertf(f"{group} --help").out
        assert all(f"\n  {name} " in said.out for name in within.commands)
    assert supertf("--help").code == 0


def test_eval_shows_people_the_loss_over_spans_of_positions(here, supertf):
    out = supertf("eval --model planted --data validation.bin --length 16 --max_tokens 100 --by_position").out
    assert "perplexity" in out and "loss at 8-15" in out


def test_help_says_defaults_once(supertf):
    text = supertf("eval -h").out
    assert "[default: 16384" in text and "None" not in text and "--no" not in text


def test_the_package_is_the_command():
    for module in ("supertf", "supertf.cli"):
        said = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
        assert (said.returncode, said.stderr) == (0, "") and said.stdout[0].isdigit()


def test_an_option_is_spelled_with_underscores_or_dashes_and_a_list_has_several_values(here, supertf):
    line = f"prune {PRUNE} --method random --protect super '0[3, 4]' --json --matrices mlp.c_fc mlp.c_proj"
    found = supertf(line).json
    assert found["config"]["protect"] == ["1[7, 21]", "0[3, 4]"]
    assert list(found["by_kind"]) == ["mlp.c_fc", "mlp.c_proj"]
    again = supertf(line.replace("--max_new_tokens", "--max-new-tokens")).json
    assert {**again, "seconds": found["seconds"]} == found
    factors = supertf(f"superweights scale {TEXT} --weight '1[7, 21]' --factors 0.5 -1 --json").json[
        "factors"
    ]
    assert [one["factor"] for one in factors] == [0.5, -1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("supertf prune --ma", ["--matrices", "--max_new_tokens"]),
        ("supertf prune --method sp", ["sparsegpt"]),
        ("supertf superweights ab", ["ablate"]),
        ("supertf train --size sm", ["small", "smollm2-135m"]),
    ],
)
def test_the_shell_completes_names_without_loading_torch(line, words):
    code = """
import sys
from supertf.cli.main import main
try: main()
finally: assert "torch" not in sys.modules
"""
    asked = {"_SUPERTF_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == words


def test_completion_is_installed_for_the_shell_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    with pytest.raises(SystemExit) as end:
        main(["--install-completion"])
    assert not end.value.code
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_SUPERTF_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


def test_results_print_as_aligned_lines_or_json(capsys):
    print_result({"loss": 1.23456, "tokens": 7}, as_json=False)
    assert capsys.readouterr().out == "loss    1.235\ntokens  7\n"
    print_result({"loss": 1.23456}, as_json=True)
    assert capsys.readouterr().out == '{\n  "loss": 1.23456\n}\n'


def test_json_has_no_infinity_and_no_nan(capsys):
    print_result({"a": [1, float("inf")], "b": {"c": float("nan")}}, as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [1, None],
        "b": {"c": None},
    }


@pytest.mark.parametrize("columns", ["20", "200"])
def test_a_table_in_a_file_is_whole_and_one_on_a_terminal_folds_texts_but_no_number(
    capsys, monkeypatch, columns
):
    monkeypatch.setattr(Console, "_environ", os.environ)  # which datasets' map replaces by a copy
    monkeypatch.setenv("COLUMNS", columns)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    names, rows = ["weight", "value", "text"], [["1[7, 21]", "-1234567.25", "a word " * 20], ["[b]", "2", ""]]
    print_table(names, rows)
    assert capsys.readouterr().out.splitlines() == [
        "  weight          value  text",
        "  1[7, 21]  -1234567.25  " + "a word " * 19 + "a word",
        "  [b]                 2",
    ]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # what rich takes for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(names, rows)
    lines = capsys.readouterr().out.splitlines()
    assert any(" -1234567.25 " in line for line in lines) and lines[-1].split() == ["[b]", "2"]
    assert " ".join(lines).split().count("word") == 20
    assert (len(lines) > 3) == (columns == "20")
