"""`supertf superweights verify`: the published super weights, listed or checked on a model."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supertf.cli.main import print_result
from supertf.cli.subject import Subject
from supertf.cli.tables import number, print_table
from supertf.errors import UserError
from supertf.files import write_json
from supertf.model import show
from supertf.superweights import (
    CHECKS,
    LOADED_AS,
    PROMPT,
    Ablation,
    Check,
    Published,
    is_here,
    published,
    recorded_checks,
    verify,
    without,
)


def run_verify(args: argparse.Namespace) -> int:
    """List the published super weights, or print what those of one model do on it."""
    if args.model is None:
        return list_published(args.json)
    entries = published(args.published or args.model)
    if not entries:
        models = ", ".join(dict.fromkeys(one.model for one in published()))
        raise UserError(f"nothing is published of {args.published or args.model}; expected one of {models}")
    known = entries[0].model
    here = Path(args.model).exists() or "/" in args.model or args.model == "smollm2-135m"
    name = args.model if here or args.published else known
    subject = Subject(name, args.tokenizer, args.bos, args.device)
    prompt = PROMPT if args.prompt is None else args.prompt
    ids = subject.encode(prompt)
    loss, text = subject.loss(args.data, args.length, args.max_tokens)
    checks = verify(subject.model, ids, entries, loss, args.controls, args.seed)
    claimed = [one for one in checks if one.proof and one.published.claimed == "super"]
    together = None
    if len(claimed) > 1:
        coordinates = [one.published.coordinate for one in claimed]
        together = without(subject.model, coordinates, loss, claimed[0].proof.base)
    settings = {"prompt": prompt, "controls": args.controls, "seed": args.seed, **text}
    result = {
        **subject.config(**settings),
        "seconds": subject.seconds(),
        "published": known,
        "checks": [one.to_dict() for one in checks],
        "together": None if together is None else ablation_dict(together),
    }
    if args.record:
        command = f"supertf superweights verify {name} --record"
        for option in ("data", "length", "max_tokens", "controls", "seed"):
            command += f" --{option} {text.get(option, getattr(args, option))}"
        write_json(CHECKS, {**recorded_checks(), known: {**result, "command": command}})
    if args.json:
        print_result(result, as_json=True)
        return 0
    print(f"{subject.name} on {text['tokens']} tokens of {args.data}; published of {known}:")
    print_table(
        ["weight", "claimed", "value", "as published", "spike", "ratio", "random", "largest", "verdict"],
        ([show(one.published.coordinate), *check_cells(one)] for one in checks),
    )
    if together is not None:
        print(f"the {len(claimed)} that are claimed to be super, together: {together.ratio:.4g} times")
    print_notes(one.published for one in checks)
    return 0


def check_cells(check: Check) -> list[str]:
    """A row of the table of checks, behind the coordinate."""
    value = "" if check.published.value is None else number(check.published.value)
    claimed = check.published.claimed or "open"
    if check.proof is None:
        return [claimed, "", value, "", "", "", "", "outside the model"]
    spike = f"pass {check.round}" if check.round else "none"
    spike += f", rank {check.rank}" if check.rank else ""
    proof = check.proof
    ratios = [number(one.ratio) for one in (proof.candidate, proof.random, proof.largest)]
    told = {True: ", as claimed", False: ", not as claimed", None: ""}[check.confirmed]
    return [claimed, number(proof.weight), value, spike, *ratios, check.verdict + told]


def list_published(as_json: bool) -> int:
    """Print every published coordinate, and whether this lab has verified it or only cites it."""
    entries = published()
    checked = {
        (model, one["coordinate"]): one for model, told in recorded_checks().items() for one in told["checks"]
    }
    here = {model: is_here(model) for model in dict.fromkeys(one.model for one in entries)}
    listed = [
        {**one.to_dict(), "verified": checked.get((one.model, show(one.coordinate))), "here": here[one.model]}
        for one in entries
    ]
    if as_json:
        print_result({"published": listed}, as_json=True)
        return 0
    print_table(
        ["model", "weight", "claimed", "published effect", "status"],
        (
            [told["model"], told["coordinate"], told["claimed"] or "open", effect(told), status(told)]
            for told in listed
        ),
    )
    print_notes(entries)
    verified = sum(told["verified"] is not None for told in listed)
    print(f"\n{verified} of {len(listed)} verified by this lab (recorded), the others are only cited")
    for model in (model for model, there in here.items() if there):
        print(f"here to check: supertf superweights verify {LOADED_AS.get(model, model)}")
    return 0


def effect(told: dict[str, Any]) -> str:
    """A published effect in a few words."""
    if told["measure"] is None:
        return ""
    return f"{told['measure']} {told['before']:g} -> {told['after']:g}"


def status(told: dict[str, Any]) -> str:
    """What this lab knows of a published coordinate."""
    one = told["verified"]
    if one is None:
        return "only cited"
    ratio = "" if one["ratio"] is None else f", perplexity x {one['ratio']:.4g}"
    return f"verified: {one['verdict']}{ratio}"


def print_notes(entries: Iterable[Published]) -> None:
    """Notes on published coordinates, each once."""
    notes: dict[tuple[str, str], list[str]] = {}
    for one in entries:
        if one.note:
            notes.setdefault((one.model, one.note), []).append(show(one.coordinate))
    if notes:
        print("\nnotes")
    for (model, note), coordinates in notes.items():
        print(f"  {model} {', '.join(coordinates)}: {note}")


def ablation_dict(one: Ablation) -> dict[str, Any]:
    """An `Ablation` as JSON."""
    weights = [show(coordinate) for coordinate in one.coordinates]
    return {"label": one.label, "loss": one.loss, "ratio": one.ratio, "weights": weights}
