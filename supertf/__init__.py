"""supertf: a GPT-2 style decoder with scalable softmax, no positional encoding and super weights."""

import os

import lazy_loader

# How PyTorch's threads wait for each other, which OpenMP reads when torch loads: actively for a moment, then
# asleep. Left alone they spin for milliseconds, and beside a busy program every operation can take as long
# as that program's time slice. `supertf bench busy` measures it.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ |= {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}  # GNU's OpenMP; LLVM's and Intel's (ms)

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
