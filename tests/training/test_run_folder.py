"""Where a run is in its data: every window once per epoch, whatever the batches of a resumed run."""

import json
import math
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config, tiny_settings, tiny_tokens

from supertf.cli.main import main
from supertf.data import token_files as data
from supertf.data.token_files import TokenFile, manifest_path
from supertf.files import read_json, seal, write_json
from supertf.model import checkpoint
from supertf.training.loop import micro_batches, train

pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tiny_tokens(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
def read(monkeypatch):
    """The starts of the training windows read so far, in order."""
    starts = []
    plain = data.Windows.__getitem__

    def recorded(self, index):
        if self.file.manifest["split"] == "train":
            starts.append(min(index * self.stride, len(self.file) - self._span))
        return plain(self, index)

    monkeypatch.setattr(data.Windows, "__getitem__", recorded)
    return starts


def each_once(starts: list[int], windows: int) -> bool:
    """Whether every epoch, the last perhaps unfinished, has no window twice and each whole one has all."""
    epochs = [starts[first : first + windows] for first in range(0, len(starts), windows)]
    return all(len(set(epoch)) == len(epoch) for epoch in epochs)


@given(count=st.integers(1, 40), stages=st.lists(STAGES, min_size=1, max_size=5), seed=st.integers(0, 3))
def test_every_window_is_read_once_per_epoch_for_any_batches(count, stages, seed):
    """Stages of a run, resumed with another batch size, accumulation and number of processes each time."""
    windows = torch.arange(count)[:, None].repeat(1, 2)
    read = []
    for batch_size, accumulation, processes, steps in stages:
        settings = tiny_settings(batch_size=batch_size, grad_accumulation=accumulation, seed=seed)
        streams = [
            micro_batches(
                windows,
                settings,
                types.SimpleNamespace(num_processes=processes, process_index=rank, device="cpu"),
                len(read),
            )
            for rank in range(processes)
        ]
        begun = len(read)
        for _ in range(steps * accumulation):
            for stream in streams:
                read += next(stream)[0][:, 0].tolist()
        assert len(read) - begun == steps * batch_size * accumulation * processes
    assert each_once(read, count)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(40, 1), (24, 3), (64, 2)])
def test_a_run_resumed_with_other_batches_reads_every_window_once(
    tokens, tmp_path, read, batch_size, accumulation
):
    windows = len(data.Windows(tokens[0], 16, bos_id=256))
    begun = train(tiny_config(), *tokens, tiny_settings(steps=4, batch_size=64), tmp_path)
    assert begun.windows_read == len(read) == 256
    per_step = batch_size * accumulation
    settings = tiny_settings(
        steps=4 + math.ceil((windows - 256) / per_step), batch_size=batch_size, grad_accumulation=accumulation
    )
    result = train(tiny_config(), *tokens, settings, tmp_path, resume=True)
    assert windows <= result.windows_read == len(read) < windows + per_step
    assert each_once(read, windows)


def test_a_checkpoint_without_its_place_in_the_data_is_resumed_where_it_stopped(tokens, tmp_path, read):
    """Older checkpoints tell steps, batch size, accumulation and processes."""
    train(tiny_config(), *tokens, tiny_settings(steps=4, batch_size=6, grad_accumulation=2), tmp_path)
    path = checkpoint.locate(tmp_path, prefer="last") / checkpoint.STATE
    state = read_json(path)
    del state["data"]
    write_json(path, seal(state))
    result = train(tiny_config(), *tokens, tiny_settings(steps=8, batch_size=5), tmp_path, resume=True)
    assert result.windows_read == len(read) == 48 + 20
    assert each_once(read, len(data.Windows(tokens[0], 16, bos_id=256)))


@pytest.mark.parametrize("change", ["seed", "length", "bos", "stride"])
def test_windows_cut_or_shuffled_otherwise_begin_a_new_epoch(tmp_path, read, capsys, change):
    tokens = tiny_tokens(tmp_path)
    changes = {"seed": {"seed": 1}, "length": {"length": 8}, "bos": {"bos": False}, "stride": {}}[change]
    train(tiny_config(), *tokens, tiny_settings(steps=4), tmp_path / "run")
    if change == "stride":
        for file in tokens:
            write_json(manifest_path(file.path), seal({**file.manifest, "stride": 8}))
        tokens = tuple(TokenFile(file.path) for file in tokens)
    read.clear()
    result = train(tiny_config(), *tokens, tiny_settings(steps=40, **changes), tmp_path / "run", resume=True)
    assert "a new epoch begins here" in capsys.readouterr().err
    bos = None if change == "bos" else 256
    windows = len(data.Windows(tokens[0], changes.get("length", 16), bos_id=bos))
    assert result.windows_read == windows + len(read) == windows + 36 * 4
    assert each_once(read, windows)


def test_an_epoch_resumed_with_another_batch_size_ends_with_the_epoch(tmp_path, monkeypatch, capsys, read):
    """`--epoch` counts passes over the windows, also when half of one was made with other batches."""
    tokens = tiny_tokens(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    windows = len(data.Windows(tokens[0], 16, bos_id=256))
    common = ["train", "--max_len", "16", "--output_dir", "run", "--json"]
    assert main([*common, "--batch_size", "64", "--steps", "4"]) == 0
    capsys.readouterr()
    for again in range(2):  # the second time nothing is left
        assert main([*common, "--batch_size", "50", "--resume"]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == 4 + math.ceil((windows - 256) / 50), again
    assert windows <= len(read) < windows + 50
    assert each_once(read, windows)
