"""Token files: every change noticed; windows and batches that cover and repeat exactly."""

import itertools
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from written import copied, write

from supertf.data.token_files import TokenFile, Windows, batches, manifest_path
from supertf.errors import UserError
from supertf.files import seal


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tokens"))


# --- damage -----------------------------------------------------------------------------------------------


def test_truncated_renamed_and_exchanged_files_are_refused(files, tmp_path):
    path = copied(files, tmp_path)
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(UserError, match="truncated or another file"):
        TokenFile(path)
    path.rename(tmp_path / "other.bin")
    with pytest.raises(UserError, match="no token file"):
        TokenFile(path)
    with pytest.raises(UserError, match="no manifest"):
        TokenFile(tmp_path / "other.bin")
    (tmp_path / "validation.bin").rename(path)
    with pytest.raises(UserError, match="truncated or another file"):
        TokenFile(path)


def test_a_sealed_manifest_of_another_format_is_refused(files, tmp_path):
    path = copied(files, tmp_path)
    manifest_path(path).write_text(json.dumps(seal({**files[0].manifest, "format": "other"})))
    with pytest.raises(UserError, match="not a manifest of supertf"):
        TokenFile(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(files, tmp_path_factory, data):
    path = copied(files, tmp_path_factory.mktemp("flipped"))
    target = data.draw(st.sampled_from([path, manifest_path(path)]))
    content = bytearray(target.read_bytes())
    content[data.draw(st.integers(0, len(content) - 2))] ^= 1 << data.draw(st.integers(0, 7))
    target.write_bytes(content)
    with pytest.raises(UserError):
        TokenFile(path).verify()


@settings(deadline=None)
@given(
    tokens=st.binary(max_size=40),
    manifest=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode()),
)
def test_any_bytes_as_token_file_give_only_a_user_error(tmp_path_factory, tokens, manifest):
    path = tmp_path_factory.mktemp("fuzz") / "train.bin"
    path.write_bytes(tokens)
    manifest_path(path).write_bytes(manifest)
    with pytest.raises(UserError):
        TokenFile(path)


def test_vocabulary_of_the_model_is_checked_against_the_largest_id(files):
    files[0].check_vocabulary(257)
    with pytest.raises(UserError, match=r"256.*256 tokens"):
        files[0].check_vocabulary(256)


# --- windows and batches ----------------------------------------------------------------------------------


class Count:
    """A token file of the numbers 0, 1, 2, ..."""

    path = "tokens"

    def __init__(self, tokens: int):
        self.tokens = np.arange(tokens, dtype=np.uint16)
        self.manifest = {}

    def __len__(self):
        return len(self.tokens)


@given(tokens=st.integers(1, 400), length=st.integers(1, 40), stride=st.integers(1, 40), bos=st.booleans())
def test_windows_cover_every_token_in_order(tokens, length, stride, bos):
    if stride > length or tokens < length + (not bos):
        with pytest.raises(UserError):
            Windows(Count(tokens), length, stride, bos_id=1000 if bos else None)
        return
    windows = Windows(Count(tokens), length, stride, bos_id=1000 if bos else None)
    targets = set()
    starts = []
    for i in range(len(windows)):
        window = windows[i]
        assert window.shape == (length + 1,) and window.dtype == torch.int64
        body = window[1:] if bos else window
        assert torch.equal(body, torch.arange(int(body[0]), int(body[0]) + len(body)))
        assert not bos or window[0] == 1000
        starts.append(int(body[0]))
        targets |= set(window[1:].tolist())
    assert targets == set(range(0 if bos else 1, tokens))
    assert starts[:-1] == [i * stride for i in range(len(windows) - 1)]  # the last may overlap more
    assert all(a < b for a, b in itertools.pairwise(starts))
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_windows_take_length_and_stride_from_the_manifest(files):
    windows = Windows(files[0])
    assert (windows.length, windows.stride) == (16, 4)
    assert Windows(files[0], length=2).stride == 2  # never more than the length


def test_batches_resume_at_any_step(files):
    windows = Windows(files[1], 8, 8)
    whole = list(itertools.islice(batches(windows, 5, seed=3), 40))
    for start in (0, 1, 17, 39):
        inputs, targets = next(batches(windows, 5, seed=3, start=5 * start))
        assert torch.equal(inputs, whole[start][0]) and torch.equal(targets, whole[start][1])
    inputs, targets = whole[0]
    assert inputs.shape == targets.shape == (5, 8) and inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert not torch.equal(whole[0][0], next(batches(windows, 5, seed=4))[0])


def test_an_epoch_has_every_window_once_and_the_next_in_another_order(files):
    windows = Windows(files[1], 8, 8)
    stream = (row for inputs, _ in batches(windows, 3, seed=0) for row in inputs.tolist())
    first, second = (list(itertools.islice(stream, len(windows))) for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(window[:-1].tolist() for window in windows)
    assert first != second
