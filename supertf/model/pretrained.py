"""Models to disk and from it: Hugging Face GPT-2 and Llama checkpoints, GGUF files, the lab's own folders.

Every tensor's name and shape is checked; nothing is skipped silently. `load_model` is the one door.
"""

import contextlib
import dataclasses
import glob
import json
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from supertf.data import smollm2_path
from supertf.errors import UserError
from supertf.files import atomic_path, made_from, read_json, write_json
from supertf.model import gguf_files, hf_weights
from supertf.model.attention import AttentionScale
from supertf.model.checkpoint import STATE, find
from supertf.model.config import GPTConfig
from supertf.model.gguf_files import read_gguf
from supertf.model.gpt import GPT
from supertf.model.hf_weights import (
    LLAMA_NAMES,
    State,
    from_gpt2,
    from_llama,
    gpt2_config,
    llama_config,
    mistral_config,
    with_prefix,
)

MODEL_TYPE = "supertf"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = f"{WEIGHTS}.index.json"  # names the shards of weights that are not in one file
FILE_SUFFIXES = (".gguf", ".safetensors", ".json", ".bin", ".pt")


def load_model(
    name: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, **changes: Any
) -> GPT:
    """Load a model of this lab's decoder, in evaluation mode; `load` reads others, too.

    Args:
        name: "smollm2-135m" (after `supertf fetch`), a folder with `config.json` and safetensors (Hugging
            Face or saved by `save_model`), the folder of a training run (its best checkpoint; run/last is
            the last), a `.gguf` file, or a Hugging Face hub id.
        device: where it computes.
        dtype: of the weights.
        **changes: fields of the config to replace, such as attention="logn" to swap a trained softmax.

    Returns:
        The model.

    Raises:
        UserError: the model is missing or of an unknown kind, or a tensor is missing, surplus or of the wrong
            shape.
    """
    config, state = read_checkpoint(name)
    config = dataclasses.replace(config, **changes)
    if changes.get("attention"):
        add_missing_scales(config, state)
    return build(config, state).to(device=device, dtype=dtype).eval()


def save_model(model: GPT, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` (a tied head once) into `folder`, each whole or not at all.

    Raises:
        UserError: they cannot be written.
    """
    folder = Path(folder)
    state = model.state_dict()
    if model.config.tie_head:
        del state["lm_head.weight"]
    write_tensors(folder / WEIGHTS, state)
    write_json(folder / CONFIG, {"model_type": MODEL_TYPE, **model.config.to_dict()})


def read_checkpoint(name: str | Path) -> tuple[GPTConfig, State]:
    """Find `name` (see `load_model`) and return its config and float32 weights under this package's names."""
    if str(name) == "smollm2-135m":
        return read_expanded(smollm2_path())
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


def download(hub_id: str) -> Path:
    """Fetch a model's configuration and those weights that `weight_files` names from the Hugging Face hub or
    its local cache, and return their folder."""
    folder = fetch_from_hub(hub_id, (CONFIG, WEIGHTS, INDEX))
    if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
        fetch_from_hub(hub_id, [glob.escape(name) for name in shard_names(folder)])
    return folder


def fetch_from_hub(hub_id: str, files: Sequence[str]) -> Path:
    """Fetch files of a model from the hub or its local cache, and return their folder."""
    import huggingface_hub

    try:
        folder = huggingface_hub.snapshot_download(hub_id, allow_patterns=list(files))
    except hub_failures() as error:
        raise UserError(
            f"could not fetch model {hub_id!r}, which is no folder here, from the hub "
            f"({type(error).__name__}): check the id and the network, or use smollm2-135m, which works "
            "offline after `supertf fetch`"
        ) from error
    return Path(folder)


def hub_failures() -> tuple[type[Exception], ...]:
    """What the hub and the network raise: huggingface_hub's errors have no common base, and those of the
    network come through as they are."""
    import httpx  # which huggingface_hub talks through
    import huggingface_hub.errors

    hubs = [error for error in vars(huggingface_hub.errors).values() if isinstance(error, type)]
    hubs = [error for error in hubs if issubclass(error, Exception)]
    return OSError, httpx.HTTPError, httpx.InvalidURL, *hubs


def own_folder(hub_id: str) -> Path | None:
    """The local copy of a model that this lab has exported to the hub, which says how it was trained; None
    for other models."""
    folder = fetch_from_hub(hub_id, (STATE,))
    if not (folder / STATE).is_file():
        return None
    return fetch_from_hub(hub_id, (STATE, CONFIG, WEIGHTS, TOKENIZER))


def foreign_config(values: dict[str, Any]) -> GPTConfig:
    """Our config for the `config.json` of another project; `UserError` on what this decoder lacks."""
    kind = str(values.get("model_type"))
    readers = {"gpt2": gpt2_config, "llama": llama_config, "mistral": mistral_config}
    if kind not in readers:
        raise UserError(
            f"the checkpoint's model_type {kind!r} is none of {MODEL_TYPE}, {', '.join(readers)}, which this "
            "decoder reads"
        )
    return readers[kind](values)


def read_folder(folder: Path) -> tuple[GPTConfig, State]:
    """Config and weights of a folder with `config.json` and safetensors."""
    values = read_json(folder / CONFIG)
    if values.get("model_type") == MODEL_TYPE:
        del values["model_type"]
        return GPTConfig.from_dict(values), read_safetensors(folder)
    try:
        config = foreign_config(values)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error
    state = read_safetensors(folder)
    if values["model_type"] == "gpt2":
        return config, from_gpt2(state)
    return config, from_llama(config, with_prefix(state, "model."), LLAMA_NAMES)


def weight_files(folder: Path) -> list[Path]:
    """The files that are the model, as transformers decides: model.safetensors, else the shards that
    model.safetensors.index.json names. Whatever lies beside them is not read."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted(path.name for path in folder.glob("*.safetensors"))
        there = f" but {', '.join(others[:3])}{' ...' if len(others) > 3 else ''}" if others else ""
        raise UserError(
            f"{folder} holds neither {WEIGHTS} nor {INDEX}{there}; a model is read from one of these two "
            f"(a single file of weights can be renamed to {WEIGHTS}), other formats are not read"
        )
    files = [folder / name for name in shard_names(folder)]
    for file in files:
        if not file.is_file():
            raise UserError(f"{folder} has no {file.name}, which {INDEX} names: fetch or copy it again")
    return files


def shard_names(folder: Path) -> list[str]:
    """The files that a folder's index names, sorted."""
    shards = read_json(folder / INDEX).get("weight_map")
    names = set(map(str, shards.values())) if isinstance(shards, dict) else set()
    if not names or any(Path(name).name != name for name in names):
        raise UserError(f"{folder / INDEX} is damaged: expected a weight_map of tensors to files beside it")
    return sorted(names)


def read_safetensors(folder: Path) -> State:
    """All tensors of a folder's `weight_files`."""
    state: State = {}
    for file in weight_files(folder):
        tensors = read_tensors(file)
        if twice := state.keys() & tensors.keys():
            raise UserError(f"{file} holds {min(twice)}, which another shard of the model holds, too")
        state |= tensors
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


def write_tensors(path: Path, tensors: State, metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file atomically; `UserError` when it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
            save_file(whole, temporary, metadata)
        except SafetensorError as error:  # not an OSError, though a full disk is behind it
            raise OSError(str(error)) from error


def read_expanded(path: Path) -> tuple[GPTConfig, State]:
    """`read_gguf` of a file, from a copy of the result beside it, so that no process has to expand it again.

    The copy is exact: the weights in float32, bit for bit (540 MB beside the 98 MB of SmolLM2's file). It is
    only a shortcut: one that is not of this very file, made by other code or damaged is made anew, and where
    there is no room for it, or no right to write, nothing is kept.
    """
    copy = path.with_suffix(".float32.safetensors")
    source = made_from(path, gguf_files, hf_weights)
    if found := read_copy(copy, source):
        return found
    config, state = read_gguf(path)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shutil.disk_usage(path.parent).free > 2 * size:
        about = {"source": source, "config": config.to_dict(), "crc32": crc32(config, state)}
        with contextlib.suppress(UserError):  # not writable: the next process expands the file again
            write_tensors(copy, state, {"supertf": json.dumps(about)})
    return config, state


def read_copy(copy: Path, source: dict[str, Any]) -> tuple[GPTConfig, State] | None:
    """Config and weights of a copy, mapped into memory; None: absent, of another source, or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(copy, "pt") as file:
            about = json.loads(file.metadata()["supertf"])
            if about["source"] != source:
                return None
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = GPTConfig.from_dict(about["config"])
        return (config, state) if about["crc32"] == crc32(config, state) else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, UserError):
        return None


def crc32(config: GPTConfig, state: State) -> int:
    """Checksum over a config, and the names and bytes of all tensors."""
    total = zlib.crc32(json.dumps(config.to_dict()).encode())
    for name in sorted(state):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(state[name].contiguous().numpy().reshape(-1).view("uint8").data, total)
    return total


class LeftEmpty(TorchFunctionMode):
    """While it lasts, modules do not fill their weights: on the meta device that imports PyTorch's compiler,
    which takes seconds."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        filling = getattr(function, "__module__", None) == torch.nn.init.__name__
        return given["tensor"] if filling else function(*args, **given)


def build(config: GPTConfig, state: State) -> GPT:
    """A model that holds exactly these tensors; `UserError` names every one that does not fit."""
    if not any(name.startswith(f"h.{config.n_layer - 1}.") for name in state):  # before millions are built
        raise UserError(
            f"the weights do not fit the config: layer {config.n_layer} of {config.n_layer} is missing"
        )
    with torch.device("meta"), LeftEmpty():  # no memory and no random numbers for weights that get replaced
        model = GPT(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_head:  # either may be stored for both
        head = state.setdefault("lm_head.weight", state.get("wte.weight", torch.empty(0)))
        state.setdefault("wte.weight", head)
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
    head, embedding = state["lm_head.weight"], state["wte.weight"]
    if config.tie_head and head is not embedding and not bool((head == embedding).all()):
        raise UserError(
            "the config ties the output head to the token embedding, but the weights hold two different "
            "matrices: say in the config which is meant"
        )
    model.load_state_dict(state, assign=True)
    if config.tie_head:
        model.lm_head.weight = model.wte.weight
    return model


def add_missing_scales(config: GPTConfig, state: State) -> None:
    """Start values of s and b for a scaling that the checkpoint was not trained with, in place."""
    for layer in range(config.n_layer):
        for name, tensor in AttentionScale(config).state_dict().items():
            state.setdefault(f"h.{layer}.attn.scale.{name}", tensor)
