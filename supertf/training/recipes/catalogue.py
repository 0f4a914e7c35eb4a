"""All recipes, found in the files of this folder."""

import importlib
from pathlib import Path

from supertf.errors import UserError
from supertf.training.recipes.description import Recipe


def find(folder: Path) -> dict[str, Recipe]:
    """The `RECIPES` of each file of a folder but this one, by name."""
    files = [path.stem for path in sorted(folder.glob("*.py")) if path.stem not in ("__init__", "catalogue")]
    modules = [importlib.import_module(f"supertf.training.recipes.{file}") for file in files]
    return {one.name: one for module in modules for one in getattr(module, "RECIPES", ())}


RECIPES = find(Path(__file__).parent)


def recipe(name: str, scale: float = 1.0) -> Recipe:
    """The recipe of that name, or a smaller one like it, see `Recipe.scaled`.

    Raises:
        UserError: there is none, or the scale is out of range.
    """
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}; choose from {', '.join(RECIPES)}")
    return RECIPES[name].scaled(scale)
