"""A corpus and a model small enough to train in a second, for the tests of training."""

import os
import sys
import threading
from pathlib import Path

import torch
from tqdm import tqdm

from supertf.cli.main import main
from supertf.data.token_files import TokenFile
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.model.config import GPTConfig, preset
from supertf.training.settings import TrainSettings

T = 16


def tiny_tokens(folder: Path) -> tuple[TokenFile, TokenFile]:
    """Token files of simple sums, written out in bytes: train.bin and validation.bin in `folder`."""
    documents = [f"{a} plus {b} makes {a + b}. " * 3 for a in range(12) for b in range(12)]
    return prepare(
        documents, load_tokenizer("bytes"), folder, max_length=T, stride=T, threads=1, progress=False
    )


def tiny_config(**changes) -> GPTConfig:
    """About 8,000 parameters; vocabulary of the bytes tokenizer."""
    sizes = {"vocab_size": 257, "n_ctx": T, "n_layer": 2, "n_head": 2, "n_embd": 16}
    return preset("lab", **{**sizes, **changes})


def tiny_settings(**changes) -> TrainSettings:
    """A few steps on the CPU."""
    quick = {"steps": 12, "batch_size": 4, "validation_windows": 4, "validate_every": 4, "save_every": 4}
    return TrainSettings(**{**quick, "lr": 1e-2, "device": "cpu", "progress": False, **changes})


def command_here(arguments: list[str], said: Path) -> None:
    """`supertf` with these arguments as all that this process does; what it says is added to a file."""
    with open(said, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a killed process would leave behind
    sys.exit(main(arguments))
