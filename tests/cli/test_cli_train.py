"""`supertf train`: the original project's flags, word for word, and what a run says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_config

from supertf.data.token_files import TokenFile, Windows
from supertf.errors import UserError
from supertf.model.config import PRESETS
from supertf.model.generation import generate as library_generate
from supertf.model.pretrained import load_model, read_checkpoint

ORIGINAL = (
    "--size default --ssmax True --use_pos_enc False --wandb False --batch_size 6 --generating_step 2000 "
    "--validation_step 1000 --save_model 1000 --max_len 1024 --epoch 1 --lr 5e-5 --vocab_size 50257"
)


@pytest.fixture(autouse=True)
def in_folder(lab, monkeypatch, one_thread):
    """Token files lie where `supertf data` puts them by default."""
    monkeypatch.chdir(lab)
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")


@pytest.fixture
def trained(supertf, monkeypatch):
    """What `supertf train` with these flags would train: the model's config and the settings."""
    seen = []

    def stop(config, train_file, validation_file, settings, *where, **more):
        seen.append((config, settings))
        raise UserError("stopped")

    def flags(line, *words):
        with monkeypatch.context() as patch:
            patch.setattr("supertf.training.train", stop)
            assert supertf(f"train {line}", *words).line == "supertf train: stopped"
        return seen.pop()

    return flags


def train(supertf, run: Path, line: str = "") -> dict:
    """The figures of a short run."""
    small = f"train --batch_size 2 --max_len 16 --steps 2 --json {line} --output_dir"
    return supertf(small, run).json


def test_the_originals_flags_mean_what_they_say(trained, monkeypatch):
    monkeypatch.setattr("supertf.training.open_data", lambda config, *files: files)  # its windows are longer
    config, settings = trained(f"--train_data train.bin --test_data validation.bin {ORIGINAL} --steps 1")
    assert (config.n_embd, config.n_head, config.n_layer, config.inner) == (1024, 16, 24, 4096)
    assert (config.attention, config.position) == ("ssmax", "none")
    assert (config.n_ctx, config.vocab_size) == (1024, 50257)
    assert (settings.batch_size, settings.lr, settings.tracker) == (6, 5e-5, None)
    assert (settings.sample_every, settings.validate_every, settings.save_every) == (2000, 1000, 1000)


def test_the_originals_flags_run_end_to_end(supertf, tmp_path, monkeypatch):
    """Every one of them; only the size named `default` is made tiny here, to fit a test."""
    monkeypatch.setitem(PRESETS, "default", tiny_config())
    flags = ORIGINAL.replace("--max_len 1024", "--max_len 16")
    line = f"train --train_data train.bin --test_data validation.bin {flags} --steps 2 --json --output_dir"
    found = supertf(line, tmp_path).json
    assert found["steps"] == 2 and set(found) == {
        *("steps", "parameters", "loss", "best_validation_loss", "seconds", "tokens_per_second"),
        *("interrupted", "run"),
    }
    config, _ = read_checkpoint(tmp_path)
    assert (config.attention, config.position, config.vocab_size) == ("ssmax", "none", 50257)


def test_false_is_false(trained):
    """As a plain bool, the word False would be true."""
    for said, meant in (("False", "softmax"), ("no", "softmax"), ("0", "softmax"), ("True", "ssmax")):
        assert trained("--max_len 16 --ssmax", said)[0].attention == meant
    for said, meant in (("false", "none"), ("true", "sinusoidal"), ("yes", "sinusoidal")):
        assert trained("--max_len 16 --use_pos_enc", said)[0].position == meant
    assert trained("--max_len 16 --wandb True")[1].tracker == "wandb"
    config, settings = trained("--max_len 16")
    assert config.to_dict() == {**PRESETS["lab"].to_dict(), "vocab_size": 257, "n_ctx": 16}
    assert (settings.bos, settings.lr) == (True, 1e-3)


def test_named_options_and_switches_agree(trained):
    config, _ = trained("--max_len 16 --attention logn --position alibi")
    assert (config.attention, config.position) == ("logn", "alibi")
    assert trained("--max_len 16 --ssmax True --attention ssmax_bias")[0].attention == "ssmax_bias"


def test_epochs_become_steps_and_steps_win(trained):
    windows = len(Windows(TokenFile("train.bin"), 16, bos_id=256))
    line = "--max_len 16 --batch_size 8 --grad_accumulation 2 --epoch 3"
    assert trained(line)[1].steps == -(-3 * windows // 16)
    assert trained(f"{line} --steps 2")[1].steps == 2


def test_a_run_can_be_resumed_evaluated_and_generates(supertf, tmp_path):
    first = train(supertf, tmp_path, "--save_model 1 --ssmax True --use_pos_enc False")
    assert first["interrupted"] is False and first["run"] == str(tmp_path)
    said = supertf("train --output_dir", tmp_path)
    assert said.code == 2 and "already holds a run: resume it" in said.line
    more = train(supertf, tmp_path, "--steps 5 --resume --ssmax True --use_pos_enc False")
    assert more["steps"] == 5
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert "mean_s" in lines[0]
    assert load_model(tmp_path).config.attention == "ssmax"
    found = supertf("eval --data validation.bin --json --model", tmp_path).json
    assert (found["bos"], found["length"]) == (True, 16)
    assert supertf("generate --max_new_tokens 3 --json --model", tmp_path).json["new_tokens"] <= 3


def test_generation_begins_with_the_token_that_training_windows_began_with(supertf, tmp_path):
    line = "generate --max_new_tokens 4 --temperature 1 --device cpu --json --model"
    train(supertf, tmp_path / "with")
    model = load_model(tmp_path / "with")
    for prompt, ids in (("", []), ("2 plus", list(b"2 plus"))):
        found = supertf(line, tmp_path / "with", "--prompt", prompt).json
        assert (found["bos"], found["prompt_tokens"]) == (True, 1 + len(ids))
        new = library_generate(model, [256, *ids], 4, temperature=1.0, stop={256})
        assert found["text"] == bytes(new).decode(errors="replace")
    train(supertf, tmp_path / "without", "--bos False")
    assert supertf(line, tmp_path / "without", "--prompt", "2 plus").json["prompt_tokens"] == len("2 plus")
    assert "the prompt is empty" in supertf(line, tmp_path / "without", "--prompt", "").line


def test_a_finished_run_that_lost_its_metrics_can_be_resumed(supertf, tmp_path):
    first = train(supertf, tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    again = train(supertf, tmp_path, "--resume")
    assert (again["steps"], again["loss"], again["tokens_per_second"]) == (2, None, None)
    assert again["best_validation_loss"] == first["best_validation_loss"]


def test_samples_are_shown_and_kept(supertf, tmp_path):
    line = "train --batch_size 2 --max_len 16 --steps 4 --generating_step 2 --output_dir"
    said = supertf(line, tmp_path)
    assert said.code == 0 and "step 2: '" in said.err and "training on cpu" in said.err
    assert "best_validation_loss  " in said.out
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "sample" in line] == [2, 4]


def test_a_process_of_several_ends_without_the_interpreter_shutdown_that_gloo_threads_abort():
    code = (
        "import atexit, supertf.cli.train as c; atexit.register(print, 'shut down'); "
        "print('flushed', end=''); c.leave(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800)
    assert (done.returncode, done.stdout) == (3, "flushed")
