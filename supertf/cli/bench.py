"""`supertf bench`: speed as ratios to reference implementations, measured in one run."""

import argparse
import importlib
import shlex
from typing import Any

from supertf.cli.main import positive_int, print_result
from supertf.errors import UserError

BENCHMARKS = {  # name: (module, the options that its `run` takes)
    "train": ("train", ("repeats",)),
    "generate": ("generate", ("repeats", "tokens")),
    "prune": ("prune", ("repeats", "tokens")),
    "data": ("data", ("repeats", "megabytes")),
    "superweights": ("superweights", ("repeats", "stream_gigabytes")),
    "busy": ("busy", ("repeats", "steps")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which benchmark, and how much of it."""
    parser.add_argument("benchmark", choices=tuple(BENCHMARKS))
    parser.add_argument(
        "--repeats",
        type=positive_int,
        help="rounds of all rivals (default: train 7, generate 5, prune 5, data 3, superweights 7, busy 5)",
    )
    parser.add_argument("--tokens", type=positive_int, help="generate, prune: new tokens (default: 64)")
    parser.add_argument("--megabytes", type=positive_int, help="data: text to tokenize (default: 10)")
    parser.add_argument(
        "--stream_gigabytes",
        type=positive_int,
        help="superweights: also search a generated checkpoint of this size from disk (default: 0)",
    )
    parser.add_argument("--steps", type=positive_int, help="busy: training steps a round (default: 40)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Run one benchmark on the CPU; close other programs first."""
    module, options = BENCHMARKS[args.benchmark]
    names = ("repeats", "tokens", "megabytes", "stream_gigabytes", "steps")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    for name in given:
        if name not in options:
            takes = " and ".join(f"--{option}" for option in options)
            raise UserError(f"--{name} is not for the benchmark {args.benchmark}, which takes {takes}")
    command = ["supertf", "bench", args.benchmark, *(f"--{name}={value}" for name, value in given.items())]
    result = {"command": shlex.join(command)}
    try:
        for found in importlib.import_module(f"supertf.bench.{module}").run(**given):
            result |= found
    except KeyboardInterrupt:
        result["interrupted"] = True
        raise
    finally:  # what was measured is told, whatever ended the rest
        if len(result) > 1:
            print_result(result if args.json else flatten(result), args.json)
    return 0


def flatten(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested results as one level with `outer / inner` names; plain figures of one thing share a line."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        if not isinstance(value, dict):
            flat[prefix + name] = value
        elif prefix and not any(isinstance(inner, dict) for inner in value.values()):
            flat[prefix + name] = "  ".join(f"{inner} {shown(figure)}" for inner, figure in value.items())
        else:
            flat |= flatten(value, f"{prefix}{name} / ")
    return flat


def shown(figure: Any) -> str:
    """A number with four digits; anything else as it is."""
    return f"{figure:.4g}" if isinstance(figure, float) else str(figure)
