"""Models from disk: Hugging Face GPT-2 and Llama checkpoints, GGUF files, and the lab's own folders.

Every tensor's name and shape is checked; nothing is skipped silently. `load_model` is the one door.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from supertf.attention import AttentionScale
from supertf.config import GPTConfig
from supertf.errors import UserError
from supertf.fetch import smollm2_path
from supertf.files import atomic_path, read_json, write_json
from supertf.gguf_weights import read_gguf
from supertf.hf_weights import LLAMA_NAMES, State, from_gpt2, from_llama, gpt2_config, llama_config
from supertf.model import GPT

MODEL_TYPE = "supertf"
CHECKPOINT_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt")


def load_model(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **changes: Any
) -> GPT:
    """Load a model in evaluation mode.

    `name`: "smollm2-135m" (after `supertf fetch`), a folder with `config.json` and safetensors (Hugging
    Face or saved by `save_model`), the folder of a training run (its best checkpoint; run/last is the
    last), a `.gguf` file, or a Hugging Face hub id. `changes` replace fields of
    the config, for example attention="logn" to swap a trained softmax. Raises `UserError` when the
    model is missing or of an unknown kind, or a tensor is missing, surplus or of the wrong shape.
    """
    config, state = read_checkpoint(name)
    config = dataclasses.replace(config, **changes)
    if changes.get("attention"):
        add_missing_scales(config, state)
    return build(config, state).to(device=device, dtype=dtype).eval()


def save_model(model: GPT, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` (a tied head once) into `folder`, each atomically."""
    folder = Path(folder)
    state = model.state_dict()
    if model.config.tie_head:
        del state["lm_head.weight"]
    write_tensors(folder / "model.safetensors", state)
    write_json(folder / "config.json", {"model_type": MODEL_TYPE, **model.config.to_dict()})


def read_checkpoint(name: str | Path) -> tuple[GPTConfig, State]:
    """Find `name` (see `load_model`) and return its config and float32 weights under this package's names."""
    from supertf.checkpoint import find  # which imports this module

    if str(name) == "smollm2-135m":
        return read_gguf(smollm2_path())
    path = find(name)
    if path.suffix == ".gguf" and path.exists():
        return read_gguf(path)
    if path.is_dir():
        return read_folder(path)
    if path.exists() or not may_be_hub_id(str(name)):
        raise UserError(
            f"no model at {name}: expected a folder with config.json and safetensors, a .gguf file, "
            "smollm2-135m, or a hub id such as openai-community/gpt2"
        )
    return read_folder(download(str(name)))


def may_be_hub_id(name: str) -> bool:
    """Whether a name without a file of that name may be a hub id; those have dots too (Llama-3.2-1B)."""
    return not name.startswith((".", "/", "~")) and name.count("/") <= 1 and not name.endswith(FILE_SUFFIXES)


def download(hub_id: str, files: Sequence[str] = CHECKPOINT_FILES) -> Path:
    """Fetch a model's configuration and safetensors (or other files) from the Hugging Face hub or its local
    cache, and return their folder."""
    import httpx  # which huggingface_hub talks through
    import huggingface_hub.errors

    # huggingface_hub's errors have no common base, and those of the network come through as they are
    errors = [error for error in vars(huggingface_hub.errors).values() if isinstance(error, type)]
    failures = (OSError, httpx.HTTPError, httpx.InvalidURL, *(e for e in errors if issubclass(e, Exception)))
    try:
        folder = huggingface_hub.snapshot_download(hub_id, allow_patterns=list(files))
    except failures as error:
        raise UserError(
            f"could not fetch model {hub_id!r}, which is no folder here, from the hub "
            f"({type(error).__name__}): check the id and the network, or use smollm2-135m, which works "
            "offline after `supertf fetch`"
        ) from error
    return Path(folder)


def read_folder(folder: Path) -> tuple[GPTConfig, State]:
    """Config and weights of a folder with `config.json` and one or more safetensors files."""
    values = read_json(folder / "config.json")
    kind = values.pop("model_type", None)
    state = read_safetensors(folder)
    if kind == MODEL_TYPE:
        return GPTConfig.from_dict(values), state
    if kind == "gpt2":
        return gpt2_config(values), from_gpt2(state)
    if kind in ("llama", "mistral"):
        config = llama_config(values)
        return config, from_llama(config, state, LLAMA_NAMES)
    raise UserError(
        f"{folder / 'config.json'} says model_type {kind!r}; "
        f"this decoder reads {MODEL_TYPE}, gpt2, llama and mistral"
    )


def read_safetensors(folder: Path) -> State:
    """All tensors of a folder's safetensors files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no *.safetensors file; weights in other formats are not read")
    state: State = {}
    for file in files:
        state.update(read_tensors(file))
    return state


def read_tensors(path: Path) -> State:
    """All tensors of one safetensors file, on the CPU."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is damaged or not a safetensors file ({error}): fetch or save it again"
        ) from error


def write_tensors(path: Path, tensors: State) -> None:
    """Write one safetensors file atomically; `UserError` when it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:  # not an OSError, though a full disk is behind it
            raise OSError(str(error)) from error


def build(config: GPTConfig, state: State) -> GPT:
    """A model that holds exactly these tensors; `UserError` names every one that does not fit."""
    if not any(name.startswith(f"h.{config.n_layer - 1}.") for name in state):  # before millions are built
        raise UserError(
            f"the weights do not fit the config: layer {config.n_layer} of {config.n_layer} is missing"
        )
    with torch.device("meta"):  # no memory and no random numbers for weights that get replaced
        model = GPT(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_head:
        state.setdefault("lm_head.weight", state.get("wte.weight", torch.empty(0)))
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is not part of this model" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(tensor.shape)}, expected {expected[name]}"
        for name, tensor in state.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"the weights do not fit the config: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state, assign=True)
    if config.tie_head:
        model.lm_head.weight = model.wte.weight
    return model


def add_missing_scales(config: GPTConfig, state: State) -> None:
    """Start values of s and b for a scaling that the checkpoint was not trained with, in place."""
    for layer in range(config.n_layer):
        for name, tensor in AttentionScale(config).state_dict().items():
            state.setdefault(f"h.{layer}.attn.scale.{name}", tensor)
