"""`supertf export`: a model for others, in a folder or on the hub."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from supertf.cli.options import Json
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result
from supertf.errors import UserError

app = Typer()


@app.command(cls=Command)
def export(
    model: Annotated[str, Option(help="a run, a folder, smollm2-135m or a GGUF file")],
    out: Annotated[Path | None, Option(metavar="FOLDER", help="write it there")] = None,
    push: Annotated[str | None, Option(metavar="OWNER/NAME", help="put it on the Hugging Face hub")] = None,
    private: Annotated[bool, Option("--private", help="on the hub, for its owner only")] = False,
    json: Json = False,
) -> int:
    """Write a model with its tokenizer and a model card, or push it to the hub."""
    from supertf.model import export_model, push_to_hub

    if (out is None) == (push is None):
        raise UserError("give either --out FOLDER or --push OWNER/NAME")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out} is not empty: name a new folder")
    found: dict[str, Any]
    if out is not None:
        found = {"format": export_model(model, out), "folder": str(out)}
    else:
        found = {"commit": push_to_hub(model, str(push), private=private)}
    print_result(found, json)
    return 0
