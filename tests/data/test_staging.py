"""Writing token files goes on where it was cut off: the same files, byte by byte."""

import json
import signal
import subprocess
import sys
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written import CHILD, DOCUMENTS, read_documents, write

from supertf.data import staging
from supertf.data.staging import STAGING, Place
from supertf.data.token_files import TokenFile
from supertf.errors import Note, UserError


def interrupted(folder, documents, after, **options):
    """A run whose reader ends with Ctrl-C after so many documents."""
    place = Place()

    def reader():
        for text in documents[place.documents :][:after]:
            place.documents += 1
            yield text
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        write(folder, reader(), place=place, **options)


def gone_on_with(folder, documents, **options):
    """A run that reads on; its files, and how many documents it read."""
    place, read = Place(), []

    def reader():
        for text in documents[place.documents :]:
            place.documents += 1
            read.append(text)
            yield text

    return write(folder, reader(), place=place, resume=True, **options), len(read)


@settings(max_examples=25, deadline=None)
@given(
    after=st.integers(1, 200),
    again=st.integers(1, 200),
    batch_size=st.integers(1, 40),
    seed=st.integers(0, 3),
)
def test_a_run_that_is_gone_on_with_ends_with_the_same_files(
    tmp_path_factory, after, again, batch_size, seed
):
    documents = [*DOCUMENTS[:60], "", "", *DOCUMENTS[60:]]
    options = {"batch_size": batch_size, "seed": seed, "command": "supertf data"}
    whole = write(tmp_path_factory.mktemp("whole"), documents, **options)
    folder = tmp_path_factory.mktemp("parts")
    complete = 0
    for count in (after, again):
        interrupted(folder, documents, count, resume=complete > 0, **options)
        read = min(count, len(documents) - complete)
        complete += read // batch_size * batch_size  # what was not a whole batch is read again
        assert staging.unfinished(folder) == (complete > 0)
    if not complete:
        return
    files, read = gone_on_with(folder, documents, **options)
    assert [file.manifest for file in files] == [file.manifest for file in whole]
    for file in files:
        file.verify()
    assert read == len(documents) - complete
    assert not (folder / STAGING).exists()


def test_a_second_interruption_keeps_what_the_first_had(tmp_path):
    interrupted(tmp_path, DOCUMENTS, 50, batch_size=10)
    place = Place()

    def reader():
        raise UserError("the hub was lost")
        yield

    with pytest.raises(UserError, match="lost"), pytest.warns(Note, match="--resume goes on there"):
        write(tmp_path, reader(), place=place, resume=True, batch_size=10)
    files, read = gone_on_with(tmp_path, DOCUMENTS, batch_size=10)
    assert read == 150 and len(files[0]) + len(files[1]) > 0


def test_a_run_that_is_killed_is_gone_on_with(tmp_path):
    code = (
        CHILD.replace("documents():", "documents(place):")
        .replace("documents(),", "documents(place),")
        .replace("progress=False", "progress=False, place=place, resume=RESUME")
    )
    code = code.replace("        yield", "        place.documents += 1\n        yield").replace(
        "range({count})", "range(place.documents, {count})"
    )
    code = "from supertf.data import staging\nstaging.EVERY = 0\nplace = staging.Place()\n" + code
    first = code.format(count=10**9).replace("RESUME", "False")
    child = subprocess.Popen([sys.executable, "-c", first, str(tmp_path)])
    while child.poll() is None and not staging.unfinished(tmp_path):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    noted = json.loads((tmp_path / STAGING / staging.JOURNAL).read_text())["noted"]
    count = noted["place"]["documents"] + 1500
    second = code.format(count=count).replace("RESUME", "True")
    subprocess.run([sys.executable, "-c", second, str(tmp_path)], check=True)
    texts = [
        text
        for split in ("train", "validation")
        for text in read_documents(TokenFile(tmp_path / f"{split}.bin"))
    ]
    assert sorted(int(text.split()[1]) for text in texts) == list(range(count)), "each once"


def test_without_resume_a_run_begins_anew(tmp_path):
    interrupted(tmp_path, DOCUMENTS, 50, batch_size=10)
    write(tmp_path)[0].verify()
    assert not (tmp_path / STAGING).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "has another seed, '0'"),
        ({"split_ratio": 0.5}, "has another split_ratio, '0.9'"),
        ({"command": "supertf data --text_column body"}, "has another command, ''"),
    ],
)
def test_what_was_made_otherwise_is_not_gone_on_with(tmp_path, options, says):
    interrupted(tmp_path, DOCUMENTS, 50, batch_size=10)
    with pytest.raises(UserError, match=says):
        gone_on_with(tmp_path, DOCUMENTS, **options)
    gone_on_with(tmp_path, DOCUMENTS)[0][0].verify()  # and it is still there


def test_what_cannot_be_gone_on_with_says_why(tmp_path):
    with pytest.raises(UserError, match="nothing unfinished in"):
        gone_on_with(tmp_path / "new", DOCUMENTS)
    assert not (tmp_path / "new").exists()
    interrupted(tmp_path, DOCUMENTS, 50, batch_size=10)
    staged, journal = tmp_path / STAGING / "train.bin", tmp_path / STAGING / staging.JOURNAL
    held = staged.read_bytes()
    staged.write_bytes(held[:100])
    with pytest.raises(UserError, match=r"train\.bin is shorter than it was"):
        gone_on_with(tmp_path, DOCUMENTS)
    staged.write_bytes(held)
    journal.write_text(journal.read_text().replace('"empty": 0', '"empty": 1'))
    with pytest.raises(UserError, match=r"unfinished\.json was changed since"):
        gone_on_with(tmp_path, DOCUMENTS)
    with pytest.raises(UserError, match="takes the `place` of one reader"):
        write(tmp_path, resume=True)
