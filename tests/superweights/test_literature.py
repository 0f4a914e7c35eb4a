"""Published super weights: the list is whole and says where sources disagree; a check finds what is there."""

import json

import pytest
from planted import PROMPT, planted_model, zeroed

from supertf.model.weight_matrices import parse, show
from supertf.superweights.literature import Published, is_here, published, recorded_checks, same_model, verify

SIZES = {  # (layers, width, width of the MLP), as in the models' config.json
    "huggyllama/llama-7b": (32, 4096, 11008),
    "huggyllama/llama-13b": (40, 5120, 13824),
    "huggyllama/llama-30b": (60, 6656, 17920),
    "meta-llama/Llama-2-7b-hf": (32, 4096, 11008),
    "meta-llama/Llama-2-13b-hf": (40, 5120, 13824),
    "mistralai/Mistral-7B-v0.1": (32, 4096, 14336),
    "allenai/OLMo-1B-0724-hf": (16, 2048, 8192),
    "allenai/OLMo-7B-0724-hf": (32, 4096, 11008),
    "microsoft/Phi-3-mini-4k-instruct": (32, 3072, 8192),
    "meta-llama/Meta-Llama-3-8B": (32, 4096, 14336),
    "google/gemma-7b": (28, 3072, 24576),
    "HuggingFaceTB/SmolLM2-1.7B": (24, 2048, 8192),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (30, 576, 1536),
    "Qwen/Qwen2.5-3B": (36, 2048, 11008),
    "openai-community/gpt2": (12, 768, 3072),
}
SOURCE = ("a paper",)


def test_every_coordinate_lies_inside_its_model_with_out_before_in():
    """Swapped, most would have an output channel beyond the model's width."""
    entries = published()
    assert {one.model for one in entries} == set(SIZES)
    for one in entries:
        layers, width, inner = SIZES[one.model]
        layer, out, into = one.coordinate
        assert layer < layers and out < width and into < inner, one
    assert len({(one.model, one.coordinate) for one in entries}) == len(entries) == 31


def test_every_entry_has_a_source_and_an_effect_in_the_direction_of_its_claim():
    for one in published():
        assert one.sources and all(len(source) > 10 for source in one.sources)
        assert one.claimed in (None, "super", "harmful", "inert")
        effect = (one.measure, one.before, one.after)
        assert None not in effect or not any(effect)
        if one.measure and "accuracy" in one.measure:
            assert one.claimed == "super" and one.after < 0.5 * one.before
        elif one.measure:
            ratio = one.after / one.before
            expected = "super" if ratio >= 2 else "harmful" if ratio >= 1.01 else "inert"
            assert one.claimed == expected, one


def test_where_sources_disagree_a_note_says_so():
    noted = {
        show(one.coordinate) for one in published("allenai/OLMo-1B-0724-hf") if "disagree" in (one.note or "")
    }
    assert noted == {"1[1764, 8041]", "2[1764, 8041]"}
    for model in ("Qwen/Qwen2.5-3B", "google/gemma-7b", "HuggingFaceTB/SmolLM2-1.7B"):
        assert all("disagree" in one.note for one in published(model))
    (gemma,) = published("gemma-7b")
    assert "not sufficient" in gemma.note and gemma.claimed is None


def test_a_model_is_known_by_its_hub_id_its_last_part_a_folder_or_the_labs_own_name():
    assert published("olmo-1b-0724-HF") == published("allenai/OLMo-1B-0724-hf")
    assert [show(one.coordinate) for one in published("models/gpt2")] == ["2[447, 666]"]
    assert [show(one.coordinate) for one in published("smollm2-135m")] == ["11[507, 1229]", "28[507, 678]"]
    assert published("smollm2-1.7b") and not published("gpt2-medium")
    assert not same_model("smollm2-135m", "HuggingFaceTB/SmolLM2-1.7B")


def test_a_check_tells_found_from_not_found_and_super_from_inert():
    entries = [
        Published("a/b", (1, 7, 21), SOURCE, "super", value=3.01),
        Published("a/b", (1, 8, 21), SOURCE, "super", value=3.0),
        Published("a/b", (2, 0, 0), SOURCE, "inert"),
        Published("a/b", (1, 21, 7), SOURCE, "super"),
        Published("a/b", (3, 7, 21), SOURCE),
    ]
    loss = zeroed({(1, 7, 21): 1.0})
    planted, neighbour, inert, swapped, deeper = verify(
        planted_model(), PROMPT, entries, loss, controls=2, progress=False
    )
    assert (planted.round, planted.rank, planted.verdict, planted.confirmed) == (1, 1, "super", True)
    assert planted.ablation.weight == 3.0 and planted.same_value
    assert planted.ablation.candidate.ratio == pytest.approx(2.71828, rel=1e-5)
    assert (neighbour.verdict, neighbour.confirmed, neighbour.same_value) == ("inert", False, False)
    assert (inert.verdict, inert.confirmed, inert.same_value) == ("inert", True, None)
    assert (swapped.verdict, swapped.confirmed, swapped.ablation) == ("outside", False, None)
    assert (deeper.verdict, deeper.confirmed) == ("outside", None)
    json.dumps([one.to_dict() for one in (planted, neighbour, inert, swapped, deeper)])


def test_a_second_super_weight_is_found_in_the_round_after_the_first():
    """Both write to one channel from one: only when the larger is out does the other carry the spike."""
    model = planted_model()
    model.h[1].mlp.c_proj.weight.data[7, 22] = 0.0
    model.h[1].mlp.c_proj.weight.data[9, 21] = 1.5
    entries = [Published("a/b", place, SOURCE, "super") for place in ((1, 9, 21), (1, 7, 21))]
    second, first = verify(model, PROMPT, entries, zeroed({}), controls=2, progress=False)
    assert (first.round, first.rank, second.round, second.rank) == (1, 1, 2, 1)


def test_models_that_are_here_are_told_from_those_that_are_not(monkeypatch):
    monkeypatch.setattr("supertf.superweights.literature.is_present", lambda name: name == "smollm2-135m")
    assert is_here("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert not is_here("nobody/has-this-model")


def test_recorded_checks_are_of_the_list_as_it_is():
    """They would otherwise tell of other coordinates, or of claims since corrected."""
    checks = recorded_checks()
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in checks
    for model, told in checks.items():
        assert told["command"].startswith("supertf superweights verify ") and told["versions"]
        listed = [one.to_dict() for one in published(model)]
        assert [{name: one[name] for name in listed[0]} for one in told["checks"]] == listed
        for one in told["checks"]:
            assert one["ratio"] > 0 and parse(one["coordinate"])
