"""Checkpoints: a folder of safetensors and JSON per step, whole or absent, with a pointer to last and best.

    run/checkpoints.json              {"last": "step-00000600", "best": "step-00000500"}
    run/step-00000600/config.json        with model.safetensors what `load_model` reads
                      model.safetensors
                      tokenizer.json
                      state.json         step, progress and the SHA-256 of every other file
                      training/optimizer.safetensors   AdamW's moments and step count per parameter
                      training/random.safetensors      random states, one row per process

A checkpoint is written into a temporary folder, which a single rename makes visible; then the pointer is
replaced by another. A run killed in between goes on from the checkpoint before.
"""

import contextlib
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor

from supertf.data.tokenizer import load_tokenizer, save_tokenizer
from supertf.errors import Note, UserError
from supertf.files import is_sealed, read_json, seal, sha256, write_json
from supertf.model.gguf_weights import gguf_tokenizer
from supertf.model.pretrained import read_tensors, save_model, write_tensors

FORMAT = "supertf checkpoint 1"
POINTER = "checkpoints.json"
STATE = "state.json"


@dataclass
class Checkpoint:
    """One checkpoint as read back: `state` is what `save` was given, tensors are on the CPU."""

    folder: Path
    state: dict[str, Any]
    config: dict[str, Any]
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]


def save(
    run: str | Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    random: dict[str, Tensor],
    state: dict[str, Any],
    tokenizer: tiktoken.Encoding | None = None,
    best: bool = False,
) -> Path:
    """Add a checkpoint to the folder `run`, make it the last one (and the best), drop those no longer needed.

    `state` is a JSON object with at least `step`. Returns the checkpoint's folder. Raises `UserError`
    when it cannot be written, a full disk say; the checkpoints from before are then still there.
    """
    run = Path(run)
    pointer = read_json(run / POINTER) if (run / POINTER).exists() else {}
    name = f"step-{state['step']:08d}"
    folder, temporary = run / name, run / f".{name}.tmp"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_model(model, temporary)
        write_tensors(temporary / "training/optimizer.safetensors", optimizer_tensors(model, optimizer))
        write_tensors(temporary / "training/random.safetensors", random)
        if tokenizer is not None:
            save_tokenizer(tokenizer, temporary / "tokenizer.json")
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        hashes = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
        write_json(temporary / STATE, seal({"format": FORMAT, **state, "files": hashes}))
        if name not in pointer.values():  # left by a kill between the rename and the pointer
            shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except OSError as error:
        raise UserError(
            f"could not save a checkpoint to {folder}: {error.strerror or error}; the checkpoints before it "
            "are unchanged"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    pointer = {**pointer, "last": name, **({"best": name} if best else {})}
    write_json(run / POINTER, pointer)
    for old in [*run.glob("step-*"), *run.glob(".step-*.tmp")]:
        if old.name not in pointer.values():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def load(folder: str | Path) -> Checkpoint:
    """Read a checkpoint (or a run's last one) to train on.

    Raises `UserError` when there is none, or a file is missing, damaged or of another checkpoint.
    """
    folder = locate(folder, prefer="last")
    state = verify(folder)
    config = read_json(folder / "config.json")
    model, optimizer, random = (
        read_tensors(folder / f"{name}.safetensors")
        for name in ("model", "training/optimizer", "training/random")
    )
    return Checkpoint(folder, state, config, model, optimizer, random)


def locate(path: str | Path, prefer: str = "best") -> Path:
    """The checkpoint that `path` means: a run's folder (its `prefer` one, else its last), run/last,
    run/best; any other path is returned unchanged."""
    path = Path(path)
    if (path / POINTER).is_file():
        run, wanted = path, (prefer, "last")
    elif path.name in ("last", "best") and (path.parent / POINTER).is_file():
        run, wanted = path.parent, (path.name,)
    else:
        return path
    pointer = read_json(run / POINTER)
    names = [pointer[name] for name in wanted if name in pointer]
    if not names or not isinstance(names[0], str) or not (run / names[0]).is_dir():
        raise UserError(
            f"{run / POINTER} points to {' or '.join(wanted)} = {names[0] if names else 'nothing'}, which is "
            "not there: renamed, deleted or changed; name a step-... folder of the run instead"
        )
    return run / names[0]


def find(path: str | Path) -> Path:
    """`locate` for loading a model; the model's files of a checkpoint must match their hashes."""
    folder = locate(path)
    if (folder / STATE).is_file():
        verify(folder, ("config.json", "model.safetensors"))
    return folder


def verify(folder: Path, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """The state of a checkpoint whose files (all, or those called `names`) match their hashes.

    Raises `UserError` naming the first one that does not.
    """
    state = read_json(folder / STATE)
    if state.get("format") != FORMAT or not is_sealed(state):
        raise UserError(f"{folder / STATE} is not a checkpoint's state, or was changed since it was written")
    for name in names or state["files"]:
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}: the checkpoint is incomplete; use another one")
        if sha256(folder / name) != state["files"][name]:
            raise UserError(
                f"{folder / name} was changed since it was written (truncated, damaged or from another "
                "checkpoint); use another checkpoint"
            )
    return state


def is_run(path: str | Path) -> bool:
    """Whether a folder holds checkpoints of a run."""
    return (Path(path) / POINTER).is_file()


def load_tokenizer_of(name: str | Path) -> tiktoken.Encoding | None:
    """The tokenizer that a model carries, if it is one that this lab reads; else None.

    Checkpoints and saved copies have a file beside the weights, SmolLM2's GGUF files a vocabulary inside.
    """
    if str(name) == "smollm2-135m":
        return load_tokenizer("smollm2-135m")
    path = locate(name)
    if path.suffix == ".gguf":
        with contextlib.suppress(UserError):  # another kind of tokenizer
            return gguf_tokenizer(path)
    saved = path / "tokenizer.json"  # folders of Hugging Face have a file of that name, too
    return load_tokenizer(saved) if saved.is_file() and "format" in read_json(saved) else None


def guess_tokenizer(name: str | Path, vocab_size: int) -> tiktoken.Encoding | None:
    """The last resort for a model that carries no tokenizer, said in a `Note`.

    GPT-2's and SmolLM2's are those of models that have "gpt2" or "smollm2" in their name and a vocabulary
    of that size; None when there is no telling.
    """
    for part, size, tokenizer in (("gpt2", 50257, "gpt2"), ("smollm2", 49152, "smollm2-135m")):
        if part in Path(name).name.lower() and vocab_size == size:
            warnings.warn(
                f"there is no tokenizer beside the weights of {name}: taking {tokenizer}'s, as the name and "
                f"the vocabulary of {size} suggest; name another with --tokenizer",
                Note,
                stacklevel=2,
            )
            return load_tokenizer(tokenizer)
    return None


def trained_with_bos(name: str | Path) -> bool:
    """Whether the windows that `train` made this checkpoint on began with a BOS; False for other models."""
    folder = locate(name)
    return (folder / STATE).is_file() and bool(read_json(folder / STATE)["settings"]["bos"])


def parameter_names(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's parameters in its own order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flat: `wte.weight/exp_avg` and so on."""
    names = parameter_names(model, optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[i]}/{key}": value for i, values in state.items() for key, value in values.items()}


def load_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back."""
    indices = {name: i for i, name in enumerate(parameter_names(model, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        if name not in indices:
            raise UserError(f"the checkpoint's optimizer knows {name}, which this model does not have")
        state.setdefault(indices[name], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
