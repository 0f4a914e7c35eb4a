"""Token files that tests of reading and writing share."""

import shutil
from pathlib import Path

import numpy as np

from supertf.data import TokenFile, load_tokenizer, prepare

# a process that writes token files into a folder; `format(count=...)` says of how many documents
CHILD = """
import sys
from supertf.data import load_tokenizer, prepare
def documents():
    for i in range({count}):
        yield f"document {{i}} " + "some text " * 50
prepare(documents(), load_tokenizer("bytes"), sys.argv[1], progress=False)
"""
DOCUMENTS = [f"Document {i}: " + "text " * (i % 7) for i in range(200)]


def write(folder: Path, documents=DOCUMENTS, **options) -> tuple[TokenFile, TokenFile]:
    """Token files of `DOCUMENTS`, or of others, in a folder."""
    sizes = {"max_length": 16, "stride": 4, "progress": False}
    return prepare(documents, load_tokenizer("bytes"), folder, **{**sizes, **options})


def copied(files: tuple[TokenFile, TokenFile], folder: Path) -> Path:
    """The files and their manifests once more; the path of the first one."""
    shutil.copytree(files[0].path.parent, folder, dirs_exist_ok=True)
    return folder / "train.bin"


def read_documents(file: TokenFile) -> list[str]:
    """The documents of a token file, separated where the separator is."""
    ends = np.flatnonzero(file.tokens == file.tokenizer.eot_token)
    return [file.tokenizer.decode(part[part < 256]) for part in np.split(file.tokens, ends + 1)[:-1]]
