"""`supertf prune`: a model beside its pruned self: perplexity, text, and what becomes of super weights."""

import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from typer import Option, Typer

from supertf.cli.options import PROTECTED, Comparing, Json, Loading, Model, Seed, one_of
from supertf.cli.parsing import Command, flat, grouped
from supertf.cli.printing import print_result
from supertf.compression import FAMILY, METHODS, OPTIONS, needs_text, of_family
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.cli.side_by_side import SideBySide
    from supertf.compression import Comparison, DynamicPruning, Fate, Pruning
    from supertf.model import LanguageModel

    Plan = Pruning | DynamicPruning

ONLY_FOR = {  # options that not all methods have
    "scope": tuple(name for name, own in METHODS.items() if len(own.scopes) > 1),
    **{option: OPTIONS[option] for option in ("pattern", "matrices", "score")},
    "save": (*of_family("static"), *of_family("structured")),
    "refit_windows": (*of_family("structured"), *of_family("dynamic")),
}
CALIBRATION = {"static": 8, "structured": 8, "dynamic": 2}  # windows


app = Typer()


@app.command(cls=Command)
@grouped
def prune(
    *,
    method: Annotated[
        str,
        Option(
            **one_of(FAMILY),
            help=f"removes weights ({', '.join(of_family('static'))}), MLP channels or attention heads, or "
            "drops inputs token by token (inputs, gate, top)",
        ),
    ] = "wanda",
    sparsity: Annotated[float | None, Option(help="the share that goes, 0 to 1 (default: 0.5)")] = None,
    pattern: Annotated[
        str | None, Option(metavar="N:M", help="in place of a sparsity, as in 2:4; single weights")
    ] = None,
    scope: Annotated[
        str | None,
        Option(
            **one_of(["matrix", "row", "global"]),
            help="weights that are compared (default: the method's own)",
        ),
    ] = None,
    score: Annotated[
        str | None,
        Option(
            **one_of(["activation", "magnitude", "random"]),
            help="of channels and heads (default: activation)",
        ),
    ] = None,
    seed: Seed = 0,
    refit_windows: Annotated[
        int | None,
        Option(
            min=1,
            help="fit output projections anew, by least squares, to as many windows of other text; 64 are "
            "little for smollm2-135m, and take minutes (default: leave them)",
        ),
    ] = None,
    model: Model = "smollm2-135m",
    protect: Annotated[
        list[str] | None,
        Option(metavar="WEIGHT", help=f"{PROTECTED}: keeps its value, or its channel (default: super)"),
    ] = None,
    comparing: Comparing,
    loading: Loading,
    save: Annotated[
        str | None, Option(metavar="FOLDER", help="write the pruned model: the smaller one, if it is")
    ] = None,
    json: Json = False,
) -> int:
    """Prune a model: perplexity, text and super weights' fates."""
    protect = protect or ["super"]
    return run(SimpleNamespace(**flat(locals())))


# the plan; how the models compare; how many weights or inputs of each matrix there were and went; what became
# of each watched weight, as JSON; more for the JSON
Outcome: TypeAlias = (
    "tuple[Plan, Comparison, dict[str, dict[str, Any]], list[dict[str, Any]], dict[str, Any]]"
)


def run(args: SimpleNamespace) -> int:
    """Print what pruning does to a model."""
    from supertf.cli.side_by_side import SideBySide, by_kind
    from supertf.compression import calibration_for

    check_options(args)
    if args.sparsity is None and args.pattern is None:
        args.sparsity = 0.5
    calibrated, family = needs_text(args.method, args.score), FAMILY[args.method]
    windows = (args.calibration_windows or CALIBRATION[family]) if calibrated else 0
    side = SideBySide(args, windows, args.refit_windows or 0)
    known = None
    if calibrated:
        with side.step("calibrating"):
            known = calibration_for(
                side.model, args.method, side.calibration, matrices=args.matrices, score=args.score
            )
    options = {name: getattr(args, name) for name in ("sparsity", "pattern", "scope", "score", "seed")}
    options |= {"matrices": args.matrices, "calibration": known, "watch": side.watch}
    work = {"static": static, "structured": structured, "dynamic": dynamic}[family]
    plan, found, by_matrix, fates, more = work(args, side, options)
    weights = [{**known, **fate} for known, fate in zip(side.weights(), fates, strict=True)]
    result = {
        **side.result("pruned", {"method": args.method, **plan.settings}, found),
        "unit": "inputs" if family == "dynamic" else "weights",
        "sparsity": summed(by_matrix.values())["share"],
        **more,
        "by_kind": {
            kind: {"matrices": len(some), **summed(some)} for kind, some in by_kind(by_matrix).items()
        },
        "by_matrix": by_matrix,
        "watched": weights,
    }
    if args.json:
        print_result(result, as_json=True)
    else:
        print_pruned(result)
    return 0


def check_options(args: SimpleNamespace) -> None:
    """`UserError` on options that the method does not have, before anything is loaded."""
    from supertf.compression import check_sparsity, resolve_scope

    for option, methods in ONLY_FOR.items():
        if getattr(args, option) is not None and args.method not in methods:
            raise UserError(f"--{option} is for {', '.join(methods)}, not for {args.method}: leave it out")
    if args.calibration_windows and not needs_text(args.method, args.score):
        scored = f" by {args.score}" if args.score else ""
        raise UserError(f"{args.method}{scored} needs no calibration: leave out --calibration_windows")
    if args.pattern is not None:
        resolve_scope(args.method, args.sparsity, args.scope, args.pattern)
    elif args.sparsity is not None:
        check_sparsity(args.sparsity)


def static(args: SimpleNamespace, side: "SideBySide", options: dict[str, Any]) -> Outcome:
    """Single weights become zero."""
    from supertf.compression import Pruning, plan_pruning, prune

    with side.step("planning"):
        plan = plan_pruning(side.model, args.method, protect=side.protect, **options)
    assert isinstance(plan, Pruning)
    found = side.compare("pruned", plan)
    if args.save:
        side.save(prune(side.model, plan))
    return plan, found, removed(plan), list(map(fate_dict, plan.fates)), {}


def structured(args: SimpleNamespace, side: "SideBySide", options: dict[str, Any]) -> Outcome:
    """Whole channels or heads go, and the smaller model is measured."""
    from supertf.compression import Pruning, plan_pruning, smaller

    with side.step("planning"):
        plan = plan_pruning(side.model, args.method, protect=side.protect, **options)
        assert isinstance(plan, Pruning)
        small: LanguageModel = smaller(side.model, plan)
    small = refitted(args, side, small)
    found = side.compare("pruned", small)
    if args.save:
        side.save(small)
    more = {"parameters_left": small.num_parameters()}
    return plan, found, removed(plan), list(map(fate_dict, plan.fates)), more


def dynamic(args: SimpleNamespace, side: "SideBySide", options: dict[str, Any]) -> Outcome:
    """Small inputs of matrices do not count, token by token."""
    from supertf.compression import DynamicPruning, measure_variant, plan_pruning, pruned

    with side.step("planning"):
        plan = plan_pruning(side.model, args.method, protect=side.protect, **options)
        alone = plan_pruning(side.model, args.method, **options)  # if nothing were protected
    assert isinstance(plan, DynamicPruning)
    model = refitted(args, side, side.model, plan)
    found = side.compare("pruned", (model, pruned(model, plan, watch=side.watch)))
    row = unprotected = found["pruned"]
    if side.protect:
        first = dataclasses.replace(side.held_out, ids=side.held_out.ids[: side.length + 1])
        inside = pruned(model, alone, watch=side.watch)
        unprotected = measure_variant(model, (model, inside), first, name="unprotected", watch=side.watch)
    skipped = row.skipped
    assert skipped is not None  # the plan is dynamic
    with pruned(model, alone):
        spiking = side.spiking(model)
    by_matrix = {
        name: {"of": seen, "removed": skipped.dropped[name], "share": skipped.dropped[name] / seen}
        for name, seen in skipped.seen.items()
    }
    fates = [
        {
            "dropped": fate.dropped,
            "dropped_unprotected": bare.dropped,
            "spikes_unprotected": fate.coordinate in spiking,
        }
        for fate, bare in zip(row.fates, unprotected.fates, strict=True)
    ]
    return plan, found, by_matrix, fates, {"work_skipped": skipped.work}


def refitted(
    args: SimpleNamespace, side: "SideBySide", model: "LanguageModel", plan: "DynamicPruning | None" = None
) -> "LanguageModel":
    """The model with output projections fitted anew, if the options ask for it: those behind what was cut
    out, or the MLPs'."""
    from supertf.compression import UNITS, refit

    if not args.refit_windows:
        return model
    kind = UNITS["heads" if args.method == "heads" else "channels"][1]
    with side.step("refitting"):
        ids, length = side.refitting.windows().flatten(), side.length
        return refit(model, ids, plan, teacher=side.model, length=length, matrices=[kind])


def removed(plan: "Pruning") -> dict[str, dict[str, Any]]:
    """How many weights each matrix has, and how many go."""
    return {
        name: {"of": mask.numel(), "removed": count, "share": count / mask.numel()}
        for (name, mask), count in zip(plan.removed.items(), plan.counts.values(), strict=True)
    }


def fate_dict(fate: "Fate") -> dict[str, Any]:
    """A `Fate` as JSON; None where the weight's matrix is not pruned."""
    known = fate.rank is not None
    return {
        "removed": fate.removed,
        "removed_unprotected": fate.chosen if known else None,
        "rank": fate.rank,
        "group": fate.group,
        "going": fate.going,
    }


def summed(some: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Values of several matrices as one."""
    some = list(some)
    of, removed = (sum(one[name] for one in some) for name in ("of", "removed"))
    return {"of": of, "removed": removed, "share": removed / of}


def print_pruned(result: dict[str, Any]) -> None:
    """The result for people."""
    from supertf.cli.printing import print_table
    from supertf.cli.side_by_side import print_head, print_tail, print_weights

    config, weights = result["config"], result["watched"]
    asked = f"pattern {config['pattern']}" if config.get("pattern") else f"sparsity {config['sparsity']:g}"
    print_head(result, f"{config['method']}, {asked}", "pruned")
    removed = sum(one["removed"] for one in result["by_kind"].values())
    how = "weights removed" if result["unit"] == "weights" else "inputs dropped over all tokens"
    print(f"\n{removed:,} {how}, {result['sparsity']:.1%} of those of the matrices pruned")
    print_table(
        ["kind", "matrices", result["unit"], how.split()[1], "%"],
        (
            [kind, one["matrices"], one["of"], one["removed"], f"{100 * one['share']:.1f}"]
            for kind, one in result["by_kind"].items()
        ),
    )
    if "work_skipped" in result:
        print(f"work of these matrices that can be skipped, token by token: {result['work_skipped']:.1%}")
    if "parameters_left" in result:
        print(f"parameters of the model: {result['parameters']:,}, then {result['parameters_left']:,}")
    if result["unit"] == "weights":
        columns, cells = ["unprotected", "its turn", "here"], map(removal_cells, weights)
    else:
        columns, cells = ["spike unprotected", "% of tokens dropped", "here"], map(drop_cells, weights)
    print_weights(weights, columns, cells)
    print_tail(result, "pruned")


def removal_cells(one: dict[str, Any]) -> list[str]:
    """What a method would do to a weight, when it is that weight's turn, and what happened."""
    if one["rank"] is None:
        return ["not pruned", "", "kept"]
    turn = f"{one['rank'] + 1} of {one['group']}, {one['going']} go"
    alone = "removed" if one["removed_unprotected"] else "kept"
    return [alone, turn, "removed" if one["removed"] else "kept"]


def drop_cells(one: dict[str, Any]) -> list[str]:
    """Whether a weight spikes unprotected, and how often its input is dropped: then, and here."""
    if one["dropped"] is None:
        return ["", "not pruned", ""]
    spike = "" if one["input"] is None else "kept" if one["spikes_unprotected"] else "gone"
    return [spike, f"{100 * one['dropped_unprotected']:.1f}", f"{100 * one['dropped']:.1f}"]
