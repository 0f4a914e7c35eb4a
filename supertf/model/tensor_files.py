"""Safetensors files: read whole, written whole or not at all."""

from pathlib import Path

from torch import Tensor

from supertf.errors import UserError
from supertf.files import atomic_path

State = dict[str, Tensor]  # tensors by name


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
