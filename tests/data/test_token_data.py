"""Token files: nothing lost, whole or absent, windows and batches that cover and repeat exactly."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data.byte_pairs import train_bpe
from supertf.data.token_files import TokenFile, Windows, batches, check_vocab, prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError

BYTES = load_tokenizer("bytes")
DOCUMENTS = [f"Document {i}: " + "text " * (i % 7) for i in range(200)]


def write(folder, documents=DOCUMENTS, **options):
    return prepare(documents, BYTES, folder, **{"max_length": 16, "stride": 4, "progress": False, **options})


def read_documents(file):
    """The documents of a token file, told apart by the separator."""
    ends = np.flatnonzero(file.tokens == file.tokenizer.eot_token)
    return [file.tokenizer.decode(part[part < 256]) for part in np.split(file.tokens, ends + 1)[:-1]]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tokens"))


@settings(max_examples=30, deadline=None)
@given(
    documents=st.lists(st.text(st.characters(), max_size=40), min_size=2, max_size=60),
    split_ratio=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
    batch_size=st.integers(1, 9),
)
def test_every_document_is_in_one_split_whole_and_in_order(
    tmp_path_factory, documents, split_ratio, seed, batch_size
):
    folder = tmp_path_factory.mktemp("split")
    try:
        train, validation = write(
            folder,
            documents,
            split_ratio=split_ratio,
            seed=seed,
            batch_size=batch_size,
            max_length=1,
            stride=1,
        )
    except UserError as error:
        assert "has 0 tokens" in str(error) or "no text" in str(error)
        return
    left, right = read_documents(train), read_documents(validation)
    given_texts = [
        text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in documents if text
    ]
    merged, queue = list(left), list(right)
    for text in given_texts:  # both keep the order given, and together they are everything
        (left if left and left[0] == text else right).pop(0)
    assert not left and not right and len(merged) + len(queue) == len(given_texts)
    assert abs(len(queue) - len(given_texts) * (1 - split_ratio)) <= 1
    assert train.manifest["empty_documents"] == documents.count("")


def test_manifest_states_what_the_file_holds(tmp_path):
    train, validation = write(tmp_path, source="here", license="MIT", command="supertf data")
    for file, split in ((train, "train"), (validation, "validation")):
        manifest = file.manifest
        assert manifest["split"] == split
        assert manifest["tokens"] == len(file) == file.path.stat().st_size // 2
        assert manifest["documents"] == np.count_nonzero(file.tokens == 256)
        assert manifest["text_bytes"] == len(file) - manifest["documents"]
        assert manifest["max_token"] == file.tokens.max() == 256
        assert (manifest["tokenizer"], manifest["vocab_size"], manifest["dtype"]) == ("bytes", 257, "uint16")
        assert (manifest["source"], manifest["license"], manifest["stride"]) == ("here", "MIT", 4)
        assert manifest["versions"]["tiktoken"]
        file.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "train.bin",
        "train.bin.json",
        "validation.bin",
        "validation.bin.json",
    ]


def test_the_same_input_gives_the_same_files(tmp_path, files):
    again = write(tmp_path, iter(DOCUMENTS), batch_size=3, threads=3)
    assert [file.manifest["sha256"] for file in again] == [file.manifest["sha256"] for file in files]
    other = write(tmp_path, seed=1)
    assert other[0].manifest["sha256"] != files[0].manifest["sha256"]


def test_a_trained_tokenizer_travels_in_the_manifest(tmp_path):
    bpe = train_bpe(DOCUMENTS, 300)
    train, _ = prepare(DOCUMENTS, bpe, tmp_path, max_length=8, stride=8, progress=False)
    loaded = TokenFile(train.path).tokenizer
    assert loaded.decode(train.tokens).split("<|endoftext|>")[0] in DOCUMENTS
    assert loaded._mergeable_ranks == bpe._mergeable_ranks


def test_large_vocabularies_are_written_as_uint32(tmp_path, monkeypatch):
    monkeypatch.setattr(type(BYTES), "n_vocab", 1 << 17)
    train, _ = write(tmp_path)
    assert train.tokens.dtype == np.uint32
    assert train.path.stat().st_size == 4 * len(train)


def test_a_text_that_mentions_the_separator_is_not_cut_there(tmp_path):
    train, _ = write(tmp_path, ["before <|endoftext|> after"] * 4, split_ratio=0.5)
    assert train.manifest["documents"] == 2
    assert read_documents(train) == ["before <|endoftext|> after"] * 2


# windows and batches


@given(tokens=st.integers(1, 400), length=st.integers(1, 40), stride=st.integers(1, 40), bos=st.booleans())
def test_windows_cover_every_token_in_order(tokens, length, stride, bos):
    class File:
        path = "tokens"

        def __init__(self):
            self.tokens = np.arange(tokens, dtype=np.uint16)
            self.manifest = {}

        def __len__(self):
            return len(self.tokens)

    if stride > length or tokens < length + (not bos):
        with pytest.raises(UserError):
            Windows(File(), length, stride, bos_id=1000 if bos else None)
        return
    windows = Windows(File(), length, stride, bos_id=1000 if bos else None)
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


def test_vocabulary_of_the_model_is_checked_against_the_largest_id(files):
    check_vocab(files[0], 257)
    with pytest.raises(UserError, match=r"256.*256 tokens"):
        check_vocab(files[0], 256)


# mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_ratio": 0.0}, "split_ratio is 0.0"),
        ({"split_ratio": 1.0}, "split_ratio is 1.0"),
        ({"split_ratio": float("nan")}, "split_ratio is nan"),
        ({"max_length": 0}, "length 0"),
        ({"stride": 0}, "stride 0"),
        ({"stride": 17}, "stride 17"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_length": 100_000}, r"has \d+ tokens, fewer than the 100001"),
        ({"documents": []}, "no text in the corpus"),
        ({"documents": ["", ""]}, "no text in the corpus"),
        ({"documents": ["only one document that is long enough"]}, "has 0 tokens, fewer than the 17"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
