"""supertf: a GPT-2 style decoder with scalable softmax, no positional encoding and super weights."""

import importlib
import os
from typing import Any

# How PyTorch's threads wait for each other, which OpenMP reads when torch loads: actively for a moment, then
# asleep. Left alone they spin for milliseconds, and beside a busy program every operation can take as long
# as that program's time slice. `supertf bench busy` measures it.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ |= {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}  # GNU's OpenMP; LLVM's and Intel's (ms)

__version__ = "0.1.0"

_EXPORTS = {  # public name: module; imported on first use so that `import supertf` stays fast
    "GPT": "model.gpt",
    "GPTConfig": "model.config",
    "PRESETS": "model.config",
    "TrainSettings": "training.settings",
    "generate": "model.generation",
    "load_model": "model.pretrained",
    "load_tokenizer": "data.tokenizer",
    "perplexity": "analysis.losses",
    "train": "training.loop",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'supertf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"supertf.{_EXPORTS[name]}"), name)
