"""Every command that takes a model takes every kind of model, and says what it guesses or cannot measure."""

import dataclasses
import json
import shutil

import pytest
import torch
from families import SMALL, tiny
from own_tokenizers import SENTENCE, own_tokenizer
from planted import CONFIG, planted_model

from supertf.analysis.losses import loss_by_position, perplexity
from supertf.cli.main import main
from supertf.cli.subject import Subject
from supertf.data.tokenizer import load_tokenizer, save_tokenizer
from supertf.model.generation import generate
from supertf.model.hf_model import load
from supertf.model.hf_tokenizer import HFTokenizer
from supertf.model.pretrained import save_model

transformers = pytest.importorskip("transformers")
BYTES = dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64)
SIZE = 300  # of the Hugging Face tokenizer's vocabulary
TEXT = ("--data", "book.txt", "--length", "16")
WEIGHT = ("--weight", "1[7, 21]", "--max_tokens", "60")
COMMANDS = {
    "generate": ("--prompt", "It", "--max_new_tokens", "4"),
    "eval": (*TEXT, "--max_tokens", "60"),
    "superweights find": ("--prompt", "It was"),
    "superweights ablate": (*TEXT, *WEIGHT, "--controls", "2"),
    "superweights scale": (*TEXT, *WEIGHT, "--factors", "0", "1", "--prompt", "It", "--max_new_tokens", "4"),
    "prune": (*TEXT, "--method", "magnitude", "--windows", "2", "--prompt", "It", "--max_new_tokens", "4"),
    "quantize": (*TEXT, "--windows", "2", "--prompt", "It", "--max_new_tokens", "4"),
}


BESIDE = {
    *("config", "versions", "command", "seconds", "perplexity", "loss", "parameters", "text", "saved"),
    *("by_kind", "by_matrix", "watched"),
}
KEYS = {  # of the JSON, which scripts rely on
    "generate": {
        *("model", "prompt", "text", "bos", "prompt_tokens", "new_tokens", "tokens_per_second"),
        *("temperature", "seed", "weights", "device"),
    },
    "eval": {
        *("model", "data", "tokens", "length", "context", "stride", "bos", "loss", "perplexity"),
    },
    "superweights find": {
        *("config", "versions", "seconds", "passes", "spikes_gone", "candidates", "layers"),
    },
    "superweights ablate": {"config", "versions", "seconds", "weights"},
    "superweights scale": {"config", "versions", "seconds", "weights", "factors"},
    "prune": {*BESIDE, "unit", "sparsity"},
    "quantize": {*BESIDE, "weights", "bits_per_weight", "bytes"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a text and a model of every kind that is a folder."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "book.txt").write_text(SENTENCE * 40)
    patch = pytest.MonkeyPatch()
    patch.setitem(SMALL, "vocab_size", SIZE)
    patch.setitem(SMALL, "max_position_embeddings", 64)
    for name, family in {"llama": "Llama", "neox": "GPTNeoX", "opt": "OPT", "gpt2-own": "GPT2"}.items():
        tiny(family).model.save_pretrained(folder / name)
        own_tokenizer(SIZE, bos="<|im_start|>" if name == "llama" else None).save_pretrained(folder / name)
    patch.undo()
    save_model(planted_model(config=BYTES), folder / "saved")
    save_tokenizer(load_tokenizer("bytes"), folder / "saved/tokenizer.json")
    assert run(folder, "prune", "llama", "--method", "magnitude", *COMMANDS["prune"], "--save", "pruned") == 0
    return folder


def run(folder, command, model, *options):
    """The exit code of a command in a folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return main([*command.split(), "--model", model, *options])


@pytest.mark.parametrize("model", ["llama", "pruned", "neox", "gpt2-own", "saved"])
@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_reads_every_kind_of_model(models, capsys, one_thread, command, model):
    """A Llama with a tokenizer of its own, what `prune --save` makes of it, a model that only transformers
    reads, a GPT-2 with its own tokenizer, and a model of this lab's."""
    assert run(models, command, model, *COMMANDS[command], "--json") == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert set(found) == KEYS[command]
    begins = model in ("llama", "pruned")  # as the tokenizer says
    assert found.get("config", found)["bos"] == begins


@pytest.mark.parametrize("model", ["pruned", "neox"])
def test_eval_and_generate_say_what_the_package_says(models, capsys, one_thread, model):
    loaded, tokenizer = load(models / model)
    bos = tokenizer.tokenizer.convert_tokens_to_ids("<|im_start|>") if model == "pruned" else None
    ids = tokenizer.encode_ordinary(SENTENCE * 40)[:60]
    assert run(models, "eval", model, *COMMANDS["eval"], "--by_position", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loss"] == pytest.approx(perplexity(loaded, ids, 16, bos_id=bos).loss)
    assert found["loss_by_position"] == pytest.approx(loss_by_position(loaded, ids, 16, bos_id=bos).tolist())
    assert found["context"] == 64
    assert run(models, "generate", model, *COMMANDS["generate"], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    prompt = [*([] if bos is None else [bos]), *tokenizer.encode_ordinary("It")]
    assert found["text"] == tokenizer.decode(generate(loaded, prompt, 4, stop=tokenizer.ends))
    assert found["prompt_tokens"] == len(prompt)


def test_a_tokenizer_can_be_that_of_another_model(models, capsys, one_thread, tmp_path):
    shutil.copytree(models / "llama", tmp_path / "bare")
    for file in (tmp_path / "bare").glob("tokenizer*"):
        file.unlink()
    shutil.copy(models / "book.txt", tmp_path)
    losses = []
    for folder, model, named in (
        (models, "llama", ()),
        (tmp_path, "bare", ("--tokenizer", str(models / "llama"))),
    ):
        assert run(folder, "eval", model, *COMMANDS["eval"], *named, "--json") == 0
        losses.append(json.loads(capsys.readouterr().out)["loss"])
    assert losses[0] == losses[1]
    assert run(tmp_path, "eval", "bare", *COMMANDS["eval"]) == 2
    assert "one named with --tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["eval", "superweights ablate", "prune", "quantize"])
def test_windows_are_no_longer_than_the_context_unless_asked_for(models, capsys, one_thread, command):
    """One rule for all: by default they fit; a table of positions refuses longer ones; else it is said."""
    options = list(COMMANDS[command])
    at = options.index("--length")
    default, longer = options[:at] + options[at + 2 :], [*options[: at + 1], "70", *options[at + 2 :]]
    for name, value in (("--max_tokens", "150"), ("--windows", "1")):
        for some in (default, longer):
            if name in some:
                some[some.index(name) + 1] = value
    assert run(models, command, "opt", *default, "--json") == 0
    printed = capsys.readouterr()
    assert '"length": 64' in printed.out and '"context": 64' in printed.out and "note:" not in printed.err
    assert run(models, command, "opt", *longer, "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "the model has positions for 64 tokens and was given 70" in printed.err
    for model in ("neox", "llama"):
        assert run(models, command, model, *longer, "--json") == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)
        note = f"note: 70 tokens are beyond the context of 64 that {model} was made for"
        assert [note in line for line in printed.err.splitlines() if "note:" in line] == [True]


@pytest.mark.parametrize("command", list(COMMANDS))
@pytest.mark.parametrize("model", ["llama", "neox", "saved"])
def test_weights_that_are_no_numbers_are_one_line_and_no_result(
    models, capsys, one_thread, tmp_path, command, model
):
    from safetensors.torch import load_file, save_file

    shutil.copytree(models / model, tmp_path / model)
    shutil.copy(models / "book.txt", tmp_path)
    path = tmp_path / model / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "mlp" in name and name.endswith("weight"))
    tensors[name][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    options = [*COMMANDS[command], *(["--protect", "none"] if command in ("prune", "quantize") else [])]
    assert run(tmp_path, command, model, *options, "--json") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    line = printed.err.rstrip().rpartition("\n")[2]
    assert (
        line.startswith(f"supertf {command.split()[0]}: ") and "nan" in line.lower()
    ) or "not finite" in line


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """Models whose greedy choice is an id beyond their tokenizer: this lab's and one of transformers."""
    folder = tmp_path_factory.mktemp("padded")
    (folder / "book.txt").write_text(SENTENCE * 40)
    ours = planted_model(config=dataclasses.replace(BYTES, vocab_size=320, tie_head=False))
    patch = pytest.MonkeyPatch()
    patch.setitem(SMALL, "vocab_size", 320)
    patch.setitem(SMALL, "max_position_embeddings", 64)
    theirs = tiny("GPTNeoX").model
    patch.undo()
    with torch.no_grad():
        for head in (ours.lm_head.weight, theirs.lm_head.weight):
            head[310] = 50 * head[64]
            head[311] = -head[310]  # one of the two is the largest
    save_model(ours, folder / "ours")
    save_tokenizer(load_tokenizer("bytes"), folder / "ours/tokenizer.json")
    theirs.save_pretrained(folder / "theirs")
    own_tokenizer(SIZE).save_pretrained(folder / "theirs")
    return folder


@pytest.mark.parametrize("command", ["generate", "superweights scale", "prune", "quantize"])
@pytest.mark.parametrize("model", ["ours", "theirs"])
def test_ids_beyond_the_tokenizer_are_not_generated(padded, capsys, one_thread, command, model):
    loaded, _ = load(padded / model)
    assert max(generate(loaded, [64, 65], 4)) >= 310
    options = [*COMMANDS[command], *(["--protect", "none"] if command in ("prune", "quantize") else [])]
    assert run(padded, command, model, *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    text = found["text"] if command == "generate" else found.get("text", found.get("factors", [None])[-1])
    assert text
    if command == "generate":
        assert run(padded, command, model, *options, "--temperature", "1", "--seed", "1") == 0


def test_a_bidirectional_model_gives_no_verdict(models, capsys, one_thread, monkeypatch):
    monkeypatch.setitem(SMALL, "vocab_size", SIZE)
    config = transformers.Gemma3TextConfig(**SMALL, head_dim=8, use_bidirectional_attention=True)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(models / "both-ways")
    own_tokenizer(SIZE).save_pretrained(models / "both-ways")
    for command, options in COMMANDS.items():
        assert run(models, command, "both-ways", *options) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and "is not a causal language model" in printed.err


def test_a_guess_is_a_note_on_stderr_and_not_in_the_result(models, capsys, one_thread, monkeypatch):
    monkeypatch.setattr("supertf.model.hf_tokenizer.load_tokenizer", load_tokenizer_of_bytes)
    save_model(planted_model(config=dataclasses.replace(BYTES, vocab_size=50257)), models / "gpt2")
    assert run(models, "eval", "gpt2", *COMMANDS["eval"], "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["tokens"] == 59
    assert printed.err.count("\n") == 1
    assert printed.err.startswith(
        "supertf eval: note: there is no tokenizer beside the weights of gpt2: taking gpt2's"
    )


def load_tokenizer_of_bytes(name):
    """In place of GPT-2's vocabulary, which may not be here."""
    return load_tokenizer("bytes")


def test_text_is_spoken_in_whole_characters_as_the_tokenizer_decodes_it(models):
    """Characters of several tokens, and a tokenizer that leaves a first space out."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds

    subject = Subject(str(models / "neox"))
    text = "It was 𝄞 हिन्दी £3, and"
    ids = subject.encode(text)
    pieces = list(subject.spoken(ids[:3], ids[3:]))
    assert len(ids) > len(pieces) > 10 and "".join(pieces) == text.removeprefix(
        subject.tokenizer.decode(ids[:3])
    )
    assert "�" not in "".join(pieces)
    assert "".join(subject.spoken(ids[:3], ids[3:6])).endswith("�")  # cut off within a character
    words = Tokenizer(kinds.WordLevel({"▁It": 0, "▁was": 1, "▁a": 2, "<e>": 3}, unk_token="<e>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    subject.tokenizer = HFTokenizer(
        transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<e>")
    )
    assert subject.tokenizer.decode([1, 2]) == "was a"
    assert list(subject.spoken([0], [1, 2])) == [" was", " a"]
