"""`supertf superweights find|ablate|scale|verify`: find super weights, prove them, check published ones."""

import argparse
from typing import TYPE_CHECKING, Any

from supertf.cli.main import HelpFormatter, boolean, positive_int, print_result, seed
from supertf.cli.tables import number, print_table
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.analysis import Peak
    from supertf.cli.subject import Subject
    from supertf.model import Coordinate
    from supertf.superweights import Round, Spike

ACTIONS = {
    "find": "candidates: weights behind a spike before and after their layer's down projection",
    "ablate": "remove candidates beside controls: super, harmful or inert",
    "scale": "multiply a weight by several factors: perplexity, and text",
    "verify": "the published super weights: list them, or check those of a model",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the four actions."""
    actions = parser.add_subparsers(dest="action", metavar="|".join(ACTIONS))
    find, ablate, scale, verify = (
        actions.add_parser(name, help=told, description=told, formatter_class=HelpFormatter)
        for name, told in ACTIONS.items()
    )
    for action in (find, ablate, scale):
        action.add_argument(
            "--model", default="smollm2-135m", help="smollm2-135m, a hub id, a folder, a run or a GGUF file"
        )
    verify.add_argument("model", nargs="?", metavar="MODEL", help="check this one's; default: list them all")
    verify.add_argument(
        "--published", metavar="HUB_ID", help="the coordinates of this model (default: those of MODEL)"
    )
    verify.add_argument(
        "--record", action="store_true", help="keep the result with the code, for the list to show"
    )
    for action in (find, ablate, verify):
        action.add_argument("--prompt", help="what the spikes are looked for in (default: the paper's)")
    find.add_argument(
        "--threshold",
        type=float,
        help="magnitude that both spikes exceed (default: the paper's 50, or none with --ratio)",
    )
    find.add_argument("--ratio", type=float, help="times the median channel's that both spikes exceed")
    find.add_argument("--rounds", type=positive_int, default=8, help="forward passes at most")
    find.add_argument(
        "--stream",
        type=boolean,
        metavar="BOOL",
        default=False,
        help="read layers from disk one by one, for checkpoints larger than the memory (default: False)",
    )
    for action in (ablate, scale):
        action.add_argument(
            "--weight",
            action="append",
            metavar="LAYER[OUT, IN]",
            help="as in 11[507, 1229]; may be given several times (default: the first candidate)",
        )
    scale.add_argument(
        "--factors", type=float, nargs="+", default=[0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3], metavar="X"
    )
    scale.add_argument("--prompt", help="also continue this text with each factor")
    scale.add_argument("--max_new_tokens", type=positive_int, default=20)
    for action in (ablate, scale, verify):
        action.add_argument(
            "--data", default="python-docs:stdlib", help="a token file (.bin), or text as in supertf data"
        )
        action.add_argument(
            "--length", type=positive_int, help="tokens per window (default: 256 or the context)"
        )
        action.add_argument("--max_tokens", type=positive_int, default=1024, help="read this many at most")
    for action in (ablate, verify):
        action.add_argument("--controls", type=positive_int, default=20, help="random and largest weights")
        action.add_argument("--seed", type=seed, default=0, help="of the random controls")
    for action in (find, ablate, scale, verify):
        action.add_argument(
            "--tokenizer",
            help="gpt2, bytes, smollm2-135m, a tokenizer file or another model (default: the model's)",
        )
        action.add_argument(
            "--bos",
            type=boolean,
            metavar="BOOL",
            help="begin prompt and windows with a BOS token (default: as the model expects)",
        )
        action.add_argument("--device", help="cpu, cuda or mps; default: the best there is")
        action.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Do one action; without one, list them."""
    if args.action is None:
        print("\n".join(f"supertf superweights {name:<8}{told}" for name, told in ACTIONS.items()))
        return 2
    if args.action == "verify":
        from supertf.cli.superweights_verify import run_verify

        return run_verify(args)
    return {"find": run_find, "ablate": run_ablate, "scale": run_scale}[args.action](args)


def run_find(args: argparse.Namespace) -> int:
    """Print candidates in the order found, and every layer's peaks."""
    from supertf.cli.subject import Subject
    from supertf.superweights import PROMPT, THRESHOLD, search

    prompt = PROMPT if args.prompt is None else args.prompt
    threshold = THRESHOLD if args.threshold is None and args.ratio is None else args.threshold
    subject = Subject(args.model, args.tokenizer, args.bos, args.device, args.stream)
    ids = subject.encode(prompt)
    passes = search(subject.model, ids, threshold, args.ratio, args.rounds)
    found = in_order(passes)
    gone = passes[-1].removed is None
    rule = {"threshold": threshold, "ratio": args.ratio, "rounds": args.rounds}
    result = {
        **subject.config(prompt=prompt, tokens=len(ids), **rule, stream=args.stream),
        "seconds": subject.seconds(),
        "passes": len(passes),
        "spikes_gone": gone,
        "candidates": found,
        "layers": [spike_dict(spike) for spike in passes[0].spikes],
    }
    if args.json:
        print_result(result, as_json=True)
        return 0
    print(f"{args.model}, {len(ids)} tokens: {prompt!r}")
    # where no norm follows, what is added to the stream is the output
    sides = ["input", "output"] + ["added"] * any(one.added != one.output for one in passes[0].spikes)
    added = ", and what the residual stream takes of it" if "added" in sides else ""
    print(f"first pass, largest entries before and after each layer's down projection{added}:")
    first = {one["layer"]: one["coordinate"] for one in found if one["round"] == 1}
    print_table(
        ["layer", *(name for side in sides for name in (side, "token", "channel", "ratio")), "candidate"],
        (
            (
                spike.layer,
                *(cell for side in sides for cell in peak_cells(getattr(spike, side))),
                first.get(spike.layer, ""),
            )
            for spike in passes[0].spikes
        ),
    )
    rules = [f"magnitude above {threshold:g}"] if threshold is not None else []
    rules += [f"above {args.ratio:g} times the median channel"] if args.ratio is not None else []
    print(f"\ncandidates ({' and '.join(rules)}), in the order found:")
    print_table(
        ["weight", "value", *sides, "share", "round", "taken out"],
        (
            (
                one["coordinate"],
                number(one["weight"]),
                *(number(one[side]["value"]) for side in sides),
                f"{one['share']:.3f}",
                one["round"],
                "yes" if one["removed"] else "no",
            )
            for one in found
        ),
    )
    print(f"after {len(passes)} passes {'no spike is left' if gone else 'spikes are left'}")
    print("a candidate is no verdict: supertf superweights ablate")
    return 0


def in_order(passes: list["Round"]) -> list[dict[str, Any]]:
    """Every candidate of a search where it first appears, pass by pass and the strongest first."""
    removed = {one.removed for one in passes}
    found: dict[Coordinate, dict[str, Any]] = {}
    for index, one in enumerate(passes, 1):
        for spike in one.candidates:
            told = {**spike_dict(spike), "round": index, "removed": spike.coordinate in removed}
            found.setdefault(spike.coordinate, told)
    return list(found.values())


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


def run_ablate(args: argparse.Namespace) -> int:
    """Print the loss without each candidate beside its controls, and the verdict."""
    from supertf.cli.subject import Subject
    from supertf.cli.superweights_verify import ablation_dict
    from supertf.model import show
    from supertf.superweights import ablate

    subject = Subject(args.model, args.tokenizer, args.bos, args.device)
    weights = chosen(args, subject)
    loss, text = subject.loss(args.data, args.length, args.max_tokens)
    settings = {"controls": args.controls, "seed": args.seed, **text}
    proofs = [ablate(subject.model, one, loss, args.controls, args.seed, each=True) for one in weights]
    results = [
        {
            "coordinate": show(proof.coordinate),
            "weight": proof.weight,
            "verdict": proof.verdict,
            "ratio": proof.candidate.ratio,
            "base": {"loss": proof.base, "perplexity": perplexity_of(proof.base)},
            "candidate": ablation_dict(proof.candidate),
            "controls": {
                "random": ablation_dict(proof.random),
                "random_each": [ablation_dict(one) for one in proof.each],
                "largest": ablation_dict(proof.largest),
                "row_largest": ablation_dict(proof.row_largest),
                "row": ablation_dict(proof.row),
            },
        }
        for proof in proofs
    ]
    if args.json:
        result = {**subject.config(**settings), "seconds": subject.seconds(), "weights": results}
        print_result(result, as_json=True)
        return 0
    print(f"{args.model} on {text['tokens']} tokens of {args.data}, windows of {text['length']}")
    for proof in proofs:
        print(f"\n{show(proof.coordinate)} = {number(proof.weight)}")
        controls = (proof.random, proof.largest, proof.row_largest, proof.row, *proof.each)
        print_table(
            ["removed", "perplexity", "ratio"],
            [
                ["nothing", number(perplexity_of(proof.base)), "1"],
                *(
                    [one.label, number(perplexity_of(one.loss)), number(one.ratio)]
                    for one in (proof.candidate, *controls)
                ),
            ],
        )
        print(
            f"{show(proof.coordinate)} is {proof.verdict}: {proof.candidate.ratio:.4g} times the perplexity"
        )
    return 0


def run_scale(args: argparse.Namespace) -> int:
    """Print perplexity, and text if asked for, with weights times each factor."""
    from supertf.cli.subject import Subject
    from supertf.model import generate, show
    from supertf.superweights import scaled_weights, scaling_curve

    subject = Subject(args.model, args.tokenizer, args.bos, args.device)
    prompt = None if args.prompt is None else subject.encode(args.prompt)
    weights = chosen(args, subject)
    loss, text = subject.loss(args.data, args.length, args.max_tokens)
    curve = [
        {"factor": one.factor, "loss": one.loss, "perplexity": perplexity_of(one.loss), "ratio": one.ratio}
        for one in scaling_curve(subject.model, weights, args.factors, loss)
    ]
    if prompt is not None:
        for one in curve:
            with scaled_weights(subject.model, weights, one["factor"]):
                tokens = generate(subject.model, prompt, args.max_new_tokens, exclude=subject.unused)
                one["text"] = "".join(subject.spoken(prompt, tokens))
    names = [show(one) for one in weights]
    if args.json:
        settings = {"prompt": args.prompt, "max_new_tokens": args.max_new_tokens, **text}
        result = {**subject.config(**settings), "seconds": subject.seconds(), "weights": names}
        print_result({**result, "factors": curve}, as_json=True)
        return 0
    print(f"{args.model}, {' and '.join(names)} times a factor; {text['tokens']} tokens of {args.data}")
    columns = ["factor", "perplexity", "ratio", *(["text"] if prompt is not None else [])]
    print_table(
        columns,
        (
            [number(one["factor"]), number(one["perplexity"]), number(one["ratio"])]
            + ([repr(one["text"])] if prompt is not None else [])
            for one in curve
        ),
    )
    return 0


def chosen(args: argparse.Namespace, subject: "Subject") -> list["Coordinate"]:
    """The weights asked for, checked, or else the first candidate of a pass over the paper's prompt."""
    from supertf.model import check_coordinate, output_projections, parse
    from supertf.superweights import PROMPT, candidates, find_spikes

    weights = list(dict.fromkeys(parse(text) for text in args.weight or ()))
    for one in weights:
        check_coordinate(output_projections(subject.model), one)
    if weights:
        return weights
    prompt = args.prompt if args.action == "ablate" and args.prompt is not None else PROMPT
    found = candidates(find_spikes(subject.model, subject.encode(prompt)))
    if not found:
        raise UserError(f"{args.model} shows no spike above the paper's threshold: name a --weight")
    return [found[0].coordinate]


def perplexity_of(loss: float) -> float:
    """exp of a loss in nats."""
    from supertf.superweights import ratio

    return ratio(loss, 0.0)


def peak_cells(peak: "Peak") -> list[str | int]:
    """A `Peak` in four cells of a table."""
    return [number(peak.value), peak.token, peak.channel, number(peak.ratio)]
