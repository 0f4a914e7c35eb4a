"""`supertf superweights find|ablate|scale`: find super weights and prove them."""

from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option, Typer

from supertf.cli.options import (
    Bool,
    Controls,
    Json,
    Loading,
    LossText,
    Model,
    NewTokens,
    Seed,
    SpikePrompt,
    boolean,
)
from supertf.cli.parsing import Command, Group, grouped
from supertf.cli.printing import named_texts, print_result, print_table
from supertf.cli.superweights_verify import removal_dict, verify
from supertf.errors import UserError
from supertf.tables import number

if TYPE_CHECKING:
    from supertf.analysis import Peak
    from supertf.cli.subject import Subject
    from supertf.model import Coordinate, LanguageModel
    from supertf.superweights import Ablation, Spike

FACTORS = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3]

Weights = Annotated[
    list[str] | None,
    Option(
        metavar="LAYER[OUT, IN]",
        help="as in 11[507, 1229]; may be given several times (default: the first candidate)",
    ),
]

app = Typer(name="superweights", cls=Group, help="Find super weights, prove them, check the published ones.")


@app.command(cls=Command)
@grouped
def find(
    *,
    model: Model = "smollm2-135m",
    prompt: SpikePrompt = None,
    threshold: Annotated[
        float | None,
        Option(help="magnitude that both spikes exceed (default: the paper's 50, or none with --ratio)"),
    ] = None,
    ratio: Annotated[float | None, Option(help="times the median channel's that both spikes exceed")] = None,
    rounds: Annotated[int, Option(min=1, help="forward passes at most")] = 8,
    stream: Annotated[
        Bool,
        Option(
            parser=boolean,
            metavar="BOOL",
            help="read layers from disk one by one, for checkpoints larger than the memory",
        ),
    ] = False,
    loading: Loading,
    json: Json = False,
) -> int:
    """List candidates. They lie behind a spike before and after their layer's down projection."""
    from supertf.cli.subject import Subject
    from supertf.model import show
    from supertf.superweights import PROMPT, THRESHOLD, search

    prompt = PROMPT if prompt is None else prompt
    threshold = THRESHOLD if threshold is None and ratio is None else threshold
    subject = Subject(model, **vars(loading), stream=stream)
    ids = subject.encode(prompt)
    found = search(subject.model, ids, threshold, ratio, rounds)
    first_pass = found.rounds[0].spikes
    rule = {"threshold": threshold, "ratio": ratio, "rounds": rounds}
    if json:
        result = {
            **subject.config(prompt=prompt, tokens=len(ids), **rule, stream=stream),
            "seconds": subject.seconds(),
            "passes": len(found.rounds),
            "spikes_gone": found.spikes_gone,
            "candidates": [
                {
                    **spike_dict(spike),
                    "round": found.round_of(spike),
                    "removed": spike.coordinate in found.removed,
                }
                for spike in found
            ],
            "layers": [spike_dict(spike) for spike in first_pass],
        }
        print_result(result, as_json=True)
        return 0
    print(f"{model}, {len(ids)} tokens: {prompt!r}")
    # where no norm follows, what is added to the stream is the output
    sides = ["input", "output"] + ["added"] * any(one.added != one.output for one in first_pass)
    added = ", and what the residual stream takes of it" if "added" in sides else ""
    print(f"first pass, largest entries before and after each layer's down projection{added}:")
    first = {spike.layer: show(spike.coordinate) for spike in found.rounds[0].candidates}
    print_table(
        ["layer", *(name for side in sides for name in (side, "token", "channel", "ratio")), "candidate"],
        (
            (
                spike.layer,
                *(cell for side in sides for cell in peak_cells(getattr(spike, side))),
                first.get(spike.layer, ""),
            )
            for spike in first_pass
        ),
    )
    rules = [f"magnitude above {threshold:g}"] if threshold is not None else []
    rules += [f"above {ratio:g} times the median channel"] if ratio is not None else []
    print(f"\ncandidates ({' and '.join(rules)}), in the order found:")
    print_table(
        ["weight", "value", *sides, "share", "round", "taken out"],
        (
            (
                show(spike.coordinate),
                number(spike.weight),
                *(number(getattr(spike, side).value) for side in sides),
                f"{spike.share:.3f}",
                found.round_of(spike),
                "yes" if spike.coordinate in found.removed else "no",
            )
            for spike in found
        ),
    )
    gone = "no spike is left" if found.spikes_gone else "spikes are left"
    print(f"after {len(found.rounds)} passes {gone}")
    print("a candidate is no verdict: supertf superweights ablate")
    return 0


def spike_dict(spike: "Spike") -> dict[str, Any]:
    """A `Spike` as JSON."""
    from supertf.model import show

    layer, out, into = spike.coordinate
    return {
        "coordinate": show(spike.coordinate),
        "layer": layer,
        "out": out,
        "in": into,
        "weight": spike.weight,
        "input": vars(spike.input),
        "output": vars(spike.output),
        "added": vars(spike.added),
        "share": spike.share,
        "size": spike.size,
        "ratio": spike.ratio,
    }


@app.command(cls=Command)
@grouped
def ablate(
    *,
    model: Model = "smollm2-135m",
    prompt: SpikePrompt = None,
    weight: Weights = None,
    text: LossText,
    controls: Controls = 20,
    seed: Seed = 0,
    loading: Loading,
    json: Json = False,
) -> int:
    """Remove weights beside controls: super, harmful or inert."""
    from supertf.cli.subject import Subject
    from supertf.model import show
    from supertf.superweights import ablate as ablate_one

    subject = Subject(model, **vars(loading))
    weights = chosen(subject, weight, prompt)
    losses, used = subject.losses(**vars(text))
    ablations = [ablate_one(subject.model, one, losses, controls, seed, each=True) for one in weights]
    if json:
        config = subject.config(controls=controls, seed=seed, **used)
        results = [ablation_dict(one) for one in ablations]
        print_result({**config, "seconds": subject.seconds(), "weights": results}, as_json=True)
        return 0
    print(f"{model} on {used['tokens']} tokens of {named_texts(used['data'])}, windows of {used['length']}")
    for one in ablations:
        name = show(one.coordinate)
        print(f"\n{name} = {number(one.weight)}")
        print_table(one.columns(), one.rows())
        print(one.caption())
    return 0


def ablation_dict(one: "Ablation") -> dict[str, Any]:
    """An `Ablation` as JSON."""
    from supertf.model import show

    return {
        "coordinate": show(one.coordinate),
        "weight": one.weight,
        "verdict": one.verdict,
        "ratio": one.candidate.ratio,
        "base": {"loss": one.base, "perplexity": perplexity_of(one.base)},
        "candidate": removal_dict(one.candidate),
        "controls": {
            "random": removal_dict(one.random),
            "random_each": [removal_dict(control) for control in one.each],
            "largest": removal_dict(one.largest),
            "row_largest": removal_dict(one.row_largest),
            "row": removal_dict(one.row),
        },
    }


@app.command(cls=Command)
@grouped
def scale(
    *,
    model: Model = "smollm2-135m",
    weight: Weights = None,
    factors: Annotated[
        list[float] | None, Option(metavar="X", help=f"(default: {' '.join(map(str, FACTORS))})")
    ] = None,
    prompt: Annotated[str | None, Option(help="also continue this text with each factor")] = None,
    max_new_tokens: NewTokens = 20,
    text: LossText,
    loading: Loading,
    json: Json = False,
) -> int:
    """Multiply a weight by several factors: perplexity, and text."""
    from supertf.cli.subject import Subject
    from supertf.model import generate, show
    from supertf.superweights import scaled_weights, scaling_curve

    subject = Subject(model, **vars(loading))
    ids = None if prompt is None else subject.encode(prompt)
    weights = chosen(subject, weight)
    losses, used = subject.losses(**vars(text))

    def loss(model: "LanguageModel") -> float:
        return fmean(one(model) for one in losses)

    curve: list[dict[str, Any]] = [
        {"factor": one.factor, "loss": one.loss, "perplexity": perplexity_of(one.loss), "ratio": one.ratio}
        for one in scaling_curve(subject.model, weights, factors or FACTORS, loss)
    ]
    if ids is not None:
        for one in curve:
            with scaled_weights(subject.model, weights, one["factor"]):
                tokens = generate(subject.model, ids, max_new_tokens, exclude=subject.unused)
                one["text"] = "".join(subject.spoken(ids, tokens))
    names = [show(one) for one in weights]
    if json:
        config = subject.config(prompt=prompt, max_new_tokens=max_new_tokens, **used)
        result = {**config, "seconds": subject.seconds(), "weights": names, "factors": curve}
        print_result(result, as_json=True)
        return 0
    texts = f"{used['tokens']} tokens of {named_texts(used['data'])}"
    print(f"{model}, {' and '.join(names)} times a factor; {texts}")
    columns = ["factor", "perplexity", "ratio"]
    print_table(
        [*columns, *(["text"] if ids is not None else [])],
        (
            [*(number(one[name]) for name in columns), *([repr(one["text"])] if ids is not None else [])]
            for one in curve
        ),
    )
    return 0


app.command(cls=Command)(verify)


def chosen(subject: "Subject", named: list[str] | None, prompt: str | None = None) -> list["Coordinate"]:
    """The weights named, checked, or else the first candidate of a pass over a prompt, or the paper's."""
    from supertf.model import check_coordinate, output_projections, parse
    from supertf.superweights import PROMPT, candidates, find_spikes

    weights = list(dict.fromkeys(parse(text) for text in named or ()))
    for one in weights:
        check_coordinate(output_projections(subject.model), one)
    if weights:
        return weights
    ids = subject.encode(PROMPT if prompt is None else prompt)
    found = candidates(find_spikes(subject.model, ids))
    if not found:
        raise UserError(f"{subject.name} shows no spike above the paper's threshold: name a --weight")
    return [found[0].coordinate]


def perplexity_of(loss: float) -> float:
    """exp of a loss in nats."""
    from supertf.superweights import ratio

    return ratio(loss, 0.0)


def peak_cells(peak: "Peak") -> list[str | int]:
    """A `Peak` in four cells of a table."""
    return [number(peak.value), peak.token, peak.channel, number(peak.ratio)]
