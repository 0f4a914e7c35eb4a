"""`supertf experiment list|run`: what the lab compares, and the numbers that come out."""

import json as json_text
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Option, Typer

from supertf.cli.options import SEEDS, Json
from supertf.cli.parsing import Command, Group
from supertf.cli.printing import print_result, print_table
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.experiments import Results

app = Typer(name="experiment", cls=Group, help="List the lab's experiments, run them, record their results.")


def setting(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE, where the value is JSON or else a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise BadParameter(f"expected NAME=VALUE, as in steps=100, got {text!r}")
    try:
        return name, json_text.loads(value)
    except ValueError:
        return name, value


@app.command("list", cls=Command)
def list_experiments(json: Json = False) -> int:
    """List all experiments, with the state of their recorded results."""
    from supertf.experiments import EXPERIMENTS, recorded, recorded_path

    listed: dict[str, dict[str, Any]] = {}
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
    if json:
        print_result(listed, as_json=True)
        return 0
    for name, entry in listed.items():
        took = "" if entry["recorded_seconds"] is None else f" in {entry['recorded_seconds']:.0f} s"
        print(f"{name}: {entry['question']}")
        print(f"  {len(entry['variants'])} variants x {len(entry['seeds'])} seeds, {entry['recorded']}{took}")
    return 0


def made_by(different: list[str] | None) -> str:
    """How recorded results stand to today's code, of which these modules differ; None: it was not noted."""
    from supertf.experiments import named

    if different is None:
        return "recorded (its code was not noted)"
    return f"recorded ({named(different)} changed since)" if different else "recorded"


@app.command("run", cls=Command)
def run_experiments(
    name: Annotated[str, Argument(metavar="NAME", help="an experiment, or all")],
    seeds: Annotated[list[int] | None, Option(**SEEDS, help="(default: those described)")] = None,
    variants: Annotated[list[str] | None, Option(metavar="LABEL", help="(default: all)")] = None,
    lengths: Annotated[list[int] | None, Option(min=1, help="(default: those described)")] = None,
    changes: Annotated[
        list[Any] | None, Option("--set", parser=setting, metavar="NAME=VALUE", help="change settings")
    ] = None,
    quick: Annotated[bool, Option("--quick", help="only show that it works: few steps")] = False,
    jobs: Annotated[int, Option(min=1, help="cells at a time, sharing the cores")] = 1,
    backend: Annotated[str, Option(help="loky: this machine; dask: a cluster")] = "loky",
    scheduler: Annotated[
        str | None, Option(metavar="ADDRESS", help="dask's, such as tcp://127.0.0.1:8786")
    ] = None,
    fresh: Annotated[bool, Option("--fresh", help="measure also what the cache has")] = False,
    record: Annotated[
        bool, Option("--record", help="keep the results with the code, for the notebooks")
    ] = False,
    output: Annotated[str | None, Option(metavar="FILE", help="also write the results as JSON")] = None,
    json: Json = False,
) -> int:
    """Run an experiment, or all; what the cache has is not measured again."""
    from supertf.experiments import EXPERIMENTS, SweepInterrupted, experiment, run

    chosen = list(EXPERIMENTS.values()) if name == "all" else [experiment(name)]
    narrowed = {"seeds": seeds, "variants": variants, "lengths": lengths, "set": changes, "quick": quick}
    partial = [f"--{option}" for option, given in narrowed.items() if given]
    if record and partial:
        raise UserError(f"--record keeps the full experiment: leave out {' and '.join(partial)}")
    if output and name == "all":
        raise UserError("--output takes the results of one experiment, not of all; --record keeps all")
    started = time.perf_counter()
    finished = {}
    for described in chosen:
        settings = {**(described.quick if quick else {}), **dict(changes or [])}
        try:
            results = run(
                *(described, seeds, variants, lengths, settings, jobs),
                fresh=fresh,
                backend=backend,
                scheduler=scheduler,
            )
        except SweepInterrupted as interrupted:
            print(f"supertf experiment: {described.name}: {interrupted}", file=sys.stderr)
            return 130
        finished[described.name] = results
        if record:
            keep(results)
        if output:
            results.save(output)
        if not json:
            print_summary(results)
    seconds = time.perf_counter() - started
    if not json:
        print(f"{name}: {seconds:.1f} s")
    elif name == "all":
        every = {one: results.to_dict() for one, results in finished.items()}
        print_result({"experiments": every, "seconds": seconds}, as_json=True)
    else:
        print_result(finished[name].to_dict(), as_json=True)
    return 0


@app.command("claims", cls=Command)
def judge_claims(
    name: Annotated[str | None, Argument(metavar="NAME", help="an experiment (default: all)")] = None,
    output: Annotated[str | None, Option(metavar="FILE", help="write the page of all claims")] = None,
    json: Json = False,
) -> int:
    """What the recorded results say of the lab's claims."""
    from supertf.experiments import CLAIMS, judged, page
    from supertf.files import atomic_path

    if name and output:
        raise UserError("--output writes the page of all claims: leave out the experiment's name")
    if output:
        with atomic_path(output) as temporary:
            temporary.write_text(page(), encoding="utf-8")
        return 0
    found = {one: judged(one) for one in ([name] if name else CLAIMS)}
    if json:
        print_result({one: judgement.to_dict() for one, judgement in found.items()}, as_json=True)
        return 0
    for one, judgement in found.items():
        print(f"{one}:\n{judgement}")
    return 0


def keep(results: "Results") -> None:
    """Keep results with the code, and say on stderr when what they replace was made by other code.

    A cell that waits does not replace one that was measured where there was a hub.
    """
    from supertf.experiments import differing, named, recorded_path

    path = recorded_path(results.experiment.name)
    kept = type(results).load(path) if path.exists() else results
    before, results = kept.meta.get("code"), results.with_waiting_from(kept)
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
    cells, measured = len(results.cells), results.meta["seconds"]
    print(f"{results.experiment.name}: {cells} cells, measured in {measured:.1f} s")
    rows = [(variant, *row) for variant in results.variants for row in means(results, variant)]
    print_table(["variant", "number", "mean [95% interval]"], rows)


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
