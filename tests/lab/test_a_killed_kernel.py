"""Notebook 10 beside a kernel that is killed: what it trains goes on in the next one, bit for bit."""

import time
from pathlib import Path

import nbformat
import pytest
import torch
from jupyter_client.manager import start_new_kernel

from supertf.lab.book.executed import code_cells
from supertf.lab.book.runs import NOTEBOOKS
from supertf.model import checkpoint
from supertf.model.pretrained import read_tensors

ROOT = Path(__file__).parents[2]
NAME = "10_train_on_a_gpu.ipynb"
FIRST, LAST = "import dataclasses", "runs[name] = train_variant("  # in the first and the last cell run
ABOUT_OTHERS = ("by_batch", "sixteen", "check(", "def micro_batches", "def hours", "google.colab")


def cells(folder: Path) -> list[str]:
    """The sources up to the training, of a single variant; without those about other recipes."""
    sources = [cell.source for cell in code_cells(nbformat.read(ROOT / NOTEBOOKS / NAME, as_version=4))]
    (start,), (end,) = ([i for i, one in enumerate(sources) if text in one] for text in (FIRST, LAST))
    chosen = [one for one in sources[start : end + 1] if not any(text in one for text in ABOUT_OTHERS)]
    given = f"SCALE, VARIANTS = 0.5, ['ssmax none']\nFOLDER = folder = {str(folder)!r}"
    after = next(i for i, one in enumerate(chosen) if one.startswith("RECIPE ="))
    return ["import supertf", *chosen[: after + 1], given, *chosen[after + 1 :]]


@pytest.fixture
def kernel():
    """Returns a function that starts a kernel; all are shut down in the end."""
    managers = []

    def start():
        manager, client = start_new_kernel(cwd=str(ROOT / NOTEBOOKS))
        managers.append(manager)
        return manager, client

    yield start
    for manager in managers:
        manager.shutdown_kernel(now=True)


def run(client, folder: Path) -> None:
    """Run the cells, each to its end."""
    for source in cells(folder):
        reply = client.execute_interactive(source, timeout=600, output_hook=lambda message: None)
        assert reply["content"]["status"] == "ok", reply["content"]


def last_checkpoint(folder: Path) -> Path:
    return checkpoint.locate(folder / "ssmax_none", prefer="last")


def last_step(folder: Path) -> int:
    return checkpoint.verify(last_checkpoint(folder))["step"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(last_checkpoint(folder) / "model.safetensors")


def test_a_training_whose_kernel_was_killed_ends_with_the_same_weights(tmp_path, kernel):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    manager, client = kernel()
    for source in cells(killed):
        client.execute(source)
    ends = time.monotonic() + 300
    while not (killed / "ssmax_none" / checkpoint.POINTER).exists():
        assert time.monotonic() < ends and manager.is_alive()
        time.sleep(0.02)
    manager.shutdown_kernel(now=True)  # which kills it
    killed_at = last_step(killed)
    for folder in (killed, whole):
        run(kernel()[1], folder)
    assert killed_at < last_step(killed) == last_step(whole)
    resumed, uncut = weights(killed), weights(whole)
    assert resumed.keys() == uncut.keys()
    assert all(torch.equal(resumed[name], uncut[name]) for name in uncut)
