"""`supertf train`: the original project's flags, word for word, and clear refusals."""

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_tokens

from supertf.cli import train as cli_train
from supertf.cli.main import main
from supertf.model.config import PRESETS
from supertf.model.generation import generate as library_generate
from supertf.model.pretrained import load_model, read_checkpoint

ORIGINAL = shlex.split(
    "--size default --ssmax True --use_pos_enc False --wandb False --batch_size 6 --generating_step 2000 "
    "--validation_step 1000 --save_model 1000 --max_len 1024 --epoch 1 --lr 5e-5 --vocab_size 50257"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tiny_tokens(folder)
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    """Token files lie where `supertf data` puts them by default."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small are slower on two
    yield
    torch.set_num_threads(threads)


def parse(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    cli_train.add_arguments(parser)
    return parser.parse_args(flags)


def config_of(*flags: str):
    return cli_train.model_config(parse(*flags), data_vocab_size=257)


def train(capsys, run: Path, *flags: str) -> dict:
    small = ["--batch_size", "2", "--max_len", "16", "--steps", "2", "--output_dir", str(run), "--json"]
    assert main(["train", *small, *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_originals_flags_mean_what_they_say():
    args = parse("--train_data", "a.bin", "--test_data", "b.bin", *ORIGINAL)
    config = cli_train.model_config(args, data_vocab_size=257)
    assert (config.n_embd, config.n_head, config.n_layer, config.inner) == (1024, 16, 24, 4096)
    assert (config.attention, config.position, config.n_ctx, config.vocab_size) == (
        "ssmax",
        "none",
        1024,
        50257,
    )
    assert args.wandb is False
    assert (args.batch_size, args.epoch, args.lr) == (6, 1, 5e-5)
    assert (args.generating_step, args.validation_step, args.save_model) == (2000, 1000, 1000)


def test_the_originals_flags_run_end_to_end(capsys, tmp_path, monkeypatch):
    """Every one of them; only the size named `default` is made tiny here, to fit a test."""
    monkeypatch.setitem(PRESETS, "default", tiny_config())
    flags = ORIGINAL.copy()
    flags[flags.index("--max_len") + 1] = "16"
    data = ["--train_data", "train.bin", "--test_data", "validation.bin"]
    assert main(["train", *data, *flags, "--steps", "2", "--output_dir", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 2
    config, _ = read_checkpoint(tmp_path)
    assert (config.attention, config.position, config.vocab_size) == ("ssmax", "none", 50257)


def test_false_is_false():
    """argparse's `type=bool` takes the word False for true."""
    assert config_of("--ssmax", "False").attention == "softmax"
    assert config_of("--ssmax", "True").attention == "ssmax"
    assert config_of("--use_pos_enc", "False").position == "none"
    assert config_of("--use_pos_enc", "True").position == "sinusoidal"
    assert config_of() == PRESETS["lab"].__class__(**{**PRESETS["lab"].to_dict(), "vocab_size": 257})


def test_named_options_and_switches_agree_or_are_refused(capsys):
    assert config_of("--attention", "logn", "--position", "alibi").attention == "logn"
    assert config_of("--ssmax", "True", "--attention", "ssmax_bias").attention == "ssmax_bias"
    assert main(["train", "--ssmax", "False", "--attention", "ssmax"]) == 2
    assert "--ssmax False means --attention softmax, but --attention is ssmax" in capsys.readouterr().err
    assert main(["train", "--use_pos_enc", "True", "--position", "none"]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_epochs_become_steps_and_steps_win(folder, capsys, tmp_path):
    from supertf.data.token_files import TokenFile, Windows

    args = parse("--max_len", "16", "--batch_size", "8", "--grad_accumulation", "2", "--epoch", "3")
    file = TokenFile("train.bin")
    windows = len(Windows(file, 16, bos_id=256))
    found = cli_train.train_settings(args, config_of("--max_len", "16"), file)
    assert found.steps == -(-3 * windows // 16)
    assert train(capsys, tmp_path / "run")["steps"] == 2


def test_a_run_can_be_resumed_evaluated_and_generates(capsys, tmp_path):
    first = train(capsys, tmp_path, "--save_model", "1", "--ssmax", "True", "--use_pos_enc", "False")
    assert first["interrupted"] is False
    assert main(["train", "--output_dir", str(tmp_path)]) == 2
    assert "already holds a run: resume it" in capsys.readouterr().err
    more = train(capsys, tmp_path, "--steps", "5", "--resume", "--ssmax", "True", "--use_pos_enc", "False")
    assert more["steps"] == 5
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert "mean_s" in lines[0]
    assert load_model(tmp_path).config.attention == "ssmax"
    assert main(["eval", "--model", str(tmp_path), "--data", "validation.bin", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bos"] is True
    assert found["length"] == 16
    assert main(["generate", "--model", str(tmp_path), "--max_new_tokens", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["new_tokens"] <= 3


def test_generation_begins_with_the_token_that_training_windows_began_with(capsys, tmp_path):
    def generate(run: Path, *flags: str) -> int:
        small = ["--max_new_tokens", "4", "--temperature", "1", "--device", "cpu", "--json"]
        return main(["generate", "--model", str(run), *small, *flags])

    train(capsys, tmp_path / "with")
    model = load_model(tmp_path / "with")
    for prompt, ids in (("", []), ("2 plus", list(b"2 plus"))):
        assert generate(tmp_path / "with", "--prompt", prompt) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["bos"], found["prompt_tokens"]) == (True, 1 + len(ids))
        new = library_generate(model, [256, *ids], 4, temperature=1.0, stop={256})
        assert found["text"] == bytes(new).decode(errors="replace")
    train(capsys, tmp_path / "without", "--bos", "False")
    assert generate(tmp_path / "without", "--prompt", "2 plus") == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == len("2 plus")
    assert generate(tmp_path / "without", "--prompt", "") == 2
    assert "the prompt is empty" in capsys.readouterr().err


def test_a_finished_run_that_lost_its_metrics_can_be_resumed(capsys, tmp_path):
    first = train(capsys, tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    again = train(capsys, tmp_path, "--resume")
    assert (again["steps"], again["loss"], again["tokens_per_second"]) == (2, None, None)
    assert again["best_validation_loss"] == first["best_validation_loss"]


def test_samples_are_shown_and_kept(capsys, tmp_path):
    flags = ["--batch_size", "2", "--max_len", "16", "--steps", "4", "--generating_step", "2"]
    assert main(["train", *flags, "--output_dir", str(tmp_path)]) == 0
    assert "step 2: '" in capsys.readouterr().err
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "sample" in line] == [2, 4]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_data", "absent.bin"], "make one with `supertf data`"),
        (["--vocab_size", "100"], "vocabulary has 100 tokens"),
        (["--max_len", "100000"], "fewer than"),
        (["--lr", "-1"], "lr is -1.0"),
        (["--save_model", "-5"], "save_every is -5"),
        (["--device", "abacus"], "unknown device"),
        (["--precision", "fp4"], "unknown dtype"),
        (["--precision", "fp16"], "not for CPUs"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(capsys, tmp_path, flags, message):
    small = [] if "--max_len" in flags else ["--max_len", "16"]
    assert main(["train", "--steps", "1", "--output_dir", str(tmp_path / "run"), *small, *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("supertf train:")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flipped", ["train.bin", "validation.bin"])
def test_a_flipped_bit_in_a_token_file_is_noticed(capsys, tmp_path, monkeypatch, flipped):
    tiny_tokens(tmp_path)
    monkeypatch.chdir(tmp_path)
    content = bytearray(Path(flipped).read_bytes())
    content[len(content) // 2] ^= 1  # another byte of text: still a token of the vocabulary
    Path(flipped).write_bytes(content)
    assert main(["train", "--max_len", "16", "--steps", "1"]) == 2
    err = capsys.readouterr().err
    assert err == f"supertf train: {flipped} was changed since it was written; run `supertf data` again\n"
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--ssmax", "maybe"],
        ["--batch_size", "six"],
        ["--size", "huge"],
        ["--epoch", "0"],
        ["--seed", "-1"],
        ["--seed", str(2**63)],
    ],
)
def test_wrong_types_end_with_code_2(capsys, flags):
    with pytest.raises(SystemExit) as exit_code:
        main(["train", *flags])
    assert exit_code.value.code == 2
    assert flags[0].removeprefix("--") in capsys.readouterr().err


def test_weights_and_biases_is_asked_for_only_with_true(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("supertf.training.loop.get_available_trackers", lambda: ["tensorboard"])
    train(capsys, tmp_path / "without", "--wandb", "False")
    assert main(["train", "--wandb", "True", "--output_dir", str(tmp_path / "with"), "--max_len", "16"]) == 2
    assert "pip install wandb" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_accumulation(capsys, tmp_path):
    """Data parallel: same windows, same mean gradient, one checkpoint."""
    flags = ["--steps", "4", "--device", "cpu"]
    train(capsys, tmp_path / "one", *flags, "--grad_accumulation", "2")
    small = ["--max_len", "16", "--batch_size", "2", "--json", "--output_dir", str(tmp_path / "two")]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "supertf.cli.main"]
    package = str(Path(cli_train.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *launch, "train", *flags, *small],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    one, two = (load_model(tmp_path / name / "last").state_dict() for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_process_of_several_ends_without_the_interpreter_shutdown_that_gloo_threads_abort():
    code = (
        "import atexit, supertf.cli.train as c; atexit.register(print, 'shut down'); "
        "print('flushed', end=''); c.leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert (done.returncode, done.stdout) == (3, "flushed")
