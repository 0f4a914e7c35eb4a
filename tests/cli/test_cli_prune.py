"""`supertf prune`: every method on a small planted model, and what is saved."""

import pytest
import torch
from families import SMALL, hugging_face

from supertf.analysis.losses import perplexity
from supertf.compression.calibration import calibrate
from supertf.compression.pruning.refitting import refit
from supertf.compression.pruning.static import plan_static
from supertf.compression.verbs import pruned
from supertf.model.generation import generate
from supertf.model.hf_model import load
from supertf.model.pretrained import load_model

SUPER = "1[7, 21]"
ON_BOOK = "prune --data book.txt --windows 3 --length 16 --prompt It --max_new_tokens 4"
PRUNE = f"{ON_BOOK} --model planted"


@pytest.fixture
def ids(here):
    """The text in tokens."""
    return list((here / "book.txt").read_bytes())


def test_wanda_is_measured_as_the_package_does_on_text_it_was_not_calibrated_with(supertf, ids):
    found = supertf(f"{PRUNE} --json --sparsity 0.6 --calibration_windows 2").json
    model = load_model("planted")
    calibration = calibrate(model, ids[49 : 49 + 32], 16)
    pruning = plan_static(model, "wanda", 0.6, calibration, protect=[(1, 7, 21)], progress=False)
    with pruned(model, pruning):
        expected = perplexity(model, ids[:49], 16).loss
        text = bytes(generate(model, list(b"It"), 4))
    assert found["loss"]["pruned"] == pytest.approx(expected, abs=1e-6)
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


def test_the_command_in_the_json_gives_the_same_result_again(here, supertf):
    line = f"{PRUNE} --method random --seed 3 --bos True --protect super '0[3, 4]' --json"
    first = supertf(line).json
    assert first["command"] == (
        "supertf prune --method random --sparsity 0.5 --seed 3 --model planted --protect super '0[3, 4]' "
        "--data book.txt --windows 3 --length 16 --prompt It --max_new_tokens 4 --bos True --json"
    )
    again = supertf(first["command"].removeprefix("supertf ")).json
    del first["seconds"], again["seconds"]
    assert first == again and first["config"]["bos"]


def test_a_protected_weight_is_kept_and_told_what_the_method_would_do_to_it(here, supertf):
    every = f"{PRUNE} --method random --sparsity 1"
    (kept,) = supertf(f"{every} --json").json["watched"]
    (lost,) = supertf(f"{every} --protect none --json").json["watched"]
    assert set(kept) == {
        *("coordinate", "weight", "input", "output", "added", "recorded", "protected", "removed"),
        *("removed_unprotected", "rank", "group", "going"),
    }
    assert (kept["coordinate"], kept["weight"], kept["recorded"]) == (SUPER, 3.0, None)
    assert abs(kept["input"]) > 50 and abs(kept["output"]) > 50
    assert (kept["protected"], kept["removed"], kept["removed_unprotected"]) == (True, False, True)
    assert (lost["protected"], lost["removed"], lost["removed_unprotected"]) == (False, True, True)
    assert kept["group"] == kept["going"] == 640 and kept["rank"] == lost["rank"]
    (line,) = (line for line in supertf(every).out.splitlines() if SUPER in line)
    assert "no verdict  yes        removed" in line and line.endswith("of 640, 640 go  kept")


def test_a_weight_is_named_beside_the_candidates_or_in_their_place(here, supertf):
    watched = supertf(f"{PRUNE} --protect '0[3, 4]' --json").json["watched"]
    assert [(one["coordinate"], one["protected"]) for one in watched] == [(SUPER, False), ("0[3, 4]", True)]
    assert watched[1]["input"] is None
    config = supertf(f"{PRUNE} --protect 0,3,4 super --json").json["config"]
    assert config["protect"] == [SUPER, "0[3, 4]"]


def test_a_verdict_is_shown_only_for_the_very_weight_that_was_recorded(here, supertf, monkeypatch):
    checks = {"lab/planted": {"checks": [{"coordinate": SUPER, "verdict": "super", "inside": True}]}}
    entry = type("entry", (), {"model": "lab/planted"})
    monkeypatch.setattr("supertf.cli.side_by_side.published", lambda model: [entry])
    monkeypatch.setattr("supertf.cli.side_by_side.recorded_checks", lambda: checks)
    for value, verdict in ((3.001, "super"), (3.1, None)):
        checks["lab/planted"]["checks"][0]["weight"] = value
        assert supertf(f"{PRUNE} --json").json["watched"][0]["recorded"] == verdict


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_dynamic_pruning_counts_what_is_dropped_and_spares_a_protected_channel(here, supertf, method):
    line = f"{PRUNE} --method {method}"
    found = supertf(f"{line} --json").json
    assert found["unit"] == "inputs" and found["sparsity"] == pytest.approx(0.5, abs=0.05)
    assert found["work_skipped"] == pytest.approx(1 / 3 if method == "gate" else 0.5, abs=0.05)
    per_layer = {"inputs": (16, 16, 16, 40), "gate": (40,), "top": (16, 16, 16, 40)}[method]
    assert sum(one["of"] for one in found["by_matrix"].values()) == 3 * 48 * sum(per_layer)  # of 48 tokens
    (one,) = found["watched"]
    assert one["dropped"] == 0 < one["dropped_unprotected"] and one["spikes_unprotected"]
    (free,) = supertf(f"{line} --protect none --json").json["watched"]
    assert free["dropped"] == free["dropped_unprotected"] > 0
    assert not supertf(f"{line} --sparsity 1 --json").json["watched"][0]["spikes_unprotected"]
    if method != "gate":  # nothing is told of a weight whose matrix is not pruned
        (one,) = supertf(f"{line} --matrices attn.c_attn --json").json["watched"]
        assert one["dropped"] is one["dropped_unprotected"] is None
    out = supertf(line).out
    assert "inputs dropped over all tokens" in out and "can be skipped, token by token" in out


def test_fewer_channels_are_a_smaller_model_that_is_saved_with_its_tokenizer(supertf, ids):
    found = supertf(f"{PRUNE} --method channels --sparsity 0.25 --save small --json").json
    model, tokenizer = load("small")
    assert model.config.inner == 30 and tokenizer.encode_ordinary("It") == list(b"It")
    assert found["parameters_left"] == model.num_parameters() < found["parameters"]
    assert perplexity(model, ids[:49], 16).loss == pytest.approx(found["loss"]["pruned"], abs=1e-6)
    said = supertf("generate --model small --max_new_tokens 4 --prompt It --json")
    assert said.json["text"] == found["text"]["pruned"]


@pytest.mark.parametrize(
    ("options", "kind"),
    [("channels", "mlp.c_proj"), ("heads", "attn.c_proj"), ("inputs --matrices mlp.c_proj", "mlp.c_proj")],
)
def test_projections_are_refitted_to_the_text_that_follows(supertf, ids, monkeypatch, options, kind):
    asked = f"{PRUNE} --method {options} --calibration_windows 2 --json"
    before = supertf(asked).json
    given = {}

    def refit_by_hand(model, text, plan, matrices, **how):
        given.update(text=text.tolist(), matrices=matrices)
        new = refit(model, text, plan, matrices=matrices, progress=False, **how)
        new.ln_f.weight.data *= 2  # to be known again
        return new

    monkeypatch.setattr("supertf.compression.refit", refit_by_hand)
    after = supertf(f"{asked} --refit_windows 30").json
    assert given == {"text": ids[49 + 32 :][: 30 * 16], "matrices": [kind]}
    assert (before["config"]["refit_tokens"], after["config"]["refit_tokens"]) == (0, 480)
    assert "refitting" in after["seconds"] and "refitting" not in before["seconds"]
    assert before["loss"]["dense"] == after["loss"]["dense"]
    assert before["loss"]["pruned"] != after["loss"]["pruned"]


def test_the_refitted_smaller_model_is_the_one_that_is_saved(supertf, ids):
    line = f"{PRUNE} --method channels --refit_windows 30"
    found = supertf(f"{line} --save small --json").json
    loss = perplexity(load("small")[0], ids[:49], 16).loss
    assert loss == pytest.approx(found["loss"]["pruned"], abs=1e-6)
    assert ", 480 to refit to" in supertf(line).out


def test_saved_weights_are_zero_where_they_were_removed(here, supertf):
    line = f"{PRUNE} --method magnitude --scope global --save new/zeros --matrices mlp.c_fc --json"
    found = supertf(line).json
    weights = [block.mlp.c_fc.weight for block in load("new/zeros")[0].h]
    zeros = [int((weight == 0).sum()) for weight in weights]
    assert zeros == [one["removed"] for one in found["by_matrix"].values()]
    assert sum(zeros) == 1920 and found["sparsity"] == 0.5 and found["saved"] == "new/zeros"
    assert found["watched"][0]["rank"] is None and not found["watched"][0]["removed"]


def test_heads_patterns_and_second_order_run_too(here, supertf):
    out = supertf(f"{PRUNE} --method heads --score magnitude").out
    assert "not pruned" in out and "parameters of the model: 13,648, then 12,040" in out
    found = supertf(f"{PRUNE} --method sparsegpt --pattern 2:4 --json").json
    assert (found["sparsity"], found["config"]["pattern"]) == (0.5, "2:4")
    assert found["watched"][0]["group"] == 4


def test_a_hugging_face_model_is_pruned_but_not_saved(here, supertf, monkeypatch):
    monkeypatch.setitem(SMALL, "vocab_size", 257)
    monkeypatch.setitem(SMALL, "max_position_embeddings", 64)
    hugging_face("GPTNeoX").save_pretrained("hub")
    line = f"{ON_BOOK} --model hub --tokenizer bytes --protect '0[3, 4]'"
    found = supertf(f"{line} --json").json
    assert found["sparsity"] == 0.5 and "transformers" in found["versions"]
    said = supertf(f"{line} --save new")
    assert "--save writes this lab's models, and hub is read by transformers" in said.line
    said = supertf(f"{line} --method channels")
    assert "channels and heads are removed from this package's GPT, not HFModel" in said.line
    said = supertf(f"{line} --method inputs --refit_windows 2")
    assert "refit is for this package's GPT, not HFModel" in said.line


@pytest.mark.real_model
def test_wanda_on_smollm2_keeps_its_super_weight_either_way(smollm2, one_thread, supertf, monkeypatch):
    from supertf.data.tokenizer import load_tokenizer

    loaded = (smollm2, load_tokenizer("smollm2-135m"))
    monkeypatch.setattr("supertf.cli.subject.load", lambda *_, **__: loaded)
    before = smollm2.h[11].mlp.c_proj.weight.clone()
    line = "prune --windows 1 --length 64 --calibration_windows 2 --max_new_tokens 2 --matrices mlp.c_proj"
    found = supertf(f"{line} --json").json
    first, second = found["watched"][:2]
    assert (first["coordinate"], first["recorded"]) == ("11[507, 1229]", "super")
    assert (second["coordinate"], second["recorded"]) == ("28[507, 678]", "inert")
    assert not first["removed_unprotected"] and first["rank"] == first["group"] - 1  # the last of its row
    assert 0.5 < found["perplexity"]["ratio"] < 2
    assert torch.equal(before, smollm2.h[11].mlp.c_proj.weight)
