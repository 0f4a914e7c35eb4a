"""`supertf superweights`: its four actions on a small planted model, and one line for each mistake."""

import dataclasses
import json

import pytest
from families import PROMPT, plant, tiny
from planted import CONFIG, planted_model

from supertf.analysis.losses import perplexity
from supertf.cli.main import main
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.model.gpt import GPT
from supertf.model.pretrained import save_model
from supertf.superweights.edit import scaled_weights
from supertf.superweights.literature import Published

BYTES = dataclasses.replace(CONFIG, vocab_size=257)
SENTENCE = "It was a line of a book, and then another. "


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    """A folder to work in with a planted model and a text."""
    monkeypatch.chdir(tmp_path)
    save_model(planted_model(config=BYTES), "planted")
    (tmp_path / "book.txt").write_text(SENTENCE * 8)
    return tmp_path


def run(capsys, action, *options, model="planted"):
    """Exit code, standard output and the last line of standard error (before it come progress bars)."""
    named = [model] if action == "verify" else ["--model", model]
    try:
        code = main(["superweights", action, *named, "--tokenizer", "bytes", *options])
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    return code, out, err.rstrip().rpartition("\n")[2].rpartition("\r")[2]


TEXT = ("--data", "book.txt", "--length", "16", "--max_tokens", "100")


def loss_without(*coordinates, factor=0.0):
    """The loss on the same text, computed without the command line."""
    ids = list((SENTENCE * 8).encode())[:100]
    model = planted_model(config=BYTES)
    with scaled_weights(model, coordinates, factor):
        return perplexity(model, ids, 16).loss


def test_find_gives_the_planted_weight_with_its_peaks_and_its_round(here, capsys):
    code, out, _ = run(capsys, "find", "--prompt", "Apple", "--json")
    found = json.loads(out)
    assert code == 0 and found["spikes_gone"] and found["passes"] == 2
    (one,) = found["candidates"]
    assert (one["coordinate"], one["layer"], one["out"], one["in"]) == ("1[7, 21]", 1, 7, 21)
    assert (one["weight"], one["round"], one["removed"]) == (3.0, 1, True)
    assert one["input"]["channel"] == 21 and one["output"]["channel"] == 7
    assert one["share"] * one["output"]["value"] == pytest.approx(3.0 * one["input"]["value"], rel=1e-5)
    assert [layer["layer"] for layer in found["layers"]] == [0, 1, 2]
    config = found["config"]
    assert (config["model"], config["prompt"], config["tokens"]) == ("planted", "Apple", 5)
    assert (config["threshold"], config["ratio"], config["bos"], config["dtype"]) == (
        50,
        None,
        False,
        "float32",
    )
    assert set(found["versions"]) == {"python", "supertf", "torch"}


def test_find_shows_people_every_layer_and_every_candidate(here, capsys):
    _, out, _ = run(capsys, "find", "--prompt", "Apple")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["0", "1", "2"]
    assert lines[4].endswith("1[7, 21]") and not lines[3].endswith("]")
    assert "candidates (magnitude above 50), in the order found:" in lines
    assert "after 2 passes no spike is left" in lines


def test_the_rules_of_find_are_both_options(here, capsys):
    _, out, _ = run(capsys, "find", "--threshold", "1e9", "--prompt", "Apple", "--json")
    assert json.loads(out)["candidates"] == [] and json.loads(out)["spikes_gone"]
    _, out, _ = run(capsys, "find", "--ratio", "100", "--rounds", "1", "--json", "--prompt", "Apple")
    found = json.loads(out)
    assert (found["config"]["threshold"], found["config"]["ratio"]) == (None, 100)
    assert [one["coordinate"] for one in found["candidates"]] == ["1[7, 21]"]
    assert not found["spikes_gone"] and found["passes"] == 1


def test_a_bos_token_begins_the_prompt_and_the_windows_when_asked_for(here, capsys):
    _, out, _ = run(capsys, "find", "--bos", "True", "--prompt", "Apple", "--json")
    assert json.loads(out)["config"]["tokens"] == 6
    _, out, _ = run(capsys, "scale", *TEXT, "--bos", "True", "--weight", "1[7, 21]", "--json")
    config = json.loads(out)["config"]
    assert config["bos"] and config["tokens"] == 100


def test_ablate_removes_the_first_candidate_beside_every_control(here, capsys):
    options = (*TEXT, "--prompt", "Apple", "--controls", "3")
    code, out, _ = run(capsys, "ablate", *options, "--json")
    found = json.loads(out)
    (one,) = found["weights"]
    assert code == 0 and one["coordinate"] == "1[7, 21]" and one["weight"] == 3.0
    assert one["base"]["loss"] == pytest.approx(loss_without(), abs=1e-6)
    assert one["candidate"]["loss"] == pytest.approx(loss_without((1, 7, 21)), abs=1e-6)
    assert one["ratio"] == pytest.approx(2.718281828 ** (loss_without((1, 7, 21)) - loss_without()), abs=1e-6)
    controls = one["controls"]
    assert [len(control["weights"]) for control in controls["random_each"]] == [1, 1, 1]
    assert [len(controls[name]["weights"]) for name in ("random", "largest", "row_largest", "row")] == [
        3,
        3,
        1,
        40,
    ]
    assert one["verdict"] == "inert"  # the model is random: it has nothing to lose
    _, out, _ = run(capsys, "ablate", *options)
    removed = [line.split("  ")[1] for line in out.splitlines() if line.startswith("  ")]
    assert len(removed) == 10 and removed[:3] == ["removed", "nothing", "1[7, 21]"]
    assert out.splitlines()[-1].startswith("1[7, 21] is inert: ")


def test_ablate_takes_several_weights_and_one_seed(here, capsys):
    weights = ("--weight", "1[7, 21]", "--weight", "0,3,4")
    options = (*TEXT, *weights, "--controls", "2", "--seed", "5", "--json")
    first, again = (json.loads(run(capsys, "ablate", *options)[1])["weights"] for _ in range(2))
    assert [one["coordinate"] for one in first] == ["1[7, 21]", "0[3, 4]"] and first == again


def test_scale_gives_perplexity_and_text_for_each_factor(here, capsys):
    options = (
        *TEXT,
        "--weight",
        "1[7, 21]",
        "--factors",
        "0",
        "1",
        "2",
        "--prompt",
        "It",
        "--max_new_tokens",
        "3",
    )
    _, out, _ = run(capsys, "scale", *options, "--json")
    found = json.loads(out)
    assert found["weights"] == ["1[7, 21]"] and [one["factor"] for one in found["factors"]] == [0, 1, 2]
    for one in found["factors"]:
        assert one["loss"] == pytest.approx(loss_without((1, 7, 21), factor=one["factor"]), abs=1e-6)
        assert one["text"]
    assert found["factors"][1]["ratio"] == 1
    _, out, _ = run(capsys, "scale", *options)
    assert len(out.splitlines()) == 5


def test_verify_lists_what_is_cited_and_what_is_verified_without_a_model(capsys):
    assert main(["superweights", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ours, control = (line for line in lines if "verified: " in line)
    assert "11[507, 1229]" in ours and "verified: super, perplexity x " in ours
    assert "28[507, 678]" in control and "verified: inert, perplexity x " in control
    (theirs,) = (line for line in lines if "2[3968, 7003]  " in line and "only cited" in line)
    assert "huggyllama/llama-7b" in theirs and "WikiText-2 perplexity 5.67 -> 1211.11" in theirs
    assert any("sources disagree on the layer of [1764, 8041]" in line for line in lines)
    main(["superweights", "verify", "--json"])
    listed = json.loads(capsys.readouterr().out)["published"]
    assert {one["coordinate"]: one["verified"] is not None for one in listed}["11[507, 1229]"]
    assert sum(one["verified"] is None for one in listed) == 29


def test_verify_checks_the_published_coordinates_of_a_model(here, capsys, monkeypatch):
    entries = [
        Published("lab/planted", (1, 7, 21), ("a paper",), "inert", value=3.0, note="sources disagree"),
        Published("lab/planted", (1, 21, 7), ("a paper",), "super"),
    ]
    monkeypatch.setattr("supertf.cli.superweights_verify.published", lambda model=None: entries)
    monkeypatch.setattr("supertf.cli.superweights_verify.CHECKS", here / "checks.json")
    code, out, _ = run(capsys, "verify", *TEXT, "--controls", "2", "--prompt", "Apple", "--json", "--record")
    found = json.loads(out)
    first, second = found["checks"]
    assert code == 0 and (first["verdict"], first["confirmed"], first["round"]) == ("inert", True, 1)
    assert (second["verdict"], second["inside"], second["ratio"]) == ("outside", False, None)
    recorded = json.loads((here / "checks.json").read_text())["lab/planted"]
    assert recorded["checks"] == found["checks"] and "--max_tokens 100" in recorded["command"]
    _, out, _ = run(capsys, "verify", *TEXT, "--controls", "2", "--prompt", "Apple")
    lines = out.splitlines()
    assert "pass 1, rank 1" in lines[2] and lines[2].endswith("inert, as claimed")
    assert lines[3].endswith("outside the model")
    assert lines[-1] == "  lab/planted 1[7, 21]: sources disagree"


def test_without_an_action_all_are_listed(capsys):
    assert main(["superweights"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["find", "ablate", "scale", "verify"]


@pytest.mark.parametrize(
    ("action", "options", "message"),
    [
        ("ablate", "--weight 1[7", "coordinate '1[7'; expected layer[out, in]"),
        ("ablate", "--weight 1[7,99]", "the down projection of layer 1 is 16 x 40"),
        ("scale", "--weight 3[0,0]", "the model has layers 0 to 2"),
        ("scale", "--weight 1[7,21] --factors inf", "factors are [inf]"),
        ("scale", "--weight 1[7,21] --factors much", "invalid float value: 'much'"),
        ("scale", "--weight 1[7,21] --max_tokens 1", "has 1 tokens: too short to predict any"),
        ("ablate", "--weight 1[7,21] --controls 640", "640 random controls asked for, expected 1 to 639"),
        ("ablate", "--weight 1[7,21] --data absent.txt", "absent.txt"),
        ("find", "--prompt=", "the prompt is empty"),
        ("find", "--prompt " + "a" * 30, "more than the model's context of 24"),
        ("find", "--stream True --device cuda", "--stream True computes on the CPU, not on cuda"),
        ("find", "--tokenizer smollm", "no tokenizer called 'smollm'"),
        ("verify", "", "nothing is published of planted; expected one of huggyllama/llama-7b, "),
    ],
)
def test_a_mistake_is_one_line(here, capsys, action, options, message):
    text = () if action == "find" else TEXT
    code, out, line = run(capsys, action, *text, *options.split())
    assert code == 2 and message in line and out == ""


def test_the_paper_prompt_does_not_fit_and_a_token_file_of_another_tokenizer_is_refused(here, capsys):
    _, _, line = run(capsys, "ablate", *TEXT)
    assert "the prompt has 39 tokens" in line
    prepare(
        [SENTENCE] * 9, load_tokenizer("bytes"), "tokens", max_length=8, stride=8, threads=1, progress=False
    )
    _, out, _ = run(
        capsys, "scale", "--data", "tokens/train.bin", "--weight", "1[7, 21]", "--factors", "1", "--json"
    )
    assert json.loads(out)["factors"][0]["ratio"] == 1


def test_a_model_without_a_spike_needs_a_weight(here, capsys):
    save_model(GPT(BYTES), "plain")
    _, out, line = run(capsys, "ablate", *TEXT, "--prompt", "Apple", model="plain")
    assert out == "" and "plain shows no spike above the paper's threshold: name a --weight" in line


def test_a_model_that_is_not_here_is_one_line(here, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, line = run(capsys, "verify", model="gpt2")
    assert code == 2 and out == "" and "could not fetch model 'openai-community/gpt2'" in line


def test_a_hugging_face_model_begins_with_its_own_bos_also_when_read_from_disk(here, capsys):
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
    find = ["superweights", "find", "--model", "hub", "--prompt", "a line", "--json"]
    kept, streamed = [], ["--stream", "True"]
    for options, tokens, bos in ((kept, 3, True), (streamed, 3, True), (["--bos", "False"], 2, False)):
        assert main([*find, *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["config"]["tokens"], found["config"]["bos"]) == (tokens, bos)
        assert found["candidates"][0]["coordinate"] == "1[7, 21]"
        assert "transformers" in found["versions"]
    assert main(["superweights", "ablate", "--model", "hub", "--weight", "1[7, 21]", *TEXT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["bos"]
    assert main(["superweights", "scale", "--model", "hub", "--data", "tokens.bin"]) == 2
    assert "give the text itself" in capsys.readouterr().err


@pytest.mark.parametrize("stream", ["False", "True"])
def test_find_shows_what_the_stream_takes_behind_a_norm(here, capsys, stream):
    model = tiny("Olmo2")
    plant(model, (1, 7, 21), weight=0.1, height=30.0)
    model.model.save_pretrained("hub")
    options = ("--prompt", bytes(PROMPT).decode(), "--stream", stream)
    code, out, _ = run(capsys, "find", *options, "--json", model="hub")
    (one,) = json.loads(out)["candidates"]
    assert code == 0 and one["coordinate"] == "1[7, 21]"
    assert abs(one["output"]["value"]) < 5 and abs(one["added"]["value"]) > 300
    _, out, _ = run(capsys, "find", *options, model="hub")
    assert "down projection, and what the residual stream takes of it:" in out
    (row,) = [line.split() for line in out.splitlines() if line.split()[:2] == ["1[7,", "21]"]]
    assert float(row[5]) == pytest.approx(one["added"]["value"], rel=1e-3)  # weight, value, in, out, added


@pytest.mark.real_model
def test_find_on_smollm2_lists_its_super_weight_first(one_thread, capsys):
    assert main(["superweights", "find", "--rounds", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["coordinate"] for one in found["candidates"][:2]] == ["11[507, 1229]", "28[507, 678]"]
    assert found["candidates"][0]["weight"] == pytest.approx(5.876, abs=1e-3)
    assert not found["spikes_gone"]
