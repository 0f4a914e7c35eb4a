"""`supertf bench`: speed as ratios to reference implementations, measured in one run."""

import argparse
import importlib
from typing import Any

from supertf.cli import positive_int, print_result

BENCHMARKS = {  # name: (module, the option that sizes it)
    "train": ("bench_train", "repeats"),
    "generate": ("bench_generate", "tokens"),
    "data": ("bench_data", "megabytes"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which benchmark, and how much of it."""
    parser.add_argument("benchmark", choices=tuple(BENCHMARKS))
    parser.add_argument("--repeats", type=positive_int, default=7, help="train: rounds of all rivals")
    parser.add_argument("--tokens", type=positive_int, default=64, help="generate: new tokens")
    parser.add_argument("--megabytes", type=positive_int, default=10, help="data: text to tokenize")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Run one benchmark on the CPU; close other programs first."""
    module, size = BENCHMARKS[args.benchmark]
    result = importlib.import_module(f"supertf.{module}").run(**{size: getattr(args, size)})
    print_result(result if args.json else flatten(result), args.json)
    return 0


def flatten(result: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested results as one level with `outer / inner` names; plain figures of one thing share a line."""
    flat: dict[str, Any] = {}
    for name, value in result.items():
        if not isinstance(value, dict):
            flat[prefix + name] = value
        elif prefix and not any(isinstance(inner, dict) for inner in value.values()):
            flat[prefix + name] = "  ".join(f"{inner} {figure:.4g}" for inner, figure in value.items())
        else:
            flat |= flatten(value, f"{prefix}{name} / ")
    return flat
