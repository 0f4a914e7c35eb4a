"""The `supertf` command: finds the subcommand's module, parses, and turns user mistakes into one line.

Each subcommand lives in its own file of this room with `add_arguments(parser)` and `run(args) -> int`;
only the one that is asked for is imported, so `supertf --help` stays fast.
"""

import argparse
import importlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from supertf.errors import Note, UserError

COMMANDS = {  # name: (module, one line of help)
    "doctor": ("doctor_command", "what this machine has, what is missing and how to mend it"),
    "fetch": ("fetch", "fetch the real model and the GPT-2 vocabulary once, for offline use"),
    "data": ("data", "turn text into a token file"),
    "train": ("train", "train a decoder on token files"),
    "generate": ("generate", "continue a prompt"),
    "eval": ("eval", "perplexity of a model on text, also by position"),
    "superweights": ("superweights", "find super weights, prove them, check the published ones"),
    "prune": ("prune", "prune a model: perplexity, text and the fate of super weights"),
    "quantize": ("quantize", "round a model's weights to few bits, beside the model as it is"),
    "experiment": ("experiment", "list the lab's experiments, run them, record their results"),
    "bench": ("bench", "measure speed against reference implementations"),
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default to each option's help, where there is one to tell."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, False) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the mistake and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` lists the options\n")


def boolean(text: str) -> bool:
    """Parse True/False as written on a command line (argparse's `type=bool` makes "False" true)."""
    if text.lower() in ("true", "yes", "1"):
        return True
    if text.lower() in ("false", "no", "0"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {value}")
    return value


def seed(text: str) -> int:
    """Parse a seed of random numbers, in the range that every generator takes."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2**63 - 1, got {text!r}")
    return int(text)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print a result as JSON, or as aligned `name  value` lines."""
    if as_json:
        print(json.dumps(without_infinities(result), indent=2, allow_nan=False))
        return
    width = max((len(name) for name in result), default=0)
    for name, value in result.items():
        print(f"{name:<{width}}  {value:.4g}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def without_infinities(value: Any) -> Any:
    """A result with None for every number that JSON has none for."""
    if isinstance(value, dict):
        return {name: without_infinities(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def overview() -> str:
    """The text of `supertf --help`."""
    lines = ["usage: supertf COMMAND [options]", "", "Super transformers: SSMax, NoPE and super weights.", ""]
    lines += [f"  {name:<14}{help_line}" for name, (_, help_line) in COMMANDS.items()]
    return "\n".join([*lines, "", "`supertf COMMAND --help` lists a command's options."])


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 on success, 2 on a user mistake, 130 on Ctrl-C, 141 when nobody reads on."""
    try:
        code = dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `supertf generate | head -1`; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # what a shell reports of a program that ended so
    return code


def dispatch(argv: list[str]) -> int:
    """Find the subcommand, parse its options and run it; its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    name, *rest = argv
    if name == "--version":
        from supertf import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        print(f"supertf: unknown command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module_name, help_line = COMMANDS[name]
    module = importlib.import_module(f"supertf.cli.{module_name}")
    parser = Parser(prog=f"supertf {name}", description=help_line, formatter_class=HelpFormatter)
    module.add_arguments(parser)
    try:
        with notes(name):
            return module.run(parser.parse_args(rest))
    except UserError as error:
        print(f"supertf {name}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nsupertf {name}: interrupted", file=sys.stderr)
        return 130


@contextmanager
def notes(name: str) -> Iterator[None]:
    """Print every `Note` of a command once, as one line on stderr; other warnings as Python does."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if not issubclass(category, Note):
                others(message, category, *place)
                return
            from tqdm import tqdm

            if str(message) not in said:
                said.add(str(message))
                tqdm.write(f"supertf {name}: note: {message}", file=sys.stderr)  # above a bar

        warnings.showwarning = show
        yield


if __name__ == "__main__":
    sys.exit(main())
