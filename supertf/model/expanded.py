"""What SmolLM2's GGUF file expands to, kept beside it, so that no process has to expand it again.

The copy is exact: the weights in float32, bit for bit (540 MB beside the 98 MB of the file). It is only a
shortcut: one that is not of this very file, made by other code or damaged is made anew, and where there is no
room for it, or no right to write, nothing is kept.
"""

import contextlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

from supertf.errors import UserError
from supertf.files import made_from
from supertf.model import gguf_weights, hf_weights
from supertf.model.config import GPTConfig
from supertf.model.tensor_files import State, write_tensors


def read_expanded(path: Path) -> tuple[GPTConfig, State]:
    """`gguf_weights.read_gguf` of a file, from the copy beside it, which is made if need be."""
    copy = path.with_suffix(".float32.safetensors")
    source = made_from(path, gguf_weights, hf_weights)
    if found := read_copy(copy, source):
        return found
    config, state = gguf_weights.read_gguf(path)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shutil.disk_usage(path.parent).free > 2 * size:
        told = {"source": source, "config": config.to_dict(), "crc32": crc32(state)}
        with contextlib.suppress(UserError):  # not writable: the next process expands the file again
            write_tensors(copy, state, {"supertf": json.dumps(told)})
    return config, state


def read_copy(copy: Path, source: dict[str, Any]) -> tuple[GPTConfig, State] | None:
    """Config and weights of a copy, mapped into memory; None: absent, of another source, or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(copy, "pt") as file:
            told = json.loads(file.metadata()["supertf"])
            if told["source"] != source:
                return None
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return (GPTConfig.from_dict(told["config"]), state) if told["crc32"] == crc32(state) else None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, UserError):
        return None


def crc32(state: State) -> int:
    """Checksum over the names and bytes of all tensors."""
    total = 0
    for name in sorted(state):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(state[name].contiguous().numpy().reshape(-1).view("uint8"), total)
    return total
