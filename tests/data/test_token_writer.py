"""Writing token files: nothing lost, whole or absent under interruption, kills and full disks."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import CHILD, DOCUMENTS, copied, read_documents, write

from supertf.data import staging, token_writer
from supertf.data.byte_pairs import train_bpe
from supertf.data.staging import STAGING
from supertf.data.token_files import TokenFile
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError


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
    names = ["train.bin", "train.bin.json", "validation.bin", "validation.bin.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


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
    monkeypatch.setattr(type(load_tokenizer("bytes")), "n_vocab", 1 << 17)
    train, _ = write(tmp_path)
    assert train.tokens.dtype == np.uint32
    assert train.path.stat().st_size == 4 * len(train)


def test_a_text_that_mentions_the_separator_is_not_cut_there(tmp_path):
    train, _ = write(tmp_path, ["before <|endoftext|> after"] * 4, split_ratio=0.5)
    assert train.manifest["documents"] == 2
    assert read_documents(train) == ["before <|endoftext|> after"] * 2


# --- whole or absent --------------------------------------------------------------------------------------


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="is a file"):
        write(tmp_path / "out")
    with pytest.raises(UserError, match="could not write"):
        write(tmp_path / "out" / "below")


def test_files_of_others_are_not_overwritten(tmp_path):
    (tmp_path / "train.bin").write_bytes(b"from another program")
    with pytest.raises(UserError, match="not written by supertf"):
        write(tmp_path)
    assert (tmp_path / "train.bin").read_bytes() == b"from another program"


def test_two_runs_into_one_folder_are_kept_apart(tmp_path):
    def slow():
        yield from DOCUMENTS
        with pytest.raises(UserError, match="another `supertf data`"):
            write(tmp_path)

    write(tmp_path, slow())[0].verify()


def test_an_error_in_the_corpus_leaves_the_old_files(files, tmp_path):
    path = copied(files, tmp_path)

    def broken():
        yield from DOCUMENTS[:50]
        raise UserError("the corpus ends in a damaged file")

    with pytest.raises(UserError, match="damaged"):
        write(tmp_path, broken())
    TokenFile(path).verify()
    assert TokenFile(path).manifest == files[0].manifest
    assert not (tmp_path / STAGING).exists()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_is_one_clear_line_and_leaves_the_old_files(files, tmp_path, monkeypatch, failing):
    path = copied(files, tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(UserError, match="No space left"):
        write(tmp_path)
    monkeypatch.undo()
    TokenFile(path).verify()
    assert TokenFile(path).manifest == files[0].manifest


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_write_that_the_system_refuses_is_a_clear_line_and_leaves_the_old_files(files, tmp_path):
    path = copied(files, tmp_path)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(count=5000), str(tmp_path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
    )
    assert "UserError: could not write to" in child.stderr
    TokenFile(path).verify()
    assert TokenFile(path).manifest == files[0].manifest


def test_a_killed_run_leaves_no_corpus_and_the_next_run_cleans_up(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(count=10**9), str(tmp_path)])
    staged = tmp_path / STAGING / "train.bin"
    deadline = time.monotonic() + 1800
    while (
        not (staged.exists() and staged.stat().st_size)
        and time.monotonic() < deadline
        and child.poll() is None
    ):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.name for path in tmp_path.iterdir()] == [STAGING]
    with pytest.raises(UserError, match="no token file"):
        TokenFile(tmp_path / "train.bin")
    write(tmp_path)[0].verify()
    assert not (tmp_path / STAGING).exists()


@pytest.mark.parametrize("survives", range(6))
def test_a_kill_while_files_get_their_names_never_pairs_old_with_new(files, tmp_path, monkeypatch, survives):
    """Every prefix of the renames and deletions is a state a kill can leave: it is old, new or refused."""
    path = copied(files, tmp_path)
    done = 0

    class KilledError(BaseException):
        """Stands for SIGKILL: nothing after it runs."""

    def counted(original):
        def step(*args, **options):
            nonlocal done
            if done == survives:
                raise KilledError
            if str(args[0]).startswith(str(tmp_path)) and ".tmp" not in str(args[0]):
                done += 1
            return original(*args, **options)

        return step

    real_publish = token_writer.publish

    def publish(*args):
        monkeypatch.setattr(token_writer.os, "replace", counted(os.replace))
        monkeypatch.setattr(token_writer.Path, "unlink", counted(token_writer.Path.unlink))
        real_publish(*args)

    monkeypatch.setattr(token_writer, "publish", publish)
    monkeypatch.setattr(staging.shutil, "rmtree", lambda *args, **options: None)
    with pytest.raises(KilledError):
        write(tmp_path, seed=5)
    monkeypatch.undo()
    new_hashes = set()
    for split in ("train", "validation"):
        try:
            file = TokenFile(tmp_path / f"{split}.bin")
        except UserError:
            continue
        file.verify()  # whole, whichever it is
        new_hashes.add(file.manifest["seed"])
    assert len(new_hashes) <= 1
    write(tmp_path)[0].verify()  # and the next run is not stopped by what is left
    assert TokenFile(path).manifest == files[0].manifest


# of this process: `ru_maxrss` would be that of the one which started it, where that is larger
PEAK = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_whatever_the_corpus(tmp_path):
    peaks = []
    for count in (4_000, 40_000):  # 2 and 20 MB
        child = subprocess.run(
            [sys.executable, "-c", CHILD.format(count=count) + PEAK, str(tmp_path / str(count))],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(child.stdout))
    assert peaks[1] < 1.2 * peaks[0], peaks
