"""`supertf report`: the lab's question asked of a model, in one page."""

import shlex
from pathlib import Path
from typing import Annotated, Any

from typer import Option, Typer

from supertf.cli.options import Json, Loading, Model, Seed
from supertf.cli.parsing import Command, grouped
from supertf.cli.printing import print_result
from supertf.errors import UserError

app = Typer()


@app.command(cls=Command)
@grouped
def report(
    *,
    model: Model = "smollm2-135m",
    out: Annotated[Path, Option(metavar="FILE", help="the page")] = Path("report.html"),
    data: Annotated[
        list[str] | None,
        Option(help="texts to score, as in supertf data (default: twelve, four of each shipped domain)"),
    ] = None,
    max_tokens: Annotated[int, Option(min=2, help="read this many of each at most")] = 256,
    seed: Seed = 0,
    loading: Loading,
    json: Json = False,
) -> int:
    """Ask of a model what the lab asks: one page with spikes, a verdict, pruning, entropy and words."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: name a file, such as {out / 'report.html'}")
    from supertf.cli.subject import Subject
    from supertf.files import atomic_path
    from supertf.lab import SCORED, Asked, measure, report_page

    subject = Subject(model, **vars(loading))
    asked = Asked(model, subject.model, subject.tokenizer, tuple(data or SCORED), max_tokens, seed)
    for name in asked.scored:
        subject.check_data(name)
    found = measure(asked)
    config = subject.config(texts=list(asked.scored), tokens=max_tokens, seed=seed)
    made = {**config, "commands": commands(model, found, seed)}
    with atomic_path(out) as temporary:
        temporary.write_text(report_page(model, found, made), encoding="utf-8")
    if json:
        print_result({**made, **found, "page": str(out)}, as_json=True)
    else:
        print(found["verdict"]["caption"])
        print(f"{out} ({out.stat().st_size / 1e6:.1f} MB): open it in a browser, it needs no network")
    return 0


def commands(model: str, found: dict[str, Any], seed: int) -> list[str]:
    """What one would type to see the parts one by one."""
    weight = shlex.quote(found["spikes"]["tried"][0]["weight"])
    of = f"--model {shlex.quote(model)}"
    return [
        f"supertf report {of} --seed {seed}",
        f"supertf superweights find {of}",
        f"supertf superweights ablate {of} --weight {weight}",
        f"supertf superweights scale {of} --weight {weight}",
        f"supertf prune {of} --method wanda --sparsity 0.5 --protect {weight}",
        f'supertf quantize {of} --scheme "int4 block=64" --protect {weight}',
    ]
