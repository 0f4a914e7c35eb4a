"""Every value that a notebook offers is run; what is out of range is refused before anything is measured."""

import importlib
from pathlib import Path
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from supertf.errors import UserError
from supertf.experiments.sweep.results import recorded
from supertf.experiments.sweep.runner import run
from supertf.lab import notebook as helpers
from supertf.lab.book.executed import code_cells
from supertf.lab.book.runs import NOTEBOOKS, smoke_parameters
from supertf.lab.exercises import solved
from supertf.lab.notebook import CHECK_MIME, FIGURES_MIME

ROOT = Path(__file__).parents[2]
OTHER_TEXTS = ["readmes", "prose"]
# what is run by tests below and not by `supertf.lab.book smoke`
RUN_BELOW = {
    "01_a_small_gpt": {"POSITION": ["none", "learned", "sinusoidal", "alibi"]},
    "03_no_positions": {"PROFILE": "full"},
    "04_longer_than_trained": {"PROFILE": "full"},
    "05_super_weights": {"TEXT": OTHER_TEXTS},
    "06_inside_a_super_weight": {"TEXT": OTHER_TEXTS},
    "07_pruning": {"TEXT": OTHER_TEXTS, "METHODS": list(recorded("pruning").variants)},
    "08_smaller_and_faster": {"TEXT": OTHER_TEXTS},
    "09_quantization": {"TEXT": OTHER_TEXTS},
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def declared(name: str, **parameters) -> dict[str, Any]:
    """What a notebook's two cells of parameters define, with some values set from outside."""
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    at = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    namespace = {**vars(helpers), "recorded": recorded}
    exec(cells[at].source, namespace)
    namespace.update(parameters)
    exec(cells[at + 1].source, namespace)
    return namespace


NAMES = [path.stem for path in sorted((ROOT / NOTEBOOKS).glob("[0-9]*.ipynb"))]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_quick_parameters_are_in_range(name):
    for parameters in ({}, smoke_parameters()[name]):
        declared(name, **parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_offered_is_run(name, monkeypatch):
    offered = {}

    def one_of(choices, why="", **parameters):
        for parameter in parameters:
            offered.setdefault(parameter, list(choices))

    monkeypatch.setattr(helpers, "one_of", one_of)
    defaults = declared(name)
    for parameter, choices in offered.items():
        values = [smoke_parameters()[name].get(parameter, defaults[parameter])]
        values.append(RUN_BELOW.get(name, {}).get(parameter))
        tried = [one for value in values for one in (value if isinstance(value, list | dict) else [value])]
        assert set(choices) <= set(tried), f"{parameter}: a run for each, quick or below"


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("00_start_here", {"FACTORS": [0.0, 2.0]}, "FACTORS is .* with 0, 1 in it"),
        ("00_start_here", {"THRESHOLD": 5000.0}, "THRESHOLD is 5000.0; .* at most 300"),
        ("01_a_small_gpt", {"STEPS": 60}, "STEPS is 60; .* at least 300: a shorter training"),
        ("01_a_small_gpt", {"POSITION": "rotary"}, "POSITION is 'rotary'; expected one of 'none', 'learned'"),
        ("02_scalable_softmax", {"LONGEST": 200}, "LONGEST is 200; .* at least 4,096 .*: over fewer items"),
        ("03_no_positions", {"LAYERS": 1}, "LAYERS is 1; .* at least 2 .*: one layer sees a bag"),
        ("04_longer_than_trained", {"PROFILE": "quick"}, "PROFILE is 'quick'; expected one of 'lab', 'full'"),
        ("05_super_weights", {"TOKENS": 8}, "TOKENS is 8; .* at least 48"),
        (
            "07_pruning",
            {"METHODS": ["wanda 25%"]},
            r"METHODS is \['wanda 25%'\]; expected one of 'random 10%'",
        ),
        (
            "07_pruning",
            {"METHODS": ["sparsegpt 50%"]},
            "METHODS is .*: the others are in the recorded run only",
        ),
        (
            "08_smaller_and_faster",
            {"SHARES": [0.3]},
            "SHARES is .* with 0.5 in it: section 3 compares with it",
        ),
        ("09_quantization", {"KINDS": ["attn.c_attn"]}, "KINDS is .* 'mlp.c_proj' in it"),
        ("10_train_on_a_gpu", {"RECIPE": "gpt5"}, "unknown recipe 'gpt5'; choose from"),
        (
            "10_train_on_a_gpu",
            {"VARIANTS": ["ssmax"]},
            "lab has no variant 'ssmax'; choose from softmax rope",
        ),
    ],
)
def test_out_of_range_is_told_by_name_and_range(name, parameters, message):
    with pytest.raises(UserError, match=message):
        declared(name, **parameters)


# --- values too slow, or too many, for the quick run ------------------------------------------------------


@pytest.fixture
def run_here(monkeypatch):
    """Returns a function that runs a notebook's cells in this process, with quick parameters but for some.

    A kernel would first spend seconds on imports, and that notebooks run in one is seen by `supertf.lab.book
    smoke`. Figures are drawn after every cell, as there; what a widget shows at first is computed, and may
    raise; exercises are left alone. Cells with one of the texts `without` are not run, and `given` has what
    they would have defined. Returns the headline figures.
    """
    shown = []
    for module in (helpers, solved):
        monkeypatch.setattr(module, "show", lambda mime, value, text: shown.append((mime, value)))
    monkeypatch.setattr(plt, "show", draw_all)
    monkeypatch.setattr(ipywidgets, "interact", lambda call, **k: call(**{n: w.value for n, w in k.items()}))

    def run_cells(name: str, without: tuple = (), given: dict | None = None, **parameters) -> dict[str, Any]:
        parameters = smoke_parameters()[name] | parameters
        shown.clear()
        namespace = dict(given or {})
        for cell in code_cells(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)):
            if any(text in cell.source for text in ("google.colab", *without)):
                continue
            exec(cell.source, namespace)
            draw_all()
            if "parameters" in cell.metadata.get("tags", []):
                assert parameters.keys() <= namespace.keys()
                namespace.update(parameters)
        assert {value["status"] for mime, value in shown if mime == CHECK_MIME} == {"unsolved"}
        return next(dict(value["figures"]) for mime, value in shown if mime == FIGURES_MIME)

    with plt.rc_context():
        yield run_cells


def draw_all() -> None:
    """Draw all figures and forget them, as notebooks do."""
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("position", RUN_BELOW["01_a_small_gpt"]["POSITION"])
def test_01_runs_with_every_position_code(run_here, position):
    assert run_here("01_a_small_gpt", POSITION=position, LAYERS=1)["validation_loss"] > 0


@pytest.mark.slow
def test_03_trains_all_position_codes_where_that_is_asked_for(run_here):
    assert "cost_against_rope" in run_here("03_no_positions", PROFILE="full", PERMUTATIONS=2, LENGTH=32)


@pytest.mark.slow
@pytest.mark.real_model
def test_09_rounds_matrices_of_all_kinds(smollm2, run_here):
    assert "worst_nothing_held" in run_here("09_quantization", TEXT="prose", KINDS=None, PACKINGS=["int8"])


@pytest.mark.slow
def test_04_reads_an_experiment_that_it_ran_itself(tmp_path, monkeypatch, run_here):
    """PROFILE = "full" takes half an hour. Here its cells are in the cache, as after an interrupted run."""
    kept = recorded("recall")
    module, name = kept.experiment.measure.split(":")

    def known(settings, seed, lengths):
        return next(c["result"] for c in kept.cells if (c["settings"], c["seed"]) == (settings, seed))

    def again(settings, seed, lengths):
        pytest.fail(f"not found in the cache: {settings}, seed {seed}")

    known.__module__ = again.__module__ = f"supertf.experiments.{module}"
    monkeypatch.setattr(importlib.import_module(known.__module__), name, known)
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    run("recall", progress=False)
    monkeypatch.setattr(importlib.import_module(known.__module__), name, again)
    same = ("train_on_task(", "load_model(", "(smollm2")  # trains, or reads the real model, in every profile
    figures = run_here("04_longer_than_trained", same, {"live": {}}, PROFILE="full")
    assert figures["recall_2048_ssmax"] >= 0.99


def save_with_byte_tokenizer(family: str, folder: Path, size: int = 20_000) -> None:
    """A small random model of a family of transformers in a folder, with a tokenizer of bytes.

    It is wide, and its vocabulary large, so that the two steps of notebook 08's head read less than the head.
    """
    pieces = ["<s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"piece {i}" for i in range(len(pieces), size)]  # that no text has
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "<s>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": size}
    sizes |= {"bos_token_id": 0, "eos_token_id": 0}
    sizes |= {} if family == "GPT2" else {"intermediate_size": 512}
    sizes |= {"num_key_value_heads": 2} if family == "Llama" else {}
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**sizes)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["05_super_weights", "06_inside_a_super_weight"])
@pytest.mark.parametrize(("family", "text"), [("GPT2", "readmes"), ("GPTNeoX", "prose")])
def test_05_and_06_run_on_another_model(tmp_path, run_here, name, family, text):
    """The lab reads one of the families, transformers the other."""
    save_with_byte_tokenizer(family, tmp_path)
    run_here(name, MODEL=str(tmp_path), TEXT=text)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_00_runs_on_another_model(tmp_path, run_here, family):
    save_with_byte_tokenizer(family, tmp_path)
    assert "ratio_when_zeroed" in run_here("00_start_here", MODEL=str(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_07_and_08_run_on_another_model_with_every_method(tmp_path, run_here, text):
    save_with_byte_tokenizer("Llama", tmp_path)
    given = {"MODEL": str(tmp_path), "TEXT": text, "WEIGHTS": ["1[3, 5]", "2[3, 7]"]}
    offered = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            helpers,
            "one_of",
            lambda choices, why="", **named: offered.update({k: list(choices) for k in named}),
        )
        declared("07_pruning")
    assert "wanda_half" in run_here("07_pruning", METHODS=offered["METHODS"], **given)
    assert "its_column" in run_here("08_smaller_and_faster", **given)


@pytest.mark.slow
@pytest.mark.parametrize("text", OTHER_TEXTS)
def test_09_rounds_all_matrices_of_another_model_and_goes_without_most_packings(tmp_path, run_here, text):
    save_with_byte_tokenizer("Llama", tmp_path)
    given = {"MODEL": str(tmp_path), "TEXT": text, "WEIGHTS": ["1[3, 5]", "2[3, 7]"], "KINDS": None}
    given |= {"BLOCKS": ["64", "channel", "16384"], "PACKINGS": ["int8"]}
    assert "worst_nothing_held" in run_here("09_quantization", **given)
