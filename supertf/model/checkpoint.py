"""Checkpoints as they lie on disk: found by a run's name, and verified; `training.checkpoint` writes them.

run/checkpoints.json              {"last": "step-00000600", "best": "step-00000500"}
run/step-00000600/config.json        with model.safetensors what `load_model` reads
                  model.safetensors
                  tokenizer.json
                  state.json         step, progress and the SHA-256 of every other file
                  training/optimizer.safetensors   AdamW's moments and step count per parameter
                  training/random.safetensors      random states, one row per process
"""

from pathlib import Path
from typing import Any

from supertf.errors import UserError
from supertf.files import is_sealed, read_json, sha256

FORMAT = "supertf checkpoint 1"
POINTER = "checkpoints.json"
STATE = "state.json"


def locate(path: str | Path, prefer: str = "best") -> Path:
    """The checkpoint that a path means.

    Args:
        path: a run's folder, run/last or run/best; any other path is returned unchanged.
        prefer: which of a run's folder, "best" or "last"; where it has no such one, its last.

    Raises:
        UserError: the run's pointer names a folder that is not there.
    """
    path = Path(path)
    wanted: tuple[str, ...] = (prefer, "last")
    if (path / POINTER).is_file():
        run = path
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
    """The state of a checkpoint, after comparing files with the hashes in it.

    Args:
        folder: the checkpoint's.
        names: which files; None is all.

    Raises:
        UserError: the state or a file is missing or was changed; the first such one is named.
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


def trained_with_bos(name: str | Path) -> bool:
    """Whether the windows that `train` made this checkpoint on began with a BOS; False for other models."""
    folder = locate(name)
    return (folder / STATE).is_file() and bool(read_json(folder / STATE).get("settings", {}).get("bos"))
