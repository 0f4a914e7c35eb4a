"""Token files under damage, interruption and full disks: whole or absent, every change noticed."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supertf.data import token_files as data
from supertf.data import token_writer
from supertf.data.token_files import TokenFile, prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.files import seal

BYTES = load_tokenizer("bytes")
DOCUMENTS = [f"Document {i}: " + "text " * (i % 7) for i in range(200)]


def write(folder, documents=DOCUMENTS, **options):
    return prepare(documents, BYTES, folder, **{"max_length": 16, "stride": 4, "progress": False, **options})


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tokens"))


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


def copy(files, folder):
    for file in files:
        for path in (file.path, token_writer.manifest_path(file.path)):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder / "train.bin"


def test_truncated_renamed_and_exchanged_files_are_refused(files, tmp_path):
    path = copy(files, tmp_path)
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


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(files, tmp_path_factory, data):
    path = copy(files, tmp_path_factory.mktemp("flipped"))
    target = data.draw(st.sampled_from([path, token_writer.manifest_path(path)]))
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
    token_writer.manifest_path(path).write_bytes(manifest)
    with pytest.raises(UserError):
        TokenFile(path)


# interruptions


def test_an_error_in_the_corpus_leaves_the_old_files(files, tmp_path):
    path = copy(files, tmp_path)

    def broken():
        yield from DOCUMENTS[:50]
        raise UserError("the corpus ends in a damaged file")

    with pytest.raises(UserError, match="damaged"):
        write(tmp_path, broken())
    TokenFile(path).verify()
    assert TokenFile(path).manifest == files[0].manifest
    assert not (tmp_path / token_writer.STAGING).exists()


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_clear_line_and_leaves_the_old_files(files, tmp_path, monkeypatch, failing):
    path = copy(files, tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if failing == "write":
        monkeypatch.setattr(token_writer, "open", lambda *args: FullFile(), raising=False)
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(UserError, match="No space left"):
        write(tmp_path)
    monkeypatch.undo()
    TokenFile(path).verify()
    assert TokenFile(path).manifest == files[0].manifest


class FullFile:
    """A file on a disk that is full."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None

    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


CHILD = """
import sys
from supertf.data.token_files import prepare
from supertf.data.tokenizer import load_tokenizer
def documents():
    for i in range({count}):
        yield f"document {{i}} " + "some text " * 50
prepare(documents(), load_tokenizer("bytes"), sys.argv[1], progress=False)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_write_that_the_system_refuses_is_a_clear_line(tmp_path):
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
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_corpus_and_the_next_run_cleans_up(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD.format(count=10**9), str(tmp_path)])
    staged = tmp_path / token_writer.STAGING / "train.bin"
    deadline = time.monotonic() + 1800
    while not (staged.exists() and staged.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert [path.name for path in tmp_path.iterdir()] == [token_writer.STAGING]
    with pytest.raises(UserError, match="no token file"):
        TokenFile(tmp_path / "train.bin")
    write(tmp_path)[0].verify()
    assert not (tmp_path / token_writer.STAGING).exists()


@pytest.mark.parametrize("survives", range(6))
def test_a_kill_while_files_get_their_names_never_pairs_old_with_new(files, tmp_path, monkeypatch, survives):
    """Every prefix of the renames and deletions is a state a kill can leave: it is old, new or refused."""
    path = copy(files, tmp_path)
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

    monkeypatch.setattr(data, "publish", publish)
    monkeypatch.setattr(token_writer.shutil, "rmtree", lambda *args, **options: None)
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


def test_a_sealed_manifest_of_another_format_is_refused(files, tmp_path):
    path = copy(files, tmp_path)
    token_writer.manifest_path(path).write_text(json.dumps(seal({**files[0].manifest, "format": "other"})))
    with pytest.raises(UserError, match="not a manifest of supertf"):
        TokenFile(path)
