"""`supertf bench busy`: what training costs while another program keeps one core busy."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from supertf.bench.timing import machine
from supertf.data import lab_tokens
from supertf.model import language_config
from supertf.training import TrainSettings, train

SHAPES = {  # notebook 03's decoder, and one whose operations are shared out to all threads
    "notebook 03": {"n_layer": 3, "position": "none"},
    "four times as wide": {"n_layer": 3, "n_embd": 256, "position": "none"},
}
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def run(repeats: int = 5, steps: int = 40) -> Iterator[dict[str, Any]]:
    """Milliseconds of a training step alone and beside one process that never rests, in turns.

    Batches of 32 windows of 64 bytes, as in notebook 03. `ratio`: busy over quiet, by round: median and
    quartiles. To compare ways of waiting, set `GOMP_SPINCOUNT` (GNU's OpenMP, as in Linux' PyTorch) or
    `KMP_BLOCKTIME` (LLVM's, Intel's) before the command; what is set is in the result.

    Args:
        repeats: rounds.
        steps: of training, in each.

    Yields:
        The result so far, after each model.
    """
    result: dict[str, Any] = {
        "machine": machine(),
        "waiting": {name: os.environ.get(name) for name in WAITING},
        "steps": steps,
        "repeats": repeats,
    }
    for name, shape in SHAPES.items():
        step_milliseconds(shape, 2)
        quiet, busy = [], []
        for _ in range(repeats):
            quiet.append(step_milliseconds(shape, steps))
            with one_core_busy():
                busy.append(step_milliseconds(shape, steps))
        low, median, high = np.quantile(np.divide(busy, quiet), [0.25, 0.5, 0.75]).tolist()
        result[name] = {
            "quiet_ms": float(np.median(quiet)),
            "busy_ms": float(np.median(busy)),
            "ratio": median,
            "ratio_lower_quartile": low,
            "ratio_upper_quartile": high,
        }
        yield result


def step_milliseconds(shape: dict[str, Any], steps: int) -> float:
    """Mean milliseconds of a training step of a fresh decoder."""
    train_file, validation_file = lab_tokens(257)
    settings = TrainSettings(
        steps=steps,
        batch_size=32,
        validate_every=0,
        validation_windows=1,
        device="cpu",
        precision="fp32",
        progress=False,
    )
    config = language_config(train_file.vocab_size, 64, **shape)
    return 1000 * train(config, train_file, validation_file, settings).seconds / steps


@contextlib.contextmanager
def one_core_busy() -> Iterator[None]:
    """Another process computes without pause while the context lasts."""
    spin = "print('started', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None  # a pipe
        try:
            process.stdout.readline()
            time.sleep(0.1)  # until it and this process have their cores
            yield
        finally:
            process.kill()
