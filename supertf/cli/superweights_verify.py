"""`supertf superweights verify`: the published super weights, listed or checked on a model."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from supertf.cli.options import Controls, Json, Loading, LossText, Seed, SpikePrompt
from supertf.cli.parsing import grouped
from supertf.cli.printing import named_texts, print_result, print_table
from supertf.errors import UserError
from supertf.files import write_json
from supertf.tables import number

if TYPE_CHECKING:
    from supertf.superweights import Check, Published, Removal


@grouped
def verify(
    *,
    model: Annotated[
        str | None, Argument(metavar="MODEL", help="check this one's; default: list them all")
    ] = None,
    published: Annotated[
        str | None, Option(metavar="HUB_ID", help="the coordinates of this model (default: those of MODEL)")
    ] = None,
    record: Annotated[
        bool, Option("--record", help="keep the result with the code, for the list to show")
    ] = False,
    prompt: SpikePrompt = None,
    text: LossText,
    controls: Controls = 20,
    seed: Seed = 0,
    loading: Loading,
    json: Json = False,
) -> int:
    """List the published super weights, or check those of a model."""
    from supertf.cli.subject import Subject
    from supertf.model import show
    from supertf.superweights import CHECKS, PROMPT, recorded_checks, removal
    from supertf.superweights import published as published_of
    from supertf.superweights import verify as verify_all

    if model is None:
        return list_published(json)
    entries = published_of(published or model)
    if not entries:
        models = ", ".join(dict.fromkeys(one.model for one in published_of()))
        raise UserError(f"nothing is published of {published or model}; expected one of {models}")
    known = entries[0].model
    here = Path(model).exists() or "/" in model or model == "smollm2-135m"
    subject = Subject(model if here or published else known, **vars(loading))
    prompt = PROMPT if prompt is None else prompt
    ids = subject.encode(prompt)
    losses, used = subject.losses(**vars(text))
    checks = verify_all(subject.model, ids, entries, losses, controls, seed)
    claimed = [one.ablation for one in checks if one.ablation and one.published.claimed == "super"]
    together = None
    if len(claimed) > 1:
        coordinates = [one.coordinate for one in claimed]
        together = removal(subject.model, coordinates, losses, claimed[0].candidate.bases)
    result = {
        **subject.config(prompt=prompt, controls=controls, seed=seed, **used),
        "seconds": subject.seconds(),
        "published": known,
        "checks": [one.to_dict() for one in checks],
        "together": None if together is None else removal_dict(together),
    }
    if record:
        command = f"supertf superweights verify {subject.name} --record"
        chosen = {"data": " ".join(used["data"]), "length": used["length"], "max_tokens": text.max_tokens}
        for option, value in {**chosen, "controls": controls, "seed": seed}.items():
            command += f" --{option} {value}"
        write_json(CHECKS, {**recorded_checks(), known: {**result, "command": command}})
    if json:
        print_result(result, as_json=True)
        return 0
    print(f"{subject.name} on {used['tokens']} tokens of {named_texts(used['data'])}; published of {known}:")
    print_table(
        ["weight", "claimed", "value", "as published", "spike", "ratio", "random", "largest", "verdict"],
        ([show(one.published.coordinate), *check_cells(one)] for one in checks),
    )
    if together is not None:
        print(f"the {len(claimed)} that are claimed to be super, together: {together.ratio:.4g} times")
    print_notes(one.published for one in checks)
    return 0


def check_cells(check: "Check") -> list[str]:
    """A row of the table of checks, behind the coordinate."""
    value = "" if check.published.value is None else number(check.published.value)
    claimed = check.published.claimed or "open"
    found = check.ablation
    if found is None:
        return [claimed, "", value, "", "", "", "", "outside the model"]
    spike = f"pass {check.round}" if check.round else "none"
    spike += f", rank {check.rank}" if check.rank else ""
    ratios = [number(one.ratio) for one in (found.candidate, found.random, found.largest)]
    entry = {True: ", as claimed", False: ", not as claimed", None: ""}[check.confirmed]
    return [claimed, number(found.weight), value, spike, *ratios, check.verdict + entry]


def list_published(as_json: bool) -> int:
    """Print every published coordinate, and whether this lab has verified it or only cites it."""
    from supertf.model import show
    from supertf.superweights import LOADED_AS, is_here, published, recorded_checks

    entries = published()
    checked = {
        (model, one["coordinate"]): one
        for model, entry in recorded_checks().items()
        for one in entry["checks"]
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
            [entry["model"], entry["coordinate"], entry["claimed"] or "open", effect(entry), status(entry)]
            for entry in listed
        ),
    )
    print_notes(entries)
    verified = sum(entry["verified"] is not None for entry in listed)
    print(f"\n{verified} of {len(listed)} verified by this lab (recorded), the others are only cited")
    for model in (model for model, there in here.items() if there):
        print(f"here to check: supertf superweights verify {LOADED_AS.get(model, model)}")
    return 0


def effect(entry: dict[str, Any]) -> str:
    """A published effect in a few words."""
    if entry["measure"] is None:
        return ""
    return f"{entry['measure']} {entry['before']:g} -> {entry['after']:g}"


def status(entry: dict[str, Any]) -> str:
    """What this lab knows of a published coordinate."""
    one = entry["verified"]
    if one is None:
        return "only cited"
    ratio = "" if one["ratio"] is None else f", perplexity x {one['ratio']:.4g}"
    return f"verified: {one['verdict']}{ratio}"


def print_notes(entries: "Iterable[Published]") -> None:
    """Notes on published coordinates, each once."""
    from supertf.model import show

    notes: dict[tuple[str, str], list[str]] = {}
    for one in entries:
        if one.note:
            notes.setdefault((one.model, one.note), []).append(show(one.coordinate))
    if notes:
        print("\nnotes")
    for (model, note), coordinates in notes.items():
        print(f"  {model} {', '.join(coordinates)}: {note}")


def removal_dict(one: "Removal") -> dict[str, Any]:
    """A `Removal` as JSON."""
    from supertf.model import show

    weights = [show(coordinate) for coordinate in one.coordinates]
    found = one.interval
    return {
        "label": one.label,
        "loss": one.loss,
        "ratio": one.ratio,
        "interval": None if found is None else [found.low, found.high],
        "ratios": one.ratios,
        "weights": weights,
    }
