"""`supertf quantize`: a model beside itself in few bits: quality and the fate of super weights."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option, Typer

from supertf.cli.options import PROTECTED, Comparing, Json, Loading, Model
from supertf.cli.parsing import Command, flat, grouped
from supertf.cli.printing import print_result
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.cli.side_by_side import SideBySide
    from supertf.compression import Calibration, Scheme


app = Typer()


@app.command(cls=Command)
@grouped
def quantize(
    *,
    scheme: Annotated[
        str,
        Option(
            help="intBITS block=BLOCK clip=CLIP symmetric; bits 2 to 8; block tensor, channel, 64, 64x64; "
            "clip none, z4, p99.9, error, output; all but the bits may be left out"
        ),
    ] = "int4 block=64",
    model: Model = "smollm2-135m",
    protect: Annotated[
        list[str] | None,
        Option(
            metavar="WEIGHT",
            help=f"{PROTECTED}: held out, it keeps its value and does not stretch its block's levels "
            "(default: super)",
        ),
    ] = None,
    comparing: Comparing,
    loading: Loading,
    save: Annotated[
        str | None,
        Option(metavar="FOLDER", help="write the quantized weights, read back: no smaller than before"),
    ] = None,
    json: Json = False,
) -> int:
    """Quantize a model: perplexity, text and super weights' fates."""
    protect = protect or ["super"]
    return run(SimpleNamespace(**flat(locals())))


def run(args: SimpleNamespace) -> int:
    """Print what quantizing does to a model."""
    from supertf.cli.side_by_side import SideBySide, by_kind
    from supertf.compression import Scheme, calibrate, plan_quantization, quantize

    scheme = Scheme.parse(args.scheme)
    calibrated = scheme.clip == "output"
    if args.calibration_windows and not calibrated:
        raise UserError(
            f"clip={scheme.clip} needs no calibration, only clip=output: leave out --calibration_windows"
        )
    side = SideBySide(args, (args.calibration_windows or 8) if calibrated else 0)
    model, calibration = side.model, None
    if calibrated:
        with side.step("calibrating"):
            ids = side.calibration.windows().flatten()
            calibration = calibrate(model, ids, side.length, matrices=args.matrices)
    with side.step("rounding"):
        found = plan_quantization(
            model,
            scheme,
            protect=side.protect,
            watch=side.watch,
            calibration=calibration,
            matrices=args.matrices,
        )
        alone = unprotected(side, scheme, calibration, found.values)
    compared = side.compare("quantized", found)
    if args.save:
        side.save(quantize(model, found))
    by_matrix = {
        name: {"weights": value.numel(), "error": found.errors[name]} for name, value in found.values.items()
    }
    itemsize = next(iter(found.values.values())).element_size()
    weights = sum(one["weights"] for one in by_matrix.values())
    settings = {"scheme": str(scheme), "matrices": list(by_kind(by_matrix))}
    result = {
        **side.result("quantized", settings, compared),
        "weights": weights,
        "bits_per_weight": found.bits_per_weight,
        "bytes": {"dense": weights * itemsize, "quantized": found.bytes},
        "by_kind": {
            kind: {
                "matrices": len(some),
                "weights": sum(one["weights"] for one in some),
                "error": sum(one["error"] for one in some) / len(some),
            }
            for kind, some in by_kind(by_matrix).items()
        },
        "by_matrix": by_matrix,
        "watched": [
            {**known, "held_out": fate.protected, "after": fate.after, "after_unprotected": value}
            for known, fate, value in zip(side.weights(), found.fates, alone, strict=True)
        ],
    }
    if args.json:
        print_result(result, as_json=True)
    else:
        print_quantized(result)
    return 0


def unprotected(
    side: "SideBySide", scheme: "Scheme", calibration: "Calibration | None", values: dict[str, Any]
) -> list[float | None]:
    """What each watched weight becomes if none is held out; None where its matrix is not quantized."""
    from supertf.compression import round_to_nearest
    from supertf.model import output_projections

    projections, done = output_projections(side.model), {}
    for layer in {layer for layer, _, _ in side.watch if projections[layer].name in values}:
        matrix = projections[layer]
        squares = None if calibration is None else calibration.squares[matrix.name]
        done[layer] = round_to_nearest(matrix.weight, scheme, squares=squares, name=matrix.name)
    return [done[layer][out, into].item() if layer in done else None for layer, out, into in side.watch]


def print_quantized(result: dict[str, Any]) -> None:
    """The result for people."""
    from supertf.cli.printing import print_table
    from supertf.cli.side_by_side import print_head, print_tail, print_weights
    from supertf.tables import number

    weights, size = result["watched"], result["bytes"]
    print_head(result, result["config"]["scheme"], "quantized")
    print(
        f"\n{result['weights']:,} weights in {result['bits_per_weight']:.2f} bits each, scales and weights "
        f"held out included: {size['dense'] / 1e6:.1f} MB, then {size['quantized'] / 1e6:.1f} MB"
    )
    print_table(
        ["kind", "matrices", "weights", "squared error, % of squares"],
        (
            [kind, one["matrices"], one["weights"], f"{100 * one['error']:.3g}"]
            for kind, one in result["by_kind"].items()
        ),
    )
    print_weights(
        weights,
        ["unprotected", "here"],
        (
            [
                "not quantized" if (alone := one["after_unprotected"]) is None else number(alone),
                number(one["after"]),
            ]
            for one in weights
        ),
    )
    print_tail(result, "quantized")
