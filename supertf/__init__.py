"""supertf: a GPT-2 style decoder with scalable softmax, no positional encoding and super weights."""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {  # public name: module; imported on first use so that `import supertf` stays fast
    "GPT": "model",
    "GPTConfig": "config",
    "PRESETS": "config",
    "TrainSettings": "training",
    "generate": "generation",
    "load_model": "pretrained",
    "load_tokenizer": "tokenizer",
    "perplexity": "evaluate",
    "train": "training",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'supertf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"supertf.{_EXPORTS[name]}"), name)
