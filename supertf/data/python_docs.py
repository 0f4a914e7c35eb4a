"""The built-in corpus: Python's own documentation, read from what is installed, with nothing imported.

Documents are the standard library's help topics, then one per module with its docstrings, for the
standard library and for the scientific packages found. Sources are parsed, never run. What a package
gives is cached in the cache folder under its version, as JSON lines, because parsing a large one takes
tens of seconds.
"""

import ast
import contextlib
import importlib.metadata
import importlib.util
import json
import platform
import pydoc_data.topics
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm.auto import tqdm

from supertf.errors import UserError
from supertf.files import atomic_path, cache_dir

PACKAGES = ("matplotlib", "numpy", "pandas", "torch")
FORMAT = 1  # part of the cache file's name: raise it when the documents would differ
SKIPPED = {
    "test",
    "tests",
    "testing",
    "idle_test",
    "site-packages",
    "dist-packages",
    "_bundled",
    "__pycache__",
}


def documents(stdlib_only: bool = False, progress: bool = True) -> Iterator[str]:
    """The documents in a fixed order: topics, standard library, then packages by name."""
    for name, version in parts(stdlib_only).items():
        path = cache_dir() / "python-docs" / f"{name}-{version}-v{FORMAT}.jsonl"
        if not path.is_file():
            _extract(name, path, progress)
        with open(path, encoding="utf-8") as file:
            try:
                yield from map(json.loads, file)
            except ValueError as error:
                raise UserError(f"the cached documents in {path} are damaged; delete that file") from error


def parts(stdlib_only: bool = False) -> dict[str, str]:
    """Name and version of what the corpus is made of: Python and the packages installed here."""
    found = {"python": platform.python_version()}
    for name in () if stdlib_only else PACKAGES:
        if _first_source(name) is not None:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found[name] = importlib.metadata.version(name)
    return found


def licenses(stdlib_only: bool = False) -> str:
    """The licence of each part, as its metadata states it."""
    stated = []
    for name in parts(stdlib_only):
        if name == "python":
            stated.append("python: PSF-2.0")
            continue
        metadata = importlib.metadata.metadata(name)
        names = ("License-Expression", "License")
        text = next((text for name in names for text in metadata.get_all(name) or [] if text), "")
        if not text or "\n" in text.strip():  # some packages put the whole licence there
            kinds = [kind for kind in metadata.get_all("Classifier") or [] if kind.startswith("License ::")]
            text = kinds[0].split(" :: ")[-1] if kinds else "see its distribution"
        stated.append(f"{name}: {text.strip()}")
    return "; ".join(stated)


def _first_source(name: str) -> str | None:
    """The first source file of a top-level package, found without importing it; None if not installed."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin


def _extract(name: str, path: Path, progress: bool) -> None:
    """Write the documents of one part to `path`, one JSON string per line."""
    if name == "python":
        root, package = Path(sysconfig.get_path("stdlib")), ""
    else:
        first = _first_source(name)
        assert first is not None  # it is one of `parts`
        root, package = Path(first).parent, name
    sources = sorted(
        (source.relative_to(root) for source in root.rglob("*.py")), key=lambda source: source.parts
    )
    sources = [source for source in sources if SKIPPED.isdisjoint(source.parts)]
    seen: set[str] = set()  # packages repeat docstrings; each is kept once, so that none is in both splits
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        if name == "python":
            topics = dict.fromkeys(text.strip() for _, text in sorted(pydoc_data.topics.topics.items()))
            file.writelines(json.dumps(text) + "\n" for text in topics)
        for source in tqdm(sources, desc=f"reading {name}'s docstrings", unit="file", disable=not progress):
            module = ".".join(part for part in (package, *source.with_suffix("").parts) if part)
            document = _docstrings(root / source, module.removesuffix(".__init__"), seen)
            if document:
                file.write(json.dumps(document) + "\n")


def _docstrings(path: Path, module: str, seen: set[str]) -> str:
    """The docstrings of one source file, each under its dotted name, without those already `seen`."""
    source = path.read_bytes()
    if b'"""' not in source and b"'''" not in source:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's sources
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):  # templates and other Pythons' sources
        return ""
    found = []

    def visit(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> None:
        text = ast.get_docstring(node)
        if text and text not in seen:
            seen.add(text)
            found.append(f"{name}\n\n{text.strip()}")
        for child in node.body:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                visit(child, f"{name}.{child.name}")

    visit(tree, module)
    return "\n\n\n".join(found)
