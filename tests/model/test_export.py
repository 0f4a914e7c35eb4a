"""Models for others: transformers computes the same logits, this lab reads the same bits."""

import dataclasses
import shutil

import huggingface_hub
import pytest
import torch
from tiny import tiny_tokens

from supertf.errors import UserError
from supertf.files import read_json
from supertf.model.config import GPTConfig
from supertf.model.export import export_model, family_of, push_to_hub
from supertf.model.gpt import GPT
from supertf.model.hf_model import load
from supertf.model.pretrained import load_model, save_model
from supertf.training.loop import train
from supertf.training.settings import TrainSettings

BASE = GPTConfig(vocab_size=257, n_ctx=32, n_layer=2, n_head=4, n_embd=16, n_inner=40, init_std=0.2)
LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
IDS = torch.arange(30)[None] * 7 % 257


def saved(folder, config):
    """A random model on disk, its norms and biases no ones and zeros."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_model(model, folder)
    return model


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", LLAMA),
        ("llama", {**LLAMA, "n_kv_head": 2, "tie_head": False, "rope_base": 500.0}),
        ("llama", {**LLAMA, "n_head_dim": 8}),
        ("gpt2", {}),
        ("gpt2", {"tie_head": False, "n_inner": None}),
    ],
)
def test_transformers_computes_the_same_logits_and_the_lab_reads_the_same_bits(tmp_path, family, changes):
    transformers = pytest.importorskip("transformers")
    model = saved(tmp_path / "own", dataclasses.replace(BASE, **changes))
    assert export_model(tmp_path / "own", tmp_path / "theirs") == family
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(info.values()), "no tensor is missing, left over or of another shape"
    with torch.no_grad():
        expected = model(IDS).logits
        assert torch.allclose(theirs(IDS).logits, expected, atol=1e-5, rtol=1e-5)
    if model.config.n_head_dim is None:
        again = load_model(tmp_path / "theirs").state_dict()
        assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "none"},
        {"attention": "ssmax"},
        {**LLAMA, "attention": "ssmax"},
        {**LLAMA, "rope_fraction": 0.5},
        {**LLAMA, "qk_norm": True},
        {**LLAMA, "bias": True},
        {"zero_key": True},
        {"mlp": "swiglu"},
        {"n_kv_head": 2},
        {"position": "alibi"},
    ],
)
def test_what_transformers_lacks_stays_in_the_labs_format(tmp_path, changes):
    model = saved(tmp_path / "own", dataclasses.replace(BASE, **changes))
    assert family_of(model.config) == "supertf" == export_model(tmp_path / "own", tmp_path / "out")
    again = load_model(tmp_path / "out")
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert "supertf.load(" in (tmp_path / "out/README.md").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps whose windows begin with a BOS token."""
    folder = tmp_path_factory.mktemp("run")
    config = dataclasses.replace(BASE, **LLAMA)
    settings = TrainSettings(steps=2, batch_size=2, validation_windows=2, device="cpu", progress=False)
    train(config, *tiny_tokens(folder), settings, output_dir=folder / "run")
    return folder / "run"


def test_a_run_keeps_its_tokenizer_its_bos_token_and_how_it_was_trained(run, tmp_path):
    assert export_model(run, tmp_path / "out", place="owner/name") == "llama"
    _, tokenizer = load(tmp_path / "out")
    assert tokenizer.bos_id == tokenizer.eot_token == read_json(tmp_path / "out/config.json")["bos_token_id"]
    text = (tmp_path / "out/README.md").read_text()
    assert text.startswith("---\nlibrary_name: transformers\n") and "# name" in text
    assert (
        "| steps | 2 |" in text
        and "| training: seed | 0 |" in text
        and 'from_pretrained("owner/name")' in text
    )
    assert not list((tmp_path / "out").rglob("optimizer*"))


def test_an_exported_file_that_was_changed_is_noticed(run, tmp_path):
    export_model(run, tmp_path / "out")
    weights = tmp_path / "out/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(UserError, match="was changed since it was written"):
        load(tmp_path / "out")


class Hub:
    """A hub of folders on this disk."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, repo_id, private, exist_ok):
        assert exist_ok and not private
        (self.root / repo_id).mkdir(parents=True)

    def upload_folder(self, repo_id, folder_path):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})


def test_what_was_pushed_is_loaded_by_its_name(run, tmp_path, monkeypatch):
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: str(tmp_path / name))
    assert push_to_hub(run, "owner/name") == "https://hub/owner/name/commit/1"
    model, tokenizer = load("owner/name")
    expected = load_model(run)
    assert torch.equal(model(IDS).logits, expected(IDS).logits)
    assert tokenizer.bos_id is not None and tokenizer.encode("It") == load(run)[1].encode("It")


def test_without_a_network_pushing_is_one_clear_line(run, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fail)
    with pytest.raises(UserError, match=r"could not push to 'owner/name' \(ConnectionError: no route\)"):
        push_to_hub(run, "owner/name")
