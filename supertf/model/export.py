"""Models as others read them: in transformers' own format where it has the architecture; and on the hub."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from supertf import __version__
from supertf.data import save_tokenizer
from supertf.errors import UserError
from supertf.files import atomic_path, read_json, seal, sha256, write_json
from supertf.model.checkpoint import STATE, find
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT
from supertf.model.hf_tokenizer import load_tokenizer_of
from supertf.model.hf_weights import LLAMA_NAMES, State
from supertf.model.pretrained import (
    CONFIG,
    TOKENIZER,
    WEIGHTS,
    hub_failures,
    load_model,
    save_model,
    write_tensors,
)

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
SHARED: dict[str, Any] = {"attention": "softmax", "zero_key": False, "qk_norm": False}
# What a model of each family is, in this lab's words; other fields are free.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {
        **SHARED,
        "position": "rope",
        "rope_fraction": 1,
        "norm": "rmsnorm",
        "mlp": "swiglu",
        "bias": False,
    },
    "gpt2": {**SHARED, "position": "learned", "norm": "layernorm", "mlp": "gelu", "bias": True},
}
CARD = """---
library_name: {library}
tags: [supertf{tags}]
---

# {title}

{parameters:,} parameters, made with [supertf](https://github.com/dame-cell/Super-transformers) {version},
a lab on scalable softmax, models without positions and super weights.

```python
{usage}
```

| what | value |
|---|---|
{rows}
"""
WITH_TRANSFORMERS = """from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{place}")"""
WITH_SUPERTF = """import supertf

model, tokenizer = supertf.load("{place}")"""


def export_model(source: str | Path, folder: str | Path, place: str | None = None) -> str:
    """Write a model so that others can read it: config, weights, tokenizer and a model card.

    Args:
        source: a run of this lab (its best checkpoint), or whatever `load_model` reads.
        folder: to write into.
        place: what the card calls it, such as a hub id; default the folder.

    Returns:
        "llama" or "gpt2" where transformers has the architecture and its logits are the same; else "supertf",
        which `supertf.load` reads.

    Raises:
        UserError: the model cannot be read, or the folder not be written.
    """
    folder = Path(folder)
    checkpoint = find(source)
    model, tokenizer = load_model(source), load_tokenizer_of(source)
    state = read_json(checkpoint / STATE) if (checkpoint / STATE).is_file() else {}
    family = family_of(model.config)
    if family == "supertf":
        save_model(model, folder)
    else:
        tensors, values = TO_FAMILY[family](model)
        ends = (
            {}
            if tokenizer is None
            else {"bos_token_id": tokenizer.eot_token, "eos_token_id": tokenizer.eot_token}
        )
        write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})
        write_json(folder / CONFIG, {**values, **ends})
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder / TOKENIZER)
    if state:  # how it was trained, and whether its texts begin with a BOS token
        files = {
            name: sha256(folder / name) for name in (CONFIG, WEIGHTS, TOKENIZER) if (folder / name).is_file()
        }
        write_json(folder / STATE, seal({**state, "files": files}))
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(card(model, family, state, place or str(folder)), encoding="utf-8")
    return family


def push_to_hub(source: str | Path, repo_id: str, *, private: bool = False) -> str:
    """Put a model on the Hugging Face hub as `export_model` writes it; `supertf.load(repo_id)` reads it.

    Args:
        source: a run of this lab, or whatever `load_model` reads.
        repo_id: such as "owner/name"; it is made if it is not there.
        private: whether only its owner sees it.

    Returns:
        The address of the commit.

    Raises:
        UserError: as `export_model` does, and where the hub cannot be reached or refuses.
    """
    import huggingface_hub

    with tempfile.TemporaryDirectory() as folder, hub_errors(f"could not push to {repo_id!r}"):
        export_model(source, folder, place=repo_id)
        hub = huggingface_hub.HfApi()
        hub.create_repo(repo_id, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repo_id, folder_path=folder).commit_url)


@contextlib.contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn what the hub and the network raise into one `UserError`."""
    try:
        yield
    except hub_failures() as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise UserError(
            f"{what} ({type(error).__name__}: {reason}): check the name, the network, and that "
            "`hf auth login` was done"
        ) from error


def family_of(config: GPTConfig) -> str:
    """The architecture of transformers that computes the same, or "supertf"."""
    for family, wanted in FAMILIES.items():
        own_heads = family == "gpt2" and (config.kv_heads != config.n_head or config.n_head_dim is not None)
        if not own_heads and all(getattr(config, name) == value for name, value in wanted.items()):
            return family
    return "supertf"


def to_llama(model: GPT) -> tuple[State, dict[str, Any]]:
    """Tensors and config of a Llama; the inverse of `from_llama` and `llama_config`."""
    config, state = model.config, model.state_dict()
    theirs = {LLAMA_NAMES["embedding"]: state["wte.weight"], LLAMA_NAMES["norm"]: state["ln_f.weight"]}
    if not config.tie_head:
        theirs[LLAMA_NAMES["head"]] = state["lm_head.weight"]
    own, shared = config.n_head * config.head_dim, config.kv_heads * config.head_dim
    for layer in range(config.n_layer):
        q, k, v = state[f"h.{layer}.attn.c_attn.weight"].split([own, shared, shared])
        gate, up = state[f"h.{layer}.mlp.c_fc.weight"].chunk(2)
        part = {"q": q, "k": k, "v": v, "gate": gate, "up": up}
        part |= {name: state[f"h.{layer}.{name}.weight"] for name in ("ln_1", "ln_2")}
        part |= {"o": state[f"h.{layer}.attn.c_proj.weight"], "down": state[f"h.{layer}.mlp.c_proj.weight"]}
        theirs |= {LLAMA_NAMES[name].format(layer): tensor for name, tensor in part.items()}
    return theirs, {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.n_ctx,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_size": config.n_embd,
        "intermediate_size": config.inner,
        "rope_theta": config.rope_base,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        "torch_dtype": "float32",
    }


def to_gpt2(model: GPT) -> tuple[State, dict[str, Any]]:
    """Tensors and config of a GPT-2, whose Conv1D weights are (in, out); the inverse of `from_gpt2`."""
    config, theirs = model.config, State()
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            theirs |= {} if config.tie_head else {name: tensor}
        else:
            theirs[f"transformer.{name}"] = tensor.t() if name.endswith(TRANSPOSED) else tensor
    return theirs, {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_positions": config.n_ctx,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": config.inner,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        "torch_dtype": "float32",
    }


TO_FAMILY = {"llama": to_llama, "gpt2": to_gpt2}


def card(model: GPT, family: str, state: Mapping[str, Any], place: str) -> str:
    """The model card: how to load it, what it is, and how it was trained."""
    shown = {"architecture": family, **model.config.to_dict()}
    if state:
        loss = state.get("best_loss")
        shown |= {
            "steps": state["step"],
            "best validation loss, nats per token": "none" if loss is None else f"{loss:.4f}",
        }
        shown |= {f"training: {name}": value for name, value in state.get("settings", {}).items()}
        shown |= {"training tokens, SHA-256": state.get("train_sha256", "")}
    own = family == "supertf"
    return CARD.format(
        library="supertf" if own else "transformers",
        tags="".join(f", {one}" for one in (model.config.attention, family) if one != "supertf"),
        title=Path(place).name,
        parameters=model.num_parameters(),
        version=__version__,
        usage=(WITH_SUPERTF if own else WITH_TRANSFORMERS).format(place=place),
        rows="\n".join(f"| {name} | {value} |" for name, value in shown.items()),
    )
