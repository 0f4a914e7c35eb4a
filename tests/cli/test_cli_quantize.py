"""`supertf quantize` on a small planted model: what is held out, and what is saved."""

import math

import pytest
import torch

from supertf.analysis.losses import perplexity
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.verbs import quantized
from supertf.model.hf_model import load
from supertf.model.pretrained import load_model

QUANTIZE = "quantize --model planted --data book.txt --windows 3 --length 16 --prompt It"


def test_a_scheme_is_measured_as_the_package_does(here, supertf):
    found = supertf(f"{QUANTIZE} --scheme 'int3 block=channel' --json").json
    model, ids = load_model("planted"), list((here / "book.txt").read_bytes())[:49]
    expected = plan_quantization(model, "int3 block=channel", protect=[(1, 7, 21)], progress=False)
    with quantized(model, expected):
        loss = perplexity(model, ids, 16).loss
    assert found["loss"]["quantized"] == pytest.approx(loss, abs=1e-6)
    assert found["bits_per_weight"] == expected.bits_per_weight
    assert found["bytes"] == {"dense": 4 * found["weights"], "quantized": expected.bytes}
    assert {name: one["error"] for name, one in found["by_matrix"].items()} == expected.errors
    per_layer = {name: one["weights"] // one["matrices"] for name, one in found["by_kind"].items()}
    assert per_layer == {"attn.c_attn": 768, "attn.c_proj": 256, "mlp.c_fc": 1280, "mlp.c_proj": 640}
    assert (found["config"]["scheme"], found["config"]["protect"]) == ("int3 block=channel", ["1[7, 21]"])
    assert found["command"] == (
        "supertf quantize --scheme 'int3 block=channel' --model planted --protect super --data book.txt "
        "--windows 3 --length 16 --prompt It --max_new_tokens 20 --json"
    )
    again = supertf(found["command"].removeprefix("supertf ")).json
    assert {**again, "seconds": found["seconds"]} == found


def test_a_weight_held_out_keeps_its_value_and_is_told_what_it_would_become(here, supertf):
    clipped = f"{QUANTIZE} --scheme 'int4 block=tensor clip=z2'"
    (kept,) = supertf(f"{clipped} --json").json["watched"]
    (lost,) = supertf(f"{clipped} --protect none --json").json["watched"]
    assert set(kept) == {
        *("coordinate", "weight", "input", "output", "added", "recorded", "protected", "held_out", "after"),
        "after_unprotected",
    }
    assert kept["held_out"] and kept["weight"] == kept["after"] == 3.0
    assert not lost["held_out"] and lost["after"] == lost["after_unprotected"] == kept["after_unprotected"]
    assert 0 < lost["after"] < 1  # it is clipped
    (line,) = (line for line in supertf(clipped).out.splitlines() if "1[7, 21]" in line)
    assert line.split()[-1] == "3" and math.isclose(float(line.split()[-2]), lost["after"], rel_tol=1e-3)


def test_quantized_weights_are_saved(here, supertf):
    found = supertf(f"{QUANTIZE} --scheme 'int4 block=32' --matrices mlp.c_fc --save new --json").json
    expected = plan_quantization(
        load_model("planted"), "int4 block=32", matrices=["mlp.c_fc"], progress=False
    )
    model, _ = load("new")
    for name, values in expected.values.items():
        assert torch.equal(model.get_submodule(name).weight, values)
    assert found["watched"][0]["after_unprotected"] is None and not found["watched"][0]["held_out"]


def test_the_error_of_the_output_needs_a_text_to_calibrate_with(here, supertf):
    found = supertf(f"{QUANTIZE} --scheme 'int4 block=32 clip=output' --json").json
    assert found["config"]["calibration_tokens"] == 8 * 16 and "calibrating" in found["seconds"]
    found = supertf(f"{QUANTIZE} --scheme 'int4 block=32' --json").json
    assert found["config"]["calibration_tokens"] == 0
