"""Models side by side: the figures of every kind of variant are those that one measures by hand."""

import json
import math

import pytest
import torch
from planted import PLANTED, byte_model

from supertf.analysis.losses import perplexity
from supertf.compression.comparison import compare
from supertf.compression.pruning.dynamic import dynamically_pruned
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.verbs import plan_pruning, prune, pruned, quantize, quantized
from supertf.data.text import Text
from supertf.data.tokenizer import load_tokenizer
from supertf.superweights.edit import scaled_weights

pytestmark = pytest.mark.usefixtures("one_thread")
BOOK = list(("It was a line of a book, and then another. Was it? " * 8).encode())
HELD_OUT, APART = Text(torch.tensor(BOOK[:129]), 32, name="book"), Text(torch.tensor(BOOK[129:257]), 32)


@pytest.fixture(scope="module")
def model():
    return byte_model(*PLANTED)


def loss(model):
    return pytest.approx(perplexity(model, HELD_OUT.ids, 32, batch_size=4).loss, rel=1e-6)


def test_copies_and_plans_are_measured_alike_and_the_model_is_left_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan = plan_pruning(model, "wanda", sparsity=0.5, calibration=APART, progress=False)
    few = plan_quantization(model, "int4 block=8", progress=False)
    others = {"plan": plan, "copy": prune(model, plan), "int4 plan": few, "int4": quantize(model, few)}
    found = compare(model, others, HELD_OUT, watch=PLANTED, progress=False)
    assert found["dense"].loss == loss(model) and found["dense"].ratio == 1
    for name, context in {"plan": pruned(model, plan), "int4 plan": quantized(model, few)}.items():
        with context:
            assert found[name].loss == loss(model)
    for plan_name, copy_name in (("plan", "copy"), ("int4 plan", "int4")):
        assert found[plan_name].loss == found[copy_name].loss
        assert found[plan_name].fates == found[copy_name].fates
        assert found[plan_name].ratio == pytest.approx(math.exp(found[plan_name].loss - found["dense"].loss))
    assert found["plan"].sparsity == pytest.approx(plan.sparsity, abs=0.01)
    assert found["int4 plan"].bytes < found["int4"].bytes == found["dense"].bytes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_dynamic_plan_tells_what_it_dropped(model):
    plan = plan_pruning(model, "inputs", sparsity=0.5, calibration=APART, protect=PLANTED)
    row = compare(model, {"inputs": plan}, HELD_OUT, watch=PLANTED, progress=False)["inputs"]
    with dynamically_pruned(model, plan, [PLANTED]) as skipped:
        assert row.loss == loss(model)
    assert row.skipped.dropped == skipped.dropped and row.skipped.seen == skipped.seen
    assert row.fates[0].dropped == 0 and 0.3 < row.sparsity < 0.7


def test_the_fate_of_a_weight_is_its_value_wherever_it_went(model):
    channels = {"sparsity": 0.5, "score": "magnitude", "progress": False}
    kept = prune(model, "channels", **channels)
    gone = prune(model, "channels", protect=lost_channels(model, channels), **channels)
    with scaled_weights(model, [PLANTED], 0.0):
        zero = quantize(model, "int8", progress=False)
    found = compare(
        model, {"kept": kept, "gone": gone, "zero": zero}, HELD_OUT, watch="1[7, 21]", progress=False
    )
    before = model.h[1].mlp.c_proj.weight[7, 21].item()
    fates = {row.name: row.fates[0] for row in found}
    assert [fates[name].before for name in fates] == [before] * 4
    assert (fates["kept"].after, fates["kept"].removed) == (before, False)
    assert (fates["gone"].after, fates["gone"].removed) == (None, True)
    assert abs(fates["zero"].after) < 1e-3


def lost_channels(model, channels):
    """As many channels of the planted weight's layer as may stay, without its own."""
    width = model.config.inner
    return [(1, 0, into) for into in range(width) if into != PLANTED[2]][: width // 2]


def test_any_context_can_be_a_variant_and_texts_are_continued(model):
    halved = scaled_weights(model, [PLANTED], 0.5)
    tokenizer = load_tokenizer("bytes")
    found = compare(
        model,
        {"half": (model, halved)},
        HELD_OUT,
        tokenizer=tokenizer,
        prompt="It",
        max_new_tokens=3,
        progress=False,
    )
    with scaled_weights(model, [PLANTED], 0.5):
        assert found["half"].loss == loss(model)
    assert all(isinstance(row.text, str) for row in found)


def test_a_comparison_prints_itself_and_is_json(model):
    few = quantize(model, "int4 block=8", progress=False)
    found = compare(model, {"int4": few}, HELD_OUT, watch=PLANTED, progress=False)
    text, page = str(found), found._repr_html_()
    assert "128 tokens of book, in windows of 32" in text and "1[7, 21]" in text
    assert page.count("<table>") == 2 and page.count("<tr>") == 5 and "int4" in page
    told = json.loads(json.dumps(found.to_dict()))
    assert [row["name"] for row in told["models"]] == ["dense", "int4"]
    assert told["models"][1]["fates"][0]["coordinate"] == "1[7, 21]"
