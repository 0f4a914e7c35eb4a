"""Hugging Face models behind this lab's interface: same numbers as transformers', also read from disk."""

import math

import pytest
import torch
from families import FAMILIES, LAYERS, PROMPT, SMALL, WIDTH, hugging_face, plant, tiny

from supertf.analysis.losses import loss_by_position, perplexity
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import Note, UserError
from supertf.model import hf_model
from supertf.model.generation import generate
from supertf.model.gpt import GPT
from supertf.model.hf_model import HFModel, load, load_hf_model
from supertf.model.hf_tokenizer import HFTokenizer
from supertf.model.pretrained import save_model
from supertf.model.weight_matrices import output_projections
from supertf.superweights.edit import scaled_weights
from supertf.superweights.find import candidates, find_spikes, search

transformers = pytest.importorskip("transformers")
TEXT = [7, 3, 44, 12, 9, 9, 1, 30, 25, 6, 18, 2, 41]


@pytest.fixture(autouse=True)
def quiet():
    """Writing checkpoints draws transformers' bars."""
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def peer_generate(model, tokens):
    idx = torch.tensor([PROMPT])
    out = model.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=tokens, do_sample=False,
                         eos_token_id=None, pad_token_id=0)  # fmt: skip
    return out[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_logits_losses_and_generation_are_those_of_transformers(family):
    peer = hugging_face(family)
    model = HFModel(peer)
    idx = torch.tensor([TEXT[:-1], TEXT[1:]])
    with torch.no_grad():
        expected = peer(input_ids=idx).logits
        torch.testing.assert_close(model(idx).logits, expected)
        torch.testing.assert_close(model(idx, last_only=True).logits, expected[:, -1:])
        loss = peer(input_ids=idx, labels=idx).loss  # which shifts the labels itself
        torch.testing.assert_close(model(idx[:, :-1], idx[:, 1:]).loss, loss)
    assert generate(model, PROMPT, 6) == generate(model, PROMPT, 6, use_cache=False) == peer_generate(peer, 6)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_long_prompt_is_read_in_pieces_to_the_same_continuation(family, monkeypatch):
    model = HFModel(hugging_face(family))
    whole = generate(model, TEXT, 5)
    monkeypatch.setattr("supertf.model.generation.PIECE", 4)
    assert generate(model, TEXT, 5) == whole


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma2", "OPT"])
def test_the_labs_perplexity_works_and_is_the_mean_loss(family):
    model = tiny(family)
    with torch.no_grad():
        logits = model.model(input_ids=torch.tensor([TEXT[:-1]])).logits[0]
    losses = -logits.log_softmax(-1)[range(len(TEXT) - 1), TEXT[1:]]
    found = perplexity(model, TEXT, length=len(TEXT) - 1)
    assert found.loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(losses.mean().item()), rel=1e-5)
    torch.testing.assert_close(loss_by_position(model, TEXT, length=len(TEXT) - 1), losses)


def test_the_config_speaks_the_labs_names():
    config = tiny("GPT2").config
    assert (config.model_type, config.vocab_size, config.n_ctx) == ("gpt2", 50, 24)
    assert (config.n_layer, config.n_embd, config.length_limit) == (LAYERS, 16, 24)
    model = tiny("SmolLM")  # a tied head counts once
    assert model.num_parameters() == sum(p.numel() for p in set(model.parameters()))


def checkpoint(folder, family, dtype=torch.float32, coordinate=(1, 7, 21)):
    """A planted model saved as several shards."""
    model = tiny(family)
    plant(model, coordinate)
    model.to(dtype).model.save_pretrained(folder, max_shard_size="3KB")
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["Llama", "SmolLM", "GPT2", "OPT", "Gemma2", "GPTNeoX", "Falcon", "Phi3"])
def test_a_search_from_disk_finds_what_a_search_in_memory_finds(tmp_path, family, dtype):
    folder = checkpoint(tmp_path, family, dtype)
    whole, streamed = load_hf_model(folder), load_hf_model(folder, stream=True)
    assert all(p.device.type == "meta" for p in streamed.parameters())
    for ours, theirs in zip(search(streamed, PROMPT).rounds, search(whole, PROMPT).rounds, strict=True):
        assert ours.removed == theirs.removed
        for a, b in zip(ours.spikes, theirs.spikes, strict=True):
            assert a.coordinate == b.coordinate and a.weight == b.weight
            assert (a.input.value, a.output.value) == pytest.approx((b.input.value, b.output.value))
            assert (a.share, a.ratio) == pytest.approx((b.share, b.ratio))
    assert [spike.coordinate for spike in candidates(find_spikes(streamed, PROMPT))] == [(1, 7, 21)]
    assert all(p.device.type == "meta" for p in streamed.parameters()), "nothing stays in memory"
    with torch.no_grad():
        torch.testing.assert_close(streamed(torch.tensor([TEXT])).logits, whole(torch.tensor([TEXT])).logits)


def test_weights_on_disk_cannot_be_edited(tmp_path):
    model = load_hf_model(checkpoint(tmp_path, "Llama"), stream=True)
    with pytest.raises(UserError, match="on disk, not in memory: load the whole model"), scaled_weights(
        model, [(1, 7, 21)]
    ):  # fmt: skip
        pass


def test_loading_is_silent_and_leaves_the_users_settings_as_they_were(tmp_path, capfd):
    folder = checkpoint(tmp_path, "Qwen2")
    transformers.utils.logging.enable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    capfd.readouterr()
    for stream in (False, True):
        find_spikes(load_hf_model(folder, stream=stream), PROMPT)
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.get_verbosity() == verbosity
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_a_checkpoint_without_some_tensors_is_refused_instead_of_filled_with_noise(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny("Llama").model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for stream in (False, True):
        with pytest.raises(UserError, match=r"lacks 1 .*such as model\.layers\.1\.mlp\.down_proj"):
            load_hf_model(tmp_path, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("content", ["nothing", "config.json alone", "damaged weights", "strange type"])
def test_a_folder_that_is_no_model_is_one_clear_line(tmp_path, content, stream):
    if content == "damaged weights":
        tiny("Llama").model.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    elif content == "config.json alone":
        tiny("Llama").model.config.save_pretrained(tmp_path)
    elif content == "strange type":
        (tmp_path / "config.json").write_text('{"model_type": "no-such-model"}')
    with pytest.raises(UserError, match=r"could not load .* as a causal language model: ") as caught:
        load_hf_model(tmp_path, stream=stream)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError) as caught:
        load(tmp_path, stream=stream)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch, stream):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"could not (fetch|load).*nobody/nothing.*network") as caught:
        load("nobody/nothing", stream=stream)
    assert "\n" not in str(caught.value)


def test_without_transformers_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        load_hf_model(tmp_path)


def save_tokenizer(folder):
    """A tokenizer of letters, with a BOS that begins every text, as in Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocab = {letter: i for i, letter in enumerate(["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyzĠ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


@pytest.mark.parametrize(
    ("family", "kind"),
    [("Llama", GPT), ("GPT2", GPT), ("Qwen2", HFModel), ("OPT", HFModel), ("Mistral", HFModel)],
)
def test_any_model_comes_from_the_loader_that_reads_it_with_its_tokenizer(tmp_path, family, kind):
    """Mistral's has a sliding window, which the lab's decoder lacks."""
    tiny(family).model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no tokenizer for"):
        load(tmp_path)
    save_tokenizer(tmp_path)
    (model, tokenizer), (streamed, _) = load(tmp_path), load(tmp_path, stream=True)
    assert (type(model), type(streamed), type(tokenizer)) == (kind, HFModel, HFTokenizer)
    assert tokenizer.encode("no idea") == [0, *tokenizer.encode_ordinary("no idea")]
    assert tokenizer.decode(tokenizer.encode_ordinary("no idea")) == "no idea"
    assert tokenizer.eot_token == 1
    letters = map(tokenizer.decode_single_token_bytes, range(2, tokenizer.n_vocab))
    assert set(b"no idea") <= set(b"".join(letters))
    ids = tokenizer.encode("no idea")
    with torch.no_grad():
        ours, theirs = (found(torch.tensor([ids])).logits for found in (model, streamed))
    torch.testing.assert_close(ours, theirs)


def test_the_labs_own_models_need_no_transformers(tmp_path, monkeypatch):
    model = tiny("supertf GELU")
    save_model(model, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    monkeypatch.setattr(hf_model, "tokenizer_of", lambda name, size: load_tokenizer("bytes"))
    loaded, tokenizer = load(tmp_path, dtype=torch.bfloat16)
    assert type(loaded) is GPT and loaded.wte.weight.dtype == torch.bfloat16
    assert tokenizer.name == "bytes"


def test_a_gguf_file_is_not_streamed(tmp_path):
    for name in ("smollm2-135m", tmp_path / "model.gguf"):
        with pytest.raises(UserError, match="one GGUF file, which is read whole"):
            load(name, stream=True)


def test_a_mixture_of_experts_cannot_be_streamed_and_says_so(tmp_path):
    config = transformers.MixtralConfig(**SMALL, num_local_experts=2)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"cannot be read layer by layer: .*mixtures of experts"):
        load_hf_model(tmp_path, stream=True)
    with pytest.raises(UserError, match="the model is a mixture of experts"):
        output_projections(load_hf_model(tmp_path))


NOT_CAUSAL = {
    "BERT": ("Bert", {}),
    "RoBERTa": ("Roberta", {}),
    "XLM": ("XLM", {"emb_dim": 16, "n_heads": 2, "n_layers": 2}),
    "bidirectional Gemma": ("Gemma3Text", {"head_dim": 8, "use_bidirectional_attention": True}),
}


def other_family(kind, **settings):
    """A tiny random model of a family that has no super weights in the lab's sense."""
    settings = {**SMALL, **settings}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{k: v for k, v in settings.items() if v is not None})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", list(NOT_CAUSAL))
def test_a_model_whose_earlier_logits_move_with_the_last_token_is_refused(tmp_path, name):
    kind, settings = NOT_CAUSAL[name]
    other_family(kind, **settings).save_pretrained(tmp_path)
    for stream in (False, True):
        with pytest.raises(
            UserError, match=r"is not a causal language model: .*changes with the last"
        ) as caught:
            load_hf_model(tmp_path, stream=stream)
        assert "\n" not in str(caught.value)


def test_it_is_measured_and_not_told_by_the_name(tmp_path):
    """A BERT that was made a decoder predicts the next token."""
    other_family("Bert", is_decoder=True).save_pretrained(tmp_path)
    model = load_hf_model(tmp_path)
    assert generate(model, PROMPT, 4) == generate(model, PROMPT, 4, use_cache=False)


WITHOUT_CACHE = {
    "Mamba": {"state_size": 4, "intermediate_size": None},
    "Rwkv": {"attention_hidden_size": WIDTH},
    "MiniMax": {"num_local_experts": 2, "head_dim": 8},
    "OpenAIGPT": {},
}


@pytest.mark.parametrize("kind", list(WITHOUT_CACHE))
def test_a_model_that_ignores_the_cache_forgets_nothing(kind, monkeypatch):
    peer = other_family(kind, **WITHOUT_CACHE[kind])
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter *= 3  # what it has read matters
    model = HFModel(peer)
    with pytest.warns(Note, match="do not use transformers' usual cache"):
        found = generate(model, PROMPT, 6)
    assert found == generate(model, PROMPT, 6, use_cache=False) == peer_generate(peer, 6)
    whole = loss_by_position(model, TEXT, length=12)
    monkeypatch.setattr("supertf.analysis.losses.CHUNK", 5)
    with pytest.warns(Note):
        torch.testing.assert_close(loss_by_position(model, TEXT, length=12), whole)


@pytest.mark.parametrize("family", ["Mistral", "Gemma2", "GPT2", "Qwen3"])
def test_a_long_window_is_read_in_pieces_to_the_same_losses(family, monkeypatch):
    """Mistral's and Gemma's windows are shorter than the pieces."""
    model = tiny(family)
    whole = loss_by_position(model, TEXT, length=12)
    monkeypatch.setattr("supertf.analysis.losses.CHUNK", 5)
    torch.testing.assert_close(loss_by_position(model, TEXT, length=12), whole)
    assert model.caches


LONG = torch.arange(31).tolist()  # of 24 tokens that each model was made for


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("OPT", FAMILIES["OPT"]),
        ("GPT2", {**FAMILIES["GPT2"], "activation_function": "relu"}),
        ("GPTJ", {"rotary_dim": 4}),
        ("Mpt", {"max_seq_len": 24, "d_model": 16, "n_heads": 2, "n_layers": 2}),
    ],
)
def test_windows_beyond_a_table_of_positions_are_one_clear_line(kind, settings):
    model = HFModel(other_family(kind, **settings))
    assert perplexity(model, LONG[:25], 24).tokens == 24
    for measure in (perplexity, loss_by_position):
        with pytest.raises(UserError, match=r"30.*shorten the input") as caught:
            measure(model, LONG, 30)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"24 learned positions|shorten the input"):
        generate(model, PROMPT, 30)


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "FalconAlibi"])
def test_models_without_a_table_read_on_beyond_their_context(family):
    model = tiny(family)
    assert model.config.n_ctx == 24 and model.config.length_limit is None
    with torch.no_grad():
        expected = model.model(input_ids=torch.tensor([LONG[:-1]]), labels=None).logits[0]
    losses = -expected.log_softmax(-1)[range(30), LONG[1:]]
    assert perplexity(model, LONG, 30).loss == pytest.approx(losses.mean().item(), rel=1e-5)
    assert len(generate(model, PROMPT, 30)) == 30
