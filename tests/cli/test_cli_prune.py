"""`supertf prune`: every method on a small planted model, what is saved, and one line for each mistake."""

import dataclasses
import json
import shlex

import pytest
import torch
from families import SMALL, hugging_face
from planted import CONFIG, planted_model

from supertf.analysis.losses import perplexity
from supertf.cli.main import main
from supertf.compression.calibration import calibrate
from supertf.compression.pruning_plan import plan_static
from supertf.compression.refitting import refit
from supertf.compression.verbs import pruned
from supertf.model.generation import generate
from supertf.model.hf_model import load_any
from supertf.model.pretrained import save_model

BYTES = dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64)
TEXT = "It was a line of a book, and then another. Was it? " * 20
SUPER = "1[7, 21]"
ON_BOOK = ("--tokenizer", "bytes", "--data", "book.txt", "--windows", "3", "--length", "16")
OPTIONS = (*ON_BOOK, "--prompt", "It", "--max_new_tokens", "4")


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    """A folder to work in with a planted model and a text."""
    monkeypatch.chdir(tmp_path)
    save_model(planted_model(config=BYTES), "planted")
    (tmp_path / "book.txt").write_text(TEXT)
    return tmp_path


def run(capsys, *options, model="planted"):
    """Exit code, standard output and the last line of standard error (before it come progress bars)."""
    try:
        code = main(["prune", "--model", model, *OPTIONS, *options])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err.rstrip().rpartition("\n")[2].rpartition("\r")[2]


def test_wanda_is_measured_as_the_package_does_on_text_it_was_not_calibrated_with(here, capsys):
    code, out, _ = run(capsys, "--json", "--sparsity", "0.6", "--calibration_windows", "2")
    found = json.loads(out)
    model, ids = planted_model(config=BYTES), list(TEXT.encode())
    calibration = calibrate(model, ids[49 : 49 + 32], 16)
    pruning = plan_static(model, "wanda", 0.6, calibration, protect=[(1, 7, 21)], progress=False)
    with pruned(model, pruning):
        expected = perplexity(model, ids[:49], 16).loss
        text = bytes(generate(model, list(b"It"), 4))
    assert code == 0 and found["loss"]["pruned"] == pytest.approx(expected, abs=1e-6)
    assert found["loss"]["dense"] == pytest.approx(perplexity(model, ids[:49], 16).loss, abs=1e-6)
    assert found["text"]["pruned"] == text.decode(errors="replace")
    assert found["perplexity"]["ratio"] == pytest.approx(
        found["perplexity"]["pruned"] / found["perplexity"]["dense"]
    )
    assert {name: one["removed"] for name, one in found["by_matrix"].items()} == pruning.counts
    assert found["sparsity"] == pruning.sparsity
    config = found["config"]
    assert (config["method"], config["sparsity"], config["scope"]) == ("wanda", 0.6, "row")
    assert (config["tokens"], config["calibration_tokens"], config["protect"]) == (48, 32, [SUPER])
    assert sum(one["removed"] for one in found["by_kind"].values()) == sum(pruning.counts.values())


def test_the_command_in_the_json_gives_the_same_result_again(here, capsys):
    options = ("--method", "random", "--seed", "3", "--bos", "True", "--protect", "super", "0[3, 4]")
    first = json.loads(run(capsys, *options, "--json")[1])
    assert main(shlex.split(first["command"])[1:]) == 0
    again = json.loads(capsys.readouterr().out)
    del first["seconds"], again["seconds"]
    assert first == again and first["config"]["bos"]


def test_a_protected_weight_is_kept_and_told_what_the_method_would_do_to_it(here, capsys):
    every = ("--method", "random", "--sparsity", "1", "--json")
    (kept,) = json.loads(run(capsys, *every)[1])["watched"]
    (lost,) = json.loads(run(capsys, *every, "--protect", "none")[1])["watched"]
    assert (kept["coordinate"], kept["weight"], kept["recorded"]) == (SUPER, 3.0, None)
    assert abs(kept["input"]) > 50 and abs(kept["output"]) > 50
    assert (kept["protected"], kept["removed"], kept["removed_unprotected"]) == (True, False, True)
    assert (lost["protected"], lost["removed"], lost["removed_unprotected"]) == (False, True, True)
    assert kept["group"] == kept["going"] == 640 and kept["rank"] == lost["rank"]
    _, out, _ = run(capsys, *every[:-1])
    (line,) = (line for line in out.splitlines() if SUPER in line)
    assert "no verdict  yes        removed" in line and line.endswith("of 640, 640 go  kept")


def test_a_weight_is_named_beside_the_candidates_or_in_their_place(here, capsys):
    watched = json.loads(run(capsys, "--protect", "0[3, 4]", "--json")[1])["watched"]
    assert [(one["coordinate"], one["protected"]) for one in watched] == [(SUPER, False), ("0[3, 4]", True)]
    assert watched[1]["input"] is None
    config = json.loads(run(capsys, "--protect", "0,3,4", "super", "--json")[1])["config"]
    assert config["protect"] == [SUPER, "0[3, 4]"]


def test_a_verdict_is_shown_only_for_the_very_weight_that_was_recorded(here, capsys, monkeypatch):
    checks = {"lab/planted": {"checks": [{"coordinate": SUPER, "verdict": "super", "inside": True}]}}
    entry = type("entry", (), {"model": "lab/planted"})
    monkeypatch.setattr("supertf.cli.side_by_side.published", lambda model: [entry])
    monkeypatch.setattr("supertf.cli.side_by_side.recorded_checks", lambda: checks)
    for value, verdict in ((3.001, "super"), (3.1, None)):
        checks["lab/planted"]["checks"][0]["weight"] = value
        assert json.loads(run(capsys, "--json")[1])["watched"][0]["recorded"] == verdict


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_dynamic_pruning_counts_what_is_dropped_and_spares_a_protected_channel(here, capsys, method):
    found = json.loads(run(capsys, "--method", method, "--json")[1])
    assert found["unit"] == "inputs" and found["sparsity"] == pytest.approx(0.5, abs=0.05)
    assert found["work_skipped"] == pytest.approx(1 / 3 if method == "gate" else 0.5, abs=0.05)
    per_layer = {"inputs": (16, 16, 16, 40), "gate": (40,), "top": (16, 16, 16, 40)}[method]
    assert sum(one["of"] for one in found["by_matrix"].values()) == 3 * 48 * sum(per_layer)  # of 48 tokens
    (one,) = found["watched"]
    assert one["dropped"] == 0 < one["dropped_unprotected"] and one["spikes_unprotected"]
    (free,) = json.loads(run(capsys, "--method", method, "--protect", "none", "--json")[1])["watched"]
    assert free["dropped"] == free["dropped_unprotected"] > 0
    every = ("--method", method, "--sparsity", "1", "--json")
    assert not json.loads(run(capsys, *every)[1])["watched"][0]["spikes_unprotected"]
    _, out, _ = run(capsys, "--method", method)
    assert "inputs dropped over all tokens" in out and "can be skipped, token by token" in out


def test_fewer_channels_are_a_smaller_model_that_is_saved_with_its_tokenizer(here, capsys):
    options = ("--method", "channels", "--sparsity", "0.25", "--save", "small", "--json")
    found = json.loads(run(capsys, *options)[1])
    model, tokenizer = load_any("small")
    assert model.config.inner == 30 and tokenizer.encode_ordinary("It") == list(b"It")
    assert found["parameters_left"] == model.num_parameters() < found["parameters"]
    assert perplexity(model, list(TEXT.encode())[:49], 16).loss == pytest.approx(
        found["loss"]["pruned"], abs=1e-6
    )
    assert main(["generate", "--model", "small", "--max_new_tokens", "4", "--prompt", "It", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == found["text"]["pruned"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [("channels", "mlp.c_proj"), ("heads", "attn.c_proj"), ("inputs --matrices mlp.c_proj", "mlp.c_proj")],
)
def test_projections_are_refitted_to_the_text_that_follows(here, capsys, monkeypatch, options, kind):
    asked = ("--method", *options.split(), "--calibration_windows", "2", "--json")
    before = json.loads(run(capsys, *asked)[1])
    given = {}

    def refit_by_hand(model, ids, plan, teacher, length, kinds):
        given.update(ids=ids.tolist(), kinds=kinds)
        new = refit(model, ids, plan, teacher, length, kinds, progress=False)
        new.ln_f.weight.data *= 2  # to be known again
        return new

    monkeypatch.setattr("supertf.compression.refit", refit_by_hand)
    after = json.loads(run(capsys, *asked, "--refit_windows", "30")[1])
    assert given == {"ids": list(TEXT.encode())[49 + 32 :][: 30 * 16], "kinds": [kind]}
    assert (before["config"]["refit_tokens"], after["config"]["refit_tokens"]) == (0, 480)
    assert "refitting" in after["seconds"] and "refitting" not in before["seconds"]
    assert before["loss"]["dense"] == after["loss"]["dense"]
    assert before["loss"]["pruned"] != after["loss"]["pruned"]


def test_the_refitted_smaller_model_is_the_one_that_is_saved(here, capsys):
    options = ("--method", "channels", "--refit_windows", "30", "--save", "small", "--json")
    found = json.loads(run(capsys, *options)[1])
    loss = perplexity(load_any("small")[0], list(TEXT.encode())[:49], 16).loss
    assert loss == pytest.approx(found["loss"]["pruned"], abs=1e-6)
    assert ", 480 to refit to" in run(capsys, *options[:4])[1]


def test_saved_weights_are_zero_where_they_were_removed(here, capsys):
    options = ("--method", "magnitude", "--scope", "global", "--save", "new/zeros", "--json")
    found = json.loads(run(capsys, *options, "--matrices", "mlp.c_fc")[1])
    weights = [block.mlp.c_fc.weight for block in load_any("new/zeros")[0].h]
    zeros = [int((weight == 0).sum()) for weight in weights]
    assert zeros == [one["removed"] for one in found["by_matrix"].values()]
    assert sum(zeros) == 1920 and found["sparsity"] == 0.5 and found["saved"] == "new/zeros"
    assert found["watched"][0]["rank"] is None and not found["watched"][0]["removed"]


def test_heads_patterns_and_second_order_run_too(here, capsys):
    _, out, _ = run(capsys, "--method", "heads", "--score", "magnitude")
    assert "not pruned" in out and "parameters of the model: 13,648, then 12,040" in out
    found = json.loads(run(capsys, "--method", "sparsegpt", "--pattern", "2:4", "--json")[1])
    assert (found["sparsity"], found["config"]["pattern"]) == (0.5, "2:4")
    assert found["watched"][0]["group"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sparsity 1.5", "sparsity is 1.5, expected 0 (remove nothing) to 1"),
        ("--sparsity half", "invalid float value: 'half'"),
        ("--method prune", "invalid choice: 'prune'"),
        ("--pattern 4:2", "pattern '4:2'; expected n:m"),
        ("--pattern 2:3", "do not divide into groups of 3"),
        ("--pattern 2:4 --sparsity 0.3", "a pattern is both, leave them out"),
        (
            "--method channels --pattern 2:4",
            "--pattern is for random, magnitude, wanda, sparsegpt, not for ch",
        ),
        ("--method gate --save x", "--save is for random, "),
        ("--method gate --matrices mlp.c_fc", "--matrices is for "),
        ("--refit_windows 2", "--refit_windows is for channels, heads, inputs, gate, top, not for wanda"),
        ("--method channels --refit_windows 99", "and 1712 others to calibrate with: give a longer text, or"),
        ("--score random", "--score is for channels, heads, not for wanda"),
        ("--method magnitude --calibration_windows 2", "magnitude needs no calibration"),
        (
            "--method channels --score random --calibration_windows 2",
            "channels by random needs no calibration",
        ),
        ("--protect supr", "--protect supr; expected super, none or weights such as '11[507, 1229]'"),
        ("--protect super none", "--protect super none; expected"),
        ("--protect 9[0,0]", "the model has layers 0 to 2"),
        ("--matrices mlp.down", "matrices of kinds ['mlp.down']; choose one or more of attn.c_attn"),
        ("--data absent.txt", "absent.txt"),
        ("--windows 99", "book.txt has 1021 tokens, and 1585 are to be held out and 128 others to calibrate"),
        ("--method channels --sparsity 1 --protect none", "the plan removes all channels"),
        ("--method channels --sparsity 1", "1 channels of layer 1 are protected"),
        ("--save planted", "--save planted: there is something of that name already; name a new folder"),
        ("--prompt=", "the prompt is empty"),
        ("--windows 0", "expected a whole number of at least 1, got 0"),
    ],
)
def test_a_mistake_is_one_line(here, capsys, options, message):
    code, out, line = run(capsys, *options.split())
    assert code == 2 and message in line and out == ""


def test_a_hugging_face_model_is_pruned_but_not_saved(here, capsys, monkeypatch):
    monkeypatch.setitem(SMALL, "vocab_size", 257)
    monkeypatch.setitem(SMALL, "max_position_embeddings", 64)
    hugging_face("GPTNeoX").save_pretrained("hub")
    found = json.loads(run(capsys, "--protect", "0[3, 4]", "--json", model="hub")[1])
    assert found["sparsity"] == 0.5 and "transformers" in found["versions"]
    code, _, line = run(capsys, "--save", "new", model="hub")
    assert code == 2 and "--save writes this lab's models, and hub is read by transformers" in line
    code, _, line = run(capsys, "--method", "channels", model="hub")
    assert code == 2 and "channels and heads are removed from this package's GPT, not HFModel" in line


@pytest.mark.real_model
def test_wanda_on_smollm2_keeps_its_super_weight_either_way(smollm2, one_thread, capsys, monkeypatch):
    from supertf.data.tokenizer import load_tokenizer

    loaded = (smollm2, load_tokenizer("smollm2-135m"))
    monkeypatch.setattr("supertf.cli.subject.load_any", lambda *_, **__: loaded)
    before = smollm2.h[11].mlp.c_proj.weight.clone()
    options = "--windows 1 --length 64 --calibration_windows 2 --max_new_tokens 2 --matrices mlp.c_proj"
    assert main(["prune", "--json", *options.split()]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["watched"][:2]
    assert (first["coordinate"], first["recorded"]) == ("11[507, 1229]", "super")
    assert (second["coordinate"], second["recorded"]) == ("28[507, 678]", "inert")
    assert not first["removed_unprotected"] and first["rank"] == first["group"] - 1  # the last of its row
    assert 0.5 < found["perplexity"]["ratio"] < 2
    assert torch.equal(before, smollm2.h[11].mlp.c_proj.weight)
