"""Checkpoints of a run, whole or absent, with a pointer to the last and the best; see `model.checkpoint`.

A checkpoint is written into a temporary folder, which a single rename makes visible; then the pointer is
replaced by another. A run killed in between goes on from the checkpoint before.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiktoken
import torch
from torch import Tensor

from supertf.data import save_tokenizer
from supertf.errors import UserError
from supertf.files import disk_errors, read_json, seal, sha256, write_json
from supertf.model import FORMAT, GPT, POINTER, STATE, locate, read_tensors, save_model, verify, write_tensors
from supertf.training.sharding import part_like, whole


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
    model: GPT,
    optimizer: dict[str, Tensor],
    random: dict[str, Tensor],
    state: dict[str, Any],
    tokenizer: tiktoken.Encoding | None = None,
    best: bool = False,
) -> Path:
    """Add a checkpoint to a run, make it the last one (and the best), and drop those no longer needed.

    Args:
        run: the run's folder.
        model: to save.
        optimizer: its `optimizer_tensors`.
        random: states of generators, by name.
        state: a JSON object with at least `step`.
        tokenizer: to save beside the model.
        best: whether it is the best so far.

    Returns:
        The checkpoint's folder.

    Raises:
        UserError: it cannot be written, on a full disk say; the checkpoints from before are still there.
    """
    run = Path(run)
    pointer = read_json(run / POINTER) if (run / POINTER).exists() else {}
    name = f"step-{state['step']:08d}"
    folder, temporary = run / name, run / f".{name}.tmp"
    with disk_errors(f"a checkpoint to {folder}", "the checkpoints before it are"):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            save_model(model, temporary)
            write_tensors(temporary / "training/optimizer.safetensors", optimizer)
            write_tensors(temporary / "training/random.safetensors", random)
            if tokenizer is not None:
                save_tokenizer(tokenizer, temporary / "tokenizer.json")
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            hashes = {path.relative_to(temporary).as_posix(): sha256(path) for path in files}
            write_json(temporary / STATE, seal({"format": FORMAT, **state, "files": hashes}))
            if name not in pointer.values():  # left by a kill between the rename and the pointer
                shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
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

    Raises:
        UserError: there is none, or a file is missing, damaged or of another checkpoint.
    """
    folder = locate(folder, prefer="last")
    state = verify(folder)
    config = read_json(folder / "config.json")
    model, optimizer, random = (
        read_tensors(folder / f"{name}.safetensors")
        for name in ("model", "training/optimizer", "training/random")
    )
    return Checkpoint(folder, state, config, model, optimizer, random)


def parameter_names(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Names of the optimizer's parameters in its own order."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, flat and whole: `wte.weight/exp_avg` and so on; asked for in all processes."""
    names = parameter_names(model, optimizer)
    state = optimizer.state_dict()["state"]
    return {f"{names[i]}/{key}": whole(value) for i, values in state.items() for key, value in values.items()}


def load_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put `optimizer_tensors` back."""
    indices = {name: i for i, name in enumerate(parameter_names(model, optimizer))}
    parameters = dict(model.named_parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in tensors.items():
        name, key = path.rsplit("/", 1)
        if name not in indices:
            raise UserError(f"the checkpoint's optimizer knows {name}, which this model does not have")
        state.setdefault(indices[name], {})[key] = part_like(tensor, parameters[name])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
