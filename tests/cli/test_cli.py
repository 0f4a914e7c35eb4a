"""The command line: mistakes are one line and exit code 2, booleans are what they say, help is quick."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console

from supertf.cli.main import command, main
from supertf.cli.printing import print_result, print_table
from supertf.errors import UserError

SIDE = "--model planted --data book.txt --windows 3 --length 16 --prompt It --max_new_tokens 4"
TEXT = "--model planted --data book.txt --length 16 --max_tokens 100"
DATA = "data --data_name book.txt --tokenizer bytes"
TRAIN = "train --steps 1 --max_len 16"
REFUSED = [  # a command, and what it says
    ("nonsense", "supertf: No such command 'nonsense'; `supertf --help` lists the options"),
    ("--nonsense", "supertf: No such option: --nonsense"),
    ("trian", "Did you mean 'train'?"),
    ("data --no_such_flag", "No such option: --no_such_flag; `supertf data --help` lists the options"),
    ("data --max_length", "Option '--max_length' requires an argument"),
    ("data --max_length abc", "Invalid value for '--max_length': Input should be a valid integer"),
    ("data --max_length 0", "Invalid value for '--max_length': Input should be greater than or equal to 1"),
    ("data --stride -1", "Invalid value for '--stride'"),
    ("data --split_ratio half", "Invalid value for '--split_ratio': Input should be a valid number"),
    ("data --seed -1", "Input should be greater than or equal to 0"),
    (f"data --seed {2**63}", f"Input should be less than or equal to {2**63 - 1}"),
    ("data book.txt", "Got unexpected extra argument"),
    ("data --data_name mark.jsonl --tokenizer bytes", "no text in the corpus"),
    ("data --data_name mark.jsonl --tokenizer bpe:270", "no text in the corpus"),
    ("data --data_name missing.txt --tokenizer bytes", "no file or folder 'missing.txt'"),
    ("data --data_name book.txt --tokenizer bpe:many", "expected bpe:SIZE with a vocabulary size"),
    ("data --data_name book.txt --tokenizer bpe:10", "10 is too small"),
    ("data --data_name book.txt --tokenizer book.txt", "book.txt is not a readable JSON file"),
    ("data --data_name book.txt --tokenizer nothing", "no tokenizer called 'nothing'"),
    (f"{DATA} --stride 2000", "stride 2000"),
    (f"{DATA} --split_ratio 1.5", "split_ratio is 1.5"),
    (f"{DATA} --output_dir book.txt", "book.txt is a file"),
    ("train --ssmax maybe", "Invalid value for '--ssmax': expected True or False, got 'maybe'"),
    ("train --size huge", "expected one of lab, small, default, large, gpt2, smollm2-135m, got 'huge'"),
    ("train --attention hard", "Invalid value for '--attention': expected one of softmax, ssmax, "),
    ("train --ssmax False --attention ssmax", "means --attention softmax, but --attention is ssmax"),
    ("train --use_pos_enc True --position none", "give one of them"),
    ("train --train_data absent.bin", "no token file absent.bin; make one with `supertf data`"),
    ("train --max_len 100000", "fewer than"),
    (f"{TRAIN} --vocab_size 100", "vocabulary has 100 tokens"),
    (f"{TRAIN} --lr -1", "lr is -1.0"),
    (f"{TRAIN} --save_model -5", "save_every is -5"),
    (f"{TRAIN} --device abacus", "unknown device"),
    (f"{TRAIN} --precision fp4", "unknown dtype"),
    (f"{TRAIN} --precision fp16", "not for CPUs"),
    ("generate --model absent/folder/model", "no model at absent/folder/model"),
    ("generate --model planted --prompt=", "the prompt is empty"),
    ("generate --weights int3", "expected one of float32, bfloat16, int8, int4, got 'int3'"),
    ("generate --weights int4 --device cuda", "--weights int4 runs on the CPU, not on cuda"),
    ("eval --model planted --data absent.txt", "absent.txt"),
    ("superweights prove", "supertf superweights: No such command 'prove'"),
    ("superweights find --model planted --prompt=", "the prompt is empty"),
    ("superweights find --model planted --prompt " + "a" * 70, "more than the model's context of 64"),
    ("superweights find --stream True --device cuda", "--stream True computes on the CPU, not on cuda"),
    ("superweights find --model planted --tokenizer smollm", "no tokenizer called 'smollm'"),
    (f"superweights ablate {TEXT} --weight 1[7", "coordinate '1[7'; expected layer[out, in]"),
    (f"superweights ablate {TEXT} --weight 1[7,99]", "the down projection of layer 1 is 16 x 40"),
    (f"superweights ablate {TEXT} --weight 1[7,21] --controls 640", "640 random controls asked for"),
    (f"superweights ablate {TEXT} --weight 1[7,21] --data absent.txt", "absent.txt"),
    (f"superweights scale {TEXT} --weight 3[0,0]", "the model has layers 0 to 2"),
    (f"superweights scale {TEXT} --weight 1[7,21] --factors inf", "factors are [inf]"),
    (f"superweights scale {TEXT} --factors much", "Invalid value for '--factors'"),
    (f"superweights scale {TEXT} --max_tokens 1 --weight 1[7,21]", "has 1 tokens: too short to predict any"),
    ("superweights verify planted", "nothing is published of planted; expected one of huggyllama/llama-7b, "),
    ("superweights verify gpt2", "could not fetch model 'openai-community/gpt2'"),
    (f"prune {SIDE} --sparsity 1.5", "sparsity is 1.5, expected 0 (remove nothing) to 1"),
    (f"prune {SIDE} --method prune", "Invalid value for '--method': expected one of random, "),
    (f"prune {SIDE} --pattern 4:2", "pattern '4:2'; expected n:m"),
    (f"prune {SIDE} --pattern 2:3", "do not divide into groups of 3"),
    (f"prune {SIDE} --pattern 2:4 --sparsity 0.3", "a pattern is both, leave them out"),
    (f"prune {SIDE} --method channels --pattern 2:4", "--pattern is for random, "),
    (f"prune {SIDE} --method gate --save x", "--save is for random, "),
    (f"prune {SIDE} --method gate --matrices mlp.c_fc", "--matrices is for "),
    (f"prune {SIDE} --refit_windows 2", "inputs, gate, top, not for wanda"),
    (f"prune {SIDE} --method channels --refit_windows 99", "and 1712 others to calibrate with"),
    (f"prune {SIDE} --score random", "--score is for channels, heads, not for wanda"),
    (f"prune {SIDE} --method magnitude --calibration_windows 2", "magnitude needs no calibration"),
    (f"prune {SIDE} --method heads --score random --calibration_windows 2", "heads by random needs no"),
    (
        f"prune {SIDE} --protect supr",
        "--protect supr; expected super, none or weights such as '11[507, 1229]'",
    ),
    (f"prune {SIDE} --protect super none", "--protect super none; expected"),
    (f"prune {SIDE} --protect 9[0,0]", "the model has layers 0 to 2"),
    (f"prune {SIDE} --protect", "Option '--protect' requires an argument"),
    (
        f"prune {SIDE} --matrices mlp.down",
        "matrices of kinds ['mlp.down']; choose one or more of attn.c_attn",
    ),
    (f"prune {SIDE} --data absent.txt", "absent.txt"),
    (f"prune {SIDE} --windows 99", "has 1021 tokens, and 1585 are to be held out and 128 others to"),
    (f"prune {SIDE} --method channels --sparsity 1 --protect none", "the plan removes all channels"),
    (f"prune {SIDE} --method channels --sparsity 1", "1 channels of layer 1 are protected"),
    (f"prune {SIDE} --save planted", "--save planted: there is something of that name already"),
    (f"quantize {SIDE} --scheme '4 bits'", "scheme '4 bits'; expected intBITS block=BLOCK"),
    (f"quantize {SIDE} --scheme int9", "bits is 9, expected a whole number from 2 to 8"),
    (f"quantize {SIDE} --scheme 'int4 block=7'", "do not divide into blocks of 7"),
    (f"quantize {SIDE} --scheme 'int4 clip=much'", "clip is 'much'"),
    (f"quantize {SIDE} --calibration_windows 2", "clip=none needs no calibration, only clip=output"),
    (f"quantize {SIDE} --protect 1[7", "--protect 1[7; expected super, none or weights"),
    (f"quantize {SIDE} --protect 1[70,0]", "the down projection of layer 1 is 16 x 40"),
    ("experiment run", "supertf experiment run: Missing argument 'NAME'"),
    ("experiment run nonsense", "unknown experiment 'nonsense'; choose from "),
    ("experiment run recall --variants middle", "has no variant 'middle'"),
    ("experiment run recall --seeds 0 -1", "Invalid value for '--seeds'"),
    ("experiment run recall --set steps", "expected NAME=VALUE, as in steps=100, got 'steps'"),
    ("experiment run recall --set steps=many", "got 'many'; expected a number"),
    ("experiment run recall --record --quick --seeds 0", "leave out --seeds and --quick"),
    ("experiment run all --output x.json", "--output takes the results of one experiment"),
    ("bench", "Missing argument 'train|generate|"),
    ("bench speed", "expected one of train, generate, prune, data, superweights, busy, got 'speed'"),
    ("bench train --tokens 8", "--tokens is not for the benchmark train, which takes --repeats"),
    ("fetch nonsense", "choose from smollm2-135m, gpt2-vocabulary"),
]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_mistake_is_one_line_and_exit_code_2(here, supertf, monkeypatch, line, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    (here / "mark.jsonl").write_bytes(b"\xef\xbb\xbf")  # a byte order mark and nothing else
    said = supertf(line)
    assert said.code == 2 and said.out == ""
    assert said.line.startswith("supertf") and message in said.line
    assert said.err.count("supertf " + line.partition(" ")[0] + ":") <= 1
    assert not (here / "runs").exists()


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


def test_help_says_defaults_once(supertf):
    text = supertf("eval -h").out
    assert "[default: 16384" in text and "None" not in text and "--no" not in text


def test_the_package_is_the_command():
    for module in ("supertf", "supertf.cli"):
        said = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True)
        assert (said.returncode, said.stderr) == (0, "") and said.stdout[0].isdigit()


def test_an_option_is_spelled_with_underscores_or_dashes_and_a_list_has_several_values(here, supertf):
    line = f"prune {SIDE} --method random --protect super '0[3, 4]' --json --matrices mlp.c_fc mlp.c_proj"
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
