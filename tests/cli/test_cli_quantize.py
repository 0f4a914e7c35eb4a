"""`supertf quantize` on a small planted model: what is held out, what is saved, one line for each mistake."""

import dataclasses
import json
import math
import shlex

import pytest
import torch
from planted import CONFIG, planted_model

from supertf.analysis.losses import perplexity
from supertf.cli.main import main
from supertf.compression.quantization import plan_quantization
from supertf.compression.verbs import quantized
from supertf.model.hf_model import load_any
from supertf.model.pretrained import save_model

BYTES = dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64)
TEXT = "It was a line of a book, and then another. Was it? " * 20
OPTIONS = ("--tokenizer", "bytes", "--data", "book.txt", "--windows", "3", "--length", "16", "--prompt", "It")


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    """A folder to work in with a planted model and a text."""
    monkeypatch.chdir(tmp_path)
    save_model(planted_model(config=BYTES), "planted")
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


def run(capsys, *options):
    """Exit code, standard output and the last line of standard error (before it come progress bars)."""
    code = main(["quantize", "--model", "planted", *OPTIONS, *options])
    out, err = capsys.readouterr()
    return code, out, err.rstrip().rpartition("\n")[2].rpartition("\r")[2]


def test_a_scheme_is_measured_as_the_package_does(here, capsys):
    code, out, _ = run(capsys, "--scheme", "int3 block=channel", "--json")
    found = json.loads(out)
    model, ids = planted_model(config=BYTES), list(TEXT.encode())[:49]
    expected = plan_quantization(model, "int3 block=channel", protect=[(1, 7, 21)], progress=False)
    with quantized(model, expected):
        loss = perplexity(model, ids, 16).loss
    assert code == 0 and found["loss"]["quantized"] == pytest.approx(loss, abs=1e-6)
    assert found["bits_per_weight"] == expected.bits_per_weight
    assert found["bytes"] == {"dense": 4 * found["weights"], "quantized": expected.bytes}
    assert {name: one["error"] for name, one in found["by_matrix"].items()} == expected.errors
    per_layer = {name: one["weights"] // one["matrices"] for name, one in found["by_kind"].items()}
    assert per_layer == {"attn.c_attn": 768, "attn.c_proj": 256, "mlp.c_fc": 1280, "mlp.c_proj": 640}
    assert (found["config"]["scheme"], found["config"]["protect"]) == ("int3 block=channel", ["1[7, 21]"])
    assert main(shlex.split(found["command"])[1:]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "seconds": found["seconds"]} == found


def test_a_weight_held_out_keeps_its_value_and_is_told_what_it_would_become(here, capsys):
    clipped = ("--scheme", "int4 block=tensor clip=z2", "--json")
    (kept,) = json.loads(run(capsys, *clipped)[1])["watched"]
    (lost,) = json.loads(run(capsys, *clipped, "--protect", "none")[1])["watched"]
    assert kept["held_out"] and kept["weight"] == kept["after"] == 3.0
    assert not lost["held_out"] and lost["after"] == lost["after_unprotected"] == kept["after_unprotected"]
    assert 0 < lost["after"] < 1  # it is clipped
    _, out, _ = run(capsys, *clipped[:-1])
    (line,) = (line for line in out.splitlines() if "1[7, 21]" in line)
    assert line.split()[-1] == "3" and math.isclose(float(line.split()[-2]), lost["after"], rel_tol=1e-3)


def test_quantized_weights_are_saved(here, capsys):
    options = ("--scheme", "int4 block=32", "--matrices", "mlp.c_fc", "--save", "new", "--json")
    found = json.loads(run(capsys, *options)[1])
    expected = plan_quantization(
        planted_model(config=BYTES), "int4 block=32", matrices=["mlp.c_fc"], progress=False
    )
    model, _ = load_any("new")
    for name, values in expected.values.items():
        assert torch.equal(model.get_submodule(name).weight, values)
    assert found["watched"][0]["after_unprotected"] is None and not found["watched"][0]["held_out"]


def test_the_error_of_the_output_needs_a_text_to_calibrate_with(here, capsys):
    found = json.loads(run(capsys, "--scheme", "int4 block=32 clip=output", "--json")[1])
    assert found["config"]["calibration_tokens"] == 8 * 16 and "calibrating" in found["seconds"]
    found = json.loads(run(capsys, "--scheme", "int4 block=32", "--json")[1])
    assert found["config"]["calibration_tokens"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheme", "4 bits"], "scheme '4 bits'; expected intBITS block=BLOCK"),
        (["--scheme", "int9"], "bits is 9, expected a whole number from 2 to 8"),
        (["--scheme", "int4 block=7"], "do not divide into blocks of 7"),
        (["--scheme", "int4 clip=much"], "clip is 'much'"),
        (["--calibration_windows", "2"], "clip=none needs no calibration, only clip=output"),
        (["--protect", "1[7"], "--protect 1[7; expected super, none or weights"),
        (["--protect", "1[70, 0]"], "the down projection of layer 1 is 16 x 40"),
        (["--save", "planted"], "there is something of that name already"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, message):
    code, out, line = run(capsys, *options)
    assert code == 2 and message in line and out == ""
