"""`supertf notebooks list|run`: the numbered notebooks, unattended."""

from typing import Annotated, Any

from typer import Argument, Option, Typer

from supertf.cli.options import Json
from supertf.cli.parsing import Command, Group
from supertf.cli.printing import print_result, print_table
from supertf.errors import UserError

app = Typer(name="notebooks", cls=Group, help="List the lab's notebooks, and run them unattended.")

Names = Annotated[
    list[str] | None, Argument(metavar="NAME", help="notebooks, without the suffix (default: all)")
]


def needed() -> None:
    """`UserError` where what executes notebooks is not installed."""
    try:
        import nbclient  # noqa: F401
        import papermill  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise UserError(f"running notebooks needs {error.name}: pip install papermill pyyaml") from None


@app.command("list", cls=Command)
def list_notebooks(names: Names = None, json: Json = False) -> int:
    """List the notebooks with their parameters and how long they took where they were stored."""
    needed()
    from supertf.lab import defaults_of, find_notebooks, usual_seconds

    seconds = usual_seconds()
    listed: dict[str, dict[str, Any]] = {
        path.stem: {"seconds": seconds.get(path.stem), "parameters": defaults_of(path)}
        for path in find_notebooks(names or [])
    }
    if json:
        print_result(listed, as_json=True)
        return 0
    for name, entry in listed.items():
        took = "" if entry["seconds"] is None else f" ({entry['seconds']:.0f} s)"
        print(f"{name}{took}")
        for parameter, default in entry["parameters"].items():
            print(f"  {parameter}: {default!r}")
    return 0


@app.command("run", cls=Command)
def run_notebooks(
    names: Names = None,
    profile: Annotated[str, Option(metavar="smoke|lab|full", help="quick, as shipped, or all live")] = "lab",
    parameters: Annotated[
        list[str] | None, Option("-y", "--parameters", metavar="YAML", help="such as 'STEPS: 300'")
    ] = None,
    jobs: Annotated[int, Option(min=1, help="notebooks at a time, sharing the cores")] = 2,
    out: Annotated[str, Option(metavar="FOLDER", help="for the executed notebooks")] = "build/batch",
    again: Annotated[bool, Option("--again", help="run also what is done already")] = False,
    json: Json = False,
) -> int:
    """Run notebooks; those that are done, with these parameters and this code, are not run again."""
    needed()
    from pathlib import Path

    from supertf.lab import find_notebooks, parse_parameters, run_batch

    found: list[dict[str, Any]] = []
    given = parse_parameters(parameters or [])
    for result, before in run_batch(
        find_notebooks(names or []), profile, given, Path(out), lanes=jobs, again=again
    ):
        state = "failed" if result.problems else "done before" if before else "passed"
        if not json:
            print(f"{state:12} {result.line()}", flush=True)
        facts = {"seconds": round(result.seconds, 1), "problems": result.problems, "figures": result.figures}
        found.append({"notebook": result.name, "state": state, **facts})
    failed = [one["notebook"] for one in found if one["problems"]]
    if json:
        print_result({"notebooks": found, "failed": failed}, as_json=True)
    else:
        rows = [(one["notebook"], one["state"], f"{one['seconds']:.0f}") for one in found]
        print_table(["notebook", "state", "seconds"], sorted(rows))
    return 1 if failed else 0
