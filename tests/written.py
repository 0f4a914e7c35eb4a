"""Token files that tests of reading and writing share."""

import shutil
from pathlib import Path

from supertf.data import TokenFile, load_tokenizer, prepare

DOCUMENTS = [f"Document {i}: " + "text " * (i % 7) for i in range(200)]


def write(folder: Path, documents=DOCUMENTS, **options) -> tuple[TokenFile, TokenFile]:
    """Token files of `DOCUMENTS`, or of others, in a folder."""
    sizes = {"max_length": 16, "stride": 4, "progress": False}
    return prepare(documents, load_tokenizer("bytes"), folder, **{**sizes, **options})


def copied(files: tuple[TokenFile, TokenFile], folder: Path) -> Path:
    """The files and their manifests once more; the path of the first one."""
    shutil.copytree(files[0].path.parent, folder, dirs_exist_ok=True)
    return folder / "train.bin"
