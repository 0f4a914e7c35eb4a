"""The house: what import-linter (see pyproject.toml) does not hold."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted(path.parent.name for path in (ROOT / "supertf").glob("*/__init__.py"))


def imported(code: str) -> Iterator[str]:
    """The modules that code imports from, or imports whole, also inside functions."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "cli"])
def test_a_face_says_what_the_room_is_for_and_has_all_of_its_names(room):
    module = importlib.import_module(f"supertf.{room}")
    assert module.__doc__ and module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
        is_module = (ROOT / "supertf" / room / f"{name}.py").exists()
        assert isinstance(getattr(module, name), ModuleType) == is_module, f"{name} would hide the module"


def test_rooms_and_notebooks_import_from_the_faces_of_others():
    sources = [
        (path.relative_to(ROOT / "supertf").parts[0], path.read_text())
        for path in (ROOT / "supertf").rglob("*.py")
    ]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        sources += [(path.stem, source) for source in cells if "%pip" not in source]
    for place, code in sources:
        for module in imported(code):
            package, room, *inside = [*module.split("."), ""]
            if package == "supertf" and room in ROOMS:
                assert room == place or not inside[:-1], f"{place} imports from {module}"
