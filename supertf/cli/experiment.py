"""`supertf experiment list|run`: what the lab compares, and the numbers that come out."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from supertf.cli.main import HelpFormatter, positive_int, print_result, seed
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.experiments import Results

PARTIAL = (
    "seeds",
    "variants",
    "lengths",
    "set",
    "quick",
)  # options that leave less than the full description


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `list` and of `run`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|run")
    listing = actions.add_parser("list", help="all experiments", formatter_class=HelpFormatter)
    running = actions.add_parser(
        "run",
        help="run one, or all; what the cache has is not measured again",
        formatter_class=HelpFormatter,
    )
    running.add_argument("name", help="an experiment, or all")
    running.add_argument("--seeds", type=seed, nargs="+", help="default: those described")
    running.add_argument("--variants", nargs="+", metavar="LABEL", help="default: all")
    running.add_argument("--lengths", type=positive_int, nargs="+", help="default: those described")
    running.add_argument(
        "--set", type=setting, nargs="+", action="extend", metavar="NAME=VALUE", help="change settings"
    )
    running.add_argument("--quick", action="store_true", help="only show that it works: few steps")
    running.add_argument("--jobs", type=positive_int, default=1, help="cells at a time, sharing the cores")
    running.add_argument("--backend", default="loky", help="loky: this machine; dask: a cluster")
    running.add_argument("--scheduler", metavar="ADDRESS", help="dask's, such as tcp://127.0.0.1:8786")
    running.add_argument("--fresh", action="store_true", help="measure also what the cache has")
    running.add_argument(
        "--record", action="store_true", help="keep the results with the code, for the notebooks"
    )
    running.add_argument("--output", metavar="FILE", help="also write the results as JSON")
    for action in (listing, running):
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def setting(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, where the value is JSON or else a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, as in steps=100, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run(args: argparse.Namespace) -> int:
    """List, or run and print; 130 when a sweep was interrupted."""
    return list_experiments(args) if args.action == "list" else run_experiments(args)


def list_experiments(args: argparse.Namespace) -> int:
    """Print every experiment, with the state of its recorded results."""
    from supertf.experiments import EXPERIMENTS, recorded, recorded_path

    listed = {}
    for name, experiment in EXPERIMENTS.items():
        state, seconds, different = "not recorded", None, None
        if recorded_path(name).exists():
            try:
                results = recorded(name)
                seconds, different = results.meta["seconds"], results.changed_code()
                state = made_by(different)
            except UserError:
                state = "recorded, but out of date"
        listed[name] = {
            "question": experiment.question,
            "variants": list(experiment.variants),
            "seeds": list(experiment.seeds),
            "cells": len(experiment.variants) * len(experiment.seeds),
            "recorded": state,
            "recorded_seconds": seconds,
            "changed_code": different,
        }
    if args.json:
        print_result(listed, as_json=True)
        return 0
    for name, told in listed.items():
        took = "" if told["recorded_seconds"] is None else f" in {told['recorded_seconds']:.0f} s"
        print(f"{name}: {told['question']}")
        print(f"  {len(told['variants'])} variants x {len(told['seeds'])} seeds, {told['recorded']}{took}")
    return 0


def made_by(different: list[str] | None) -> str:
    """How recorded results stand to today's code, of which these modules differ; None: it was not noted."""
    from supertf.experiments import named

    if different is None:
        return "recorded (its code was not noted)"
    return f"recorded ({named(different)} changed since)" if different else "recorded"


def run_experiments(args: argparse.Namespace) -> int:
    """Run one experiment or all, then print, write and record what came out."""
    from supertf.experiments import EXPERIMENTS, SweepInterrupted, experiment
    from supertf.experiments import run as run_experiment

    chosen = list(EXPERIMENTS.values()) if args.name == "all" else [experiment(args.name)]
    partial = [f"--{option}" for option in PARTIAL if getattr(args, option)]
    if args.record and partial:
        raise UserError(f"--record keeps the full experiment: leave out {' and '.join(partial)}")
    if args.output and args.name == "all":
        raise UserError("--output takes the results of one experiment, not of all; --record keeps all")
    started = time.perf_counter()
    finished = {}
    for described in chosen:
        changes = {**(described.quick if args.quick else {}), **dict(args.set or [])}
        try:
            results = run_experiment(
                *(described, args.seeds, args.variants, args.lengths, changes, args.jobs),
                fresh=args.fresh,
                backend=args.backend,
                scheduler=args.scheduler,
            )
        except SweepInterrupted as interrupted:
            print(f"supertf experiment: {described.name}: {interrupted}", file=sys.stderr)
            return 130
        finished[described.name] = results
        if args.record:
            record(results)
        if args.output:
            results.save(args.output)
        if not args.json:
            print_summary(results)
    seconds = time.perf_counter() - started
    if not args.json:
        print(f"{args.name}: {seconds:.1f} s")
    elif args.name == "all":
        every = {name: results.to_dict() for name, results in finished.items()}
        print_result({"experiments": every, "seconds": seconds}, as_json=True)
    else:
        print_result(finished[args.name].to_dict(), as_json=True)
    return 0


def record(results: "Results") -> None:
    """Keep results with the code, and say on stderr when what they replace was made by other code."""
    from supertf.experiments import differing, named, recorded_path

    path = recorded_path(results.experiment.name)
    before = type(results).load(path).meta.get("code") if path.exists() else results.meta["code"]
    if before is None or differing(before, results.meta["code"]):
        whose = (
            "that was not noted" if before is None else f"of {named(differing(before, results.meta['code']))}"
        )
        print(
            f"{results.experiment.name}: replaces results that were made by other code {whose}",
            file=sys.stderr,
        )
    results.save(path)


def print_summary(results: "Results") -> None:
    """Every number of the results as its mean over seeds with a 95% interval, a line each."""
    rows = [(variant, *row) for variant in results.variants for row in means(results, variant)]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    cells, measured = len(results.cells), results.meta["seconds"]
    print(f"{results.experiment.name}: {cells} cells, measured in {measured:.1f} s; mean [95% interval]")
    for variant, entry, text in rows:
        print(f"  {variant:<{widths[0]}}  {entry:<{widths[1]}}  {text}")


def means(results: "Results", variant: str) -> Iterator[tuple[str, str]]:
    """The name of each number in a variant's results, and its mean over seeds; lists are left out."""
    from supertf.analysis import mean_interval

    paths = dict.fromkeys(path for result in results.values(variant) for path in number_paths(result))
    for path in paths:
        values = results.values(variant, *path)
        there = [value for value in values if value is not None]
        if len(there) < len(values):
            text = f"none on {len(values) - len(there)} of {len(values)} seeds"
        elif len(values) == 1:
            text = f"{values[0]:.6g} (n=1)"
        else:
            text = str(mean_interval(values))
        yield " ".join(path), text


def number_paths(result: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Where a nested result has numbers, or None in place of one."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from ((name, *inner) for inner in number_paths(value))
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            yield (name,)
