"""The `supertf` command: its subcommands, a file each, and what mistakes, notes and interrupts look like."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from supertf import __version__
from supertf.cli import (
    bench,
    data,
    doctor,
    experiment,
    export,
    fetch,
    generate,
    notebooks,
    plan,
    prune,
    quantize,
    report,
    superweights,
    tasks,
    train,
)
from supertf.cli import eval as evaluate
from supertf.cli.parsing import Group, normal
from supertf.errors import Note, UserError

UsageError: Any = typer.BadParameter.__mro__[1]  # click's, or that of typer's own copy of click

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,  # plain help, also in a file
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normal},
    epilog="`supertf COMMAND --help` lists a command's options.",
)
commands = (doctor, fetch, data, plan, train, generate, evaluate, tasks, superweights, prune, quantize)
for module in (*commands, export, report, experiment, notebooks, bench):
    app.add_typer(module.app)


def show_version(asked: bool) -> None:
    """Print the version and end, if asked for."""
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def supertf(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Super transformers: SSMax, NoPE and super weights."""


command = typer.main.get_command(app)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 2 on a user mistake, 130 on Ctrl-C, 141 when nobody reads on."""
    argv = sys.argv[1:] if argv is None else argv
    if "_SUPERTF_COMPLETE" in os.environ:
        command.main(argv, "supertf")  # answers the shell and exits
    try:
        code = run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `supertf generate | head -1`; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell reports of a program that ended so
    return code


def run(argv: list[str]) -> int:
    """Parse and run; a mistake is one line on stderr. The exit code."""
    name = " ".join(["supertf", *argv[:1]])
    try:
        with notes(name), command.make_context("supertf", list(argv)) as context:
            return command.invoke(context)
    except typer.Exit as end:  # after --help, say
        return end.exit_code
    except UsageError as error:
        where = error.ctx.command_path if error.ctx else name
        message = " ".join(error.format_message().split()).rstrip(".")
        print(f"{where}: {message}; `{where} --help` lists the options", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def notes(name: str) -> Iterator[None]:
    """Print every `Note` of a command once, as one line on stderr; other warnings as Python does."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, Note):
                others(message, category, *place, **more)
                return
            from tqdm import tqdm

            if str(message) not in said:
                said.add(str(message))
                tqdm.write(f"{name}: note: {message}", file=sys.stderr)  # above a bar

        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
