"""`supertf superweights`: its four actions on a small planted model."""

import json

import pytest
from families import PROMPT, plant, tiny

from supertf.analysis.losses import perplexity
from supertf.data.tokenizer import load_tokenizer, save_tokenizer
from supertf.model.gpt import GPT
from supertf.model.pretrained import load_model, save_model
from supertf.superweights.edit import scaled_weights
from supertf.superweights.literature import Published

TEXT = "--model planted --data book.txt --length 16 --max_tokens 100"
SUPER = "--weight '1[7, 21]'"
FIND = "superweights find --model planted --prompt Apple"


def loss_without(*coordinates, factor=0.0):
    """The loss on the same text, computed without the command line."""
    model = load_model("planted")
    with scaled_weights(model, coordinates, factor), open("book.txt") as file:
        return perplexity(model, list(file.read().encode())[:100], 16).loss


def test_find_gives_the_planted_weight_with_its_peaks_and_its_round(here, supertf):
    found = supertf(f"{FIND} --json").json
    assert found["spikes_gone"] and found["passes"] == 2
    (one,) = found["candidates"]
    assert set(one) == {
        *("coordinate", "layer", "out", "in", "weight", "input", "output", "added", "share", "size"),
        *("ratio", "round", "removed"),
    }
    assert (one["coordinate"], one["layer"], one["out"], one["in"]) == ("1[7, 21]", 1, 7, 21)
    assert (one["weight"], one["round"], one["removed"]) == (3.0, 1, True)
    assert one["input"]["channel"] == 21 and one["output"]["channel"] == 7
    assert one["share"] * one["output"]["value"] == pytest.approx(3.0 * one["input"]["value"], rel=1e-5)
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    assert found["config"] == {
        **{"model": "planted", "prompt": "Apple", "tokens": 5, "threshold": 50, "ratio": None, "rounds": 8},
        **{"stream": False, "bos": False, "device": "cpu", "dtype": "float32"},
    }
    assert set(found["versions"]) == {"python", "supertf", "torch"}


def test_find_shows_people_every_layer_and_every_candidate(here, supertf):
    lines = supertf(FIND).out.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["0", "1", "2"]
    assert lines[4].endswith("1[7, 21]") and not lines[3].endswith("]")
    assert "candidates (magnitude above 50), in the order found:" in lines
    assert "after 2 passes no spike is left" in lines


def test_the_rules_of_find_are_both_options(here, supertf):
    found = supertf(f"{FIND} --threshold 1e9 --json").json
    assert found["candidates"] == [] and found["spikes_gone"]
    found = supertf(f"{FIND} --ratio 100 --rounds 1 --json").json
    assert (found["config"]["threshold"], found["config"]["ratio"]) == (None, 100)
    assert [one["coordinate"] for one in found["candidates"]] == ["1[7, 21]"]
    assert not found["spikes_gone"] and found["passes"] == 1


def test_a_bos_token_begins_the_prompt_and_the_windows_when_asked_for(here, supertf):
    assert supertf(f"{FIND} --bos True --json").json["config"]["tokens"] == 6
    config = supertf(f"superweights scale {TEXT} {SUPER} --bos True --json").json["config"]
    assert config["bos"] and config["tokens"] == 100


def test_ablate_removes_the_first_candidate_beside_every_control(here, supertf):
    line = f"superweights ablate {TEXT} --prompt Apple --controls 3"
    (one,) = supertf(f"{line} --json").json["weights"]
    assert one["coordinate"] == "1[7, 21]" and one["weight"] == 3.0
    assert one["base"]["loss"] == pytest.approx(loss_without(), abs=1e-6)
    assert one["candidate"]["loss"] == pytest.approx(loss_without((1, 7, 21)), abs=1e-6)
    assert one["ratio"] == one["candidate"]["ratio"]
    controls = {
        name: len(one.get("weights", "")) for name, one in one["controls"].items() if name != "random_each"
    }
    assert controls == {"random": 3, "largest": 3, "row_largest": 1, "row": 40}
    assert [len(control["weights"]) for control in one["controls"]["random_each"]] == [1, 1, 1]
    assert one["verdict"] == "inert"  # the model is random: it has nothing to lose
    said = supertf(line)
    removed = [line.split("  ")[1] for line in said.out.splitlines() if line.startswith("  ")]
    assert len(removed) == 10 and removed[:3] == ["removed", "nothing", "1[7, 21]"]
    assert said.out.splitlines()[-1].startswith("1[7, 21] = 3 is inert: ")


def test_ablate_takes_several_weights_and_one_seed(here, supertf):
    line = f"superweights ablate {TEXT} {SUPER} --weight 0,3,4 --controls 2 --seed 5 --json"
    first, again = (supertf(line).json["weights"] for _ in range(2))
    assert [one["coordinate"] for one in first] == ["1[7, 21]", "0[3, 4]"] and first == again


def test_scale_gives_perplexity_and_text_for_each_factor(here, supertf):
    line = f"superweights scale {TEXT} {SUPER} --factors 0 1 2 --prompt It --max_new_tokens 3"
    found = supertf(f"{line} --json").json
    assert found["weights"] == ["1[7, 21]"] and [one["factor"] for one in found["factors"]] == [0, 1, 2]
    for one in found["factors"]:
        assert one["loss"] == pytest.approx(loss_without((1, 7, 21), factor=one["factor"]), abs=1e-6)
        assert one["text"]
    assert found["factors"][1]["ratio"] == 1
    assert len(supertf(line).out.splitlines()) == 5
    curve = supertf(f"superweights scale {TEXT} {SUPER} --json").json["factors"]
    assert [one["factor"] for one in curve] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3]


def test_verify_lists_what_is_cited_and_what_is_verified_without_a_model(supertf):
    lines = supertf("superweights verify").out.splitlines()
    ours, control = (line for line in lines if "verified: " in line)
    assert "11[507, 1229]" in ours and "verified: super, perplexity x " in ours
    assert "28[507, 678]" in control and "verified: inert, perplexity x " in control
    (theirs,) = (line for line in lines if "2[3968, 7003]  " in line and "only cited" in line)
    assert "huggyllama/llama-7b" in theirs and "WikiText-2 perplexity 5.67 -> 1211.11" in theirs
    assert any("sources disagree on the layer of [1764, 8041]" in line for line in lines)
    listed = supertf("superweights verify --json").json["published"]
    assert {one["coordinate"]: one["verified"] is not None for one in listed}["11[507, 1229]"]
    assert sum(one["verified"] is None for one in listed) == 29


def test_verify_checks_the_published_coordinates_of_a_model(here, supertf, monkeypatch):
    entries = [
        Published("lab/planted", (1, 7, 21), ("a paper",), "inert", value=3.0, note="sources disagree"),
        Published("lab/planted", (1, 21, 7), ("a paper",), "super"),
    ]
    monkeypatch.setattr("supertf.superweights.published", lambda model=None: entries)
    monkeypatch.setattr("supertf.superweights.CHECKS", here / "checks.json")
    line = f"superweights verify {TEXT.removeprefix('--model ')} --controls 2 --prompt Apple"
    found = supertf(f"{line} --json --record").json
    assert set(found) == {"config", "versions", "seconds", "published", "checks", "together"}
    first, second = found["checks"]
    assert (first["verdict"], first["confirmed"], first["round"]) == ("inert", True, 1)
    assert (second["verdict"], second["inside"], second["ratio"]) == ("outside", False, None)
    recorded = json.loads((here / "checks.json").read_text())["lab/planted"]
    assert recorded["checks"] == found["checks"] and "--max_tokens 100" in recorded["command"]
    lines = supertf(line).out.splitlines()
    assert "pass 1, rank 1" in lines[2] and lines[2].endswith("inert, as claimed")
    assert lines[3].endswith("outside the model")
    assert lines[-1] == "  lab/planted 1[7, 21]: sources disagree"


def test_token_files_of_the_models_tokenizer_are_texts(here, supertf):
    line = f"superweights scale --model planted --data train.bin --length 16 {SUPER} --factors 1 --json"
    assert supertf(line).json["factors"][0]["ratio"] == 1


def test_a_model_without_a_spike_needs_a_weight(here, supertf):
    save_model(GPT(load_model("planted").config), "plain")
    save_tokenizer(load_tokenizer("bytes"), here / "plain/tokenizer.json")
    said = supertf(f"superweights ablate {TEXT.replace('planted', 'plain')} --prompt Apple")
    assert said.out == "" and "plain shows no spike above the paper's threshold: name a --weight" in said.line


def test_a_hugging_face_model_begins_with_its_own_bos_also_when_read_from_disk(here, supertf):
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    model = tiny("GPTNeoX")
    plant(model, (1, 7, 21))
    model.model.save_pretrained("hub")
    tokenizer = Tokenizer(models.WordLevel({"</s>": 2, "<s>": 3, "line": 4, "<unk>": 5}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained("hub")
    for options, tokens, bos in (("", 3, True), ("--stream True", 3, True), ("--bos False", 2, False)):
        found = supertf(f"superweights find --model hub --prompt 'a line' --json {options}").json
        assert (found["config"]["tokens"], found["config"]["bos"]) == (tokens, bos)
        assert found["candidates"][0]["coordinate"] == "1[7, 21]"
        assert "transformers" in found["versions"]
    text = TEXT.replace("planted", "hub")
    assert supertf(f"superweights ablate {text} {SUPER} --json").json["config"]["bos"]
    said = supertf("superweights scale --model hub --data tokens.bin")
    assert said.code == 2 and "give the text itself" in said.line


@pytest.mark.parametrize("stream", ["False", "True"])
def test_find_shows_what_the_stream_takes_behind_a_norm(here, supertf, stream):
    model = tiny("Olmo2")
    plant(model, (1, 7, 21), weight=0.1, height=30.0)
    model.model.save_pretrained("hub")
    line = f"superweights find --model hub --tokenizer bytes --stream {stream} --prompt"
    (one,) = supertf(line, bytes(PROMPT).decode(), "--json").json["candidates"]
    assert one["coordinate"] == "1[7, 21]"
    assert abs(one["output"]["value"]) < 5 and abs(one["added"]["value"]) > 300
    out = supertf(line, bytes(PROMPT).decode()).out
    assert "down projection, and what the residual stream takes of it:" in out
    (row,) = [line.split() for line in out.splitlines() if line.split()[:2] == ["1[7,", "21]"]]
    assert float(row[5]) == pytest.approx(one["added"]["value"], rel=1e-3)  # weight, value, in, out, added
