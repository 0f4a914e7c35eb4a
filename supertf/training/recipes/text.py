"""The token files that a recipe is trained on, made once."""

from pathlib import Path

from supertf.data import (
    Place,
    TokenFile,
    iter_documents,
    load_tokenizer,
    manifest_path,
    origin,
    prepare,
    unfinished,
)
from supertf.errors import UserError
from supertf.training.recipes.description import Recipe

VALIDATED = 1_000_000  # tokens that are kept apart, where the text is long enough
LEAST = 0.1  # share of a short text that is


def files_in(folder: str | Path) -> tuple[Path, Path]:
    """The names of both files."""
    return Path(folder) / "train.bin", Path(folder) / "validation.bin"


def tokens_are_made(folder: str | Path) -> bool:
    """Whether both files are in a folder, complete."""
    return all(path.exists() and manifest_path(path).exists() for path in files_in(folder))


def token_files(
    recipe: Recipe, folder: str | Path, data: str | None = None, progress: bool = True
) -> tuple[TokenFile, TokenFile]:
    """Training and validation tokens of a recipe, from a folder, or made there; what was left unfinished
    there is gone on with.

    Args:
        recipe: its text is read up to as many tokens as are trained on.
        folder: where `train.bin` and `validation.bin` are, or are written.
        data: another text than the recipe's, as `iter_documents` takes it.
        progress: show a bar while they are made.

    Raises:
        UserError: the text cannot be read, a hub that is not reached, say; the folder has another text.
    """
    if tokens_are_made(folder):
        found = TokenFile(files_in(folder)[0]), TokenFile(files_in(folder)[1])
        there = found[0].manifest["source"]
        if data is not None and (asked := origin(data)["source"]) != there:
            raise UserError(f"{folder} has tokens of {there}, not of {asked}: choose another folder")
        return found
    name, place = data or recipe.data, Place()
    return prepare(
        iter_documents(name, progress=progress, place=place),
        load_tokenizer(recipe.tokenizer),
        folder,
        split_ratio=1 - min(LEAST, VALIDATED / recipe.tokens),
        max_length=recipe.config.n_ctx,
        stride=recipe.config.n_ctx,
        max_tokens=recipe.tokens,
        command=f"supertf train --recipe {recipe.name} --data {name}",
        progress=progress,
        place=place,
        resume=unfinished(folder),
        **origin(name),
    )
