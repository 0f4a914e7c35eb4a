"""What SmolLM2's GGUF file expands to, kept beside it, so that no process has to expand it again.

The copies are exact: the weights in float32, bit for bit (540 MB beside the 98 MB of the file), and the
tokenizer. They are only a shortcut: one that is not of this very file, made by other code or damaged is made
anew, and where there is no room for it, or no right to write, nothing is kept.
"""

import contextlib
import importlib.metadata
import json
import shutil
import zlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from supertf.data import tokenizer
from supertf.errors import UserError
from supertf.files import read_json, sha256, write_json
from supertf.model import gguf_weights, hf_weights, pretrained
from supertf.model.config import GPTConfig
from supertf.model.hf_weights import State

if TYPE_CHECKING:
    import tiktoken


def read_expanded(path: Path) -> tuple[GPTConfig, State]:
    """`gguf_weights.read_gguf` of a file, from the copy beside it, which is made if need be."""
    copy = path.with_suffix(".float32.safetensors")
    source = identity(path, gguf_weights, hf_weights)
    if found := read_copy(copy, source):
        return found
    config, state = gguf_weights.read_gguf(path)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if shutil.disk_usage(path.parent).free > 2 * size:
        told = {"source": source, "config": config.to_dict(), "crc32": crc32(state)}
        with contextlib.suppress(UserError):  # not writable: the next process expands the file again
            pretrained.write_tensors(copy, state, {"supertf": json.dumps(told)})
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


def read_tokenizer(path: Path) -> "tiktoken.Encoding":
    """`gguf_weights.gguf_tokenizer` of a file, from the copy beside it, which is made if need be."""
    copy = path.with_suffix(".tokenizer.json")
    source = identity(path, gguf_weights, tokenizer)
    with contextlib.suppress(UserError):  # absent or damaged
        told = read_json(copy)
        if told.get("source") == source:
            return tokenizer.tokenizer_from_spec(told.get("tokenizer"), str(copy))
    encoding = gguf_weights.gguf_tokenizer(path)
    with contextlib.suppress(UserError):  # not writable
        write_json(copy, {"source": source, "tokenizer": tokenizer.describe(encoding)})
    return encoding


def identity(path: Path, *modules: ModuleType) -> dict[str, Any]:
    """What a copy is made of and by: a file, told by its size and time, and the code that reads it."""
    stat = path.stat()
    code = {module.__name__: sha256(module.__file__) for module in modules}
    made_by = {"gguf": importlib.metadata.version("gguf"), **code}
    return {"bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, **made_by}


def crc32(state: State) -> int:
    """Checksum over the names and bytes of all tensors."""
    total = 0
    for name in sorted(state):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(state[name].contiguous().numpy().reshape(-1).view("uint8"), total)
    return total
