"""`make badges REPO=owner/name`: the repository's address, set in pyproject.toml and where it shows."""

import re
import sys
from pathlib import Path

from supertf.errors import UserError
from supertf.files import atomic_path

ADDRESS = re.compile(r'^(Repository = "https://github\.com/)([^"]+)(")$', re.MULTILINE)
# In badges, in install lines, and where the README says how to cite the lab.
PREFIXES = (
    "https://colab.research.google.com/github/",
    "git+https://github.com/",
    r"\url{https://github.com/",
)


def repository(root: Path) -> str:
    """The `owner/name` in pyproject.toml."""
    match = ADDRESS.search((root / "pyproject.toml").read_text(encoding="utf-8"))
    if match is None:
        raise UserError(
            f'{root / "pyproject.toml"} has no line `Repository = "https://github.com/owner/name"`'
        )
    return match[2]


def badge_url(repo: str, notebook: str) -> str:
    """Where a notebook's Colab badge points."""
    return f"https://colab.research.google.com/github/{repo}/blob/main/notebooks/{notebook}"


def set_repository(new: str, root: Path) -> list[Path]:
    """Write `new` ("owner/name") into pyproject.toml, the badges, install lines and the README's citation.

    Returns the files that changed. Other links, such as the citation of the original project, stay.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise UserError(f"expected REPO=owner/name, got {new!r}")
    old = repository(root)
    pyproject = root / "pyproject.toml"
    edits = {pyproject: ADDRESS.sub(rf"\g<1>{new}\g<3>", pyproject.read_text(encoding="utf-8"))}
    for path in [root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))]:
        text = path.read_text(encoding="utf-8")
        for prefix in PREFIXES:
            text = re.sub(f"({re.escape(prefix)}){re.escape(old)}(?![\\w-])", rf"\g<1>{new}", text)
        edits[path] = text
    changed = [path for path, text in edits.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        with atomic_path(path) as temporary:
            temporary.write_text(edits[path], encoding="utf-8")
    return changed


def main(argv: list[str]) -> int:
    """0 when the address is set, 2 on a user mistake."""
    try:
        changed = set_repository(argv[0] if argv else "", Path())
    except UserError as error:
        print(f"badges: {error}", file=sys.stderr)
        return 2
    print(f"{argv[0]}: {', '.join(map(str, changed)) or 'nothing to change'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
