"""`supertf bench`: speed as ratios to reference implementations, measured in one run."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from supertf.cli.options import Json, one_of
from supertf.cli.parsing import Command, command_line
from supertf.cli.printing import print_result, without_infinities
from supertf.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENCHMARKS = {  # name, also of its module: the options that its `run` takes
    "train": ("repeats", "nanogpt"),
    "generate": ("repeats", "tokens"),
    "prune": ("repeats", "tokens"),
    "data": ("repeats", "megabytes"),
    "superweights": ("repeats", "stream_gigabytes"),
    "busy": ("repeats", "steps"),
    "plan": ("repeats",),
    "costs": ("repeats",),
    "gpu": ("device", "minutes", "skip"),
}
REPEATS = "train 7, generate 5, prune 5, data 3, superweights 7, busy 5, plan 5, costs 5"

app = Typer()


@app.command(cls=Command)
def bench(
    benchmark: Annotated[str, Argument(**one_of(BENCHMARKS))],
    repeats: Annotated[int | None, Option(min=1, help=f"rounds of all rivals (default: {REPEATS})")] = None,
    tokens: Annotated[int | None, Option(min=1, help="generate, prune: new tokens (default: 64)")] = None,
    megabytes: Annotated[int | None, Option(min=1, help="data: text to tokenize (default: 10)")] = None,
    stream_gigabytes: Annotated[
        int | None,
        Option(
            min=1, help="superweights: also search a generated checkpoint of this size from disk (default: 0)"
        ),
    ] = None,
    steps: Annotated[int | None, Option(min=1, help="busy: training steps a round (default: 40)")] = None,
    nanogpt: Annotated[
        str | None, Option(metavar="FILE", help="train: a copy of nanoGPT's model.py, as another peer")
    ] = None,
    device: Annotated[str | None, Option(help="gpu: cpu rehearses it (default: the best there is)")] = None,
    minutes: Annotated[
        float | None, Option(help="gpu: after which no further part begins (default: 10)")
    ] = None,
    skip: Annotated[list[str] | None, Option(help="gpu: parts to leave out")] = None,
    out: Annotated[
        str | None, Option(help="folder for the result so far, after every part: gpu.json and gpu.png, say")
    ] = None,
    json: Json = False,
) -> int:
    """Measure speed against other implementations. Close other programs first."""
    options = {
        "repeats": repeats,
        "tokens": tokens,
        "megabytes": megabytes,
        "stream_gigabytes": stream_gigabytes,
        "steps": steps,
        "nanogpt": nanogpt,
        "device": device,
        "minutes": minutes,
        "skip": skip,
    }
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in BENCHMARKS[benchmark]:
            takes = " and ".join(f"--{option}" for option in BENCHMARKS[benchmark])
            raise UserError(f"--{name} is not for the benchmark {benchmark}, which takes {takes}")
    told = {name: " ".join(value) if isinstance(value, list) else value for name, value in given.items()}
    result: dict[str, Any] = {"command": command_line("bench", benchmark, **told)}
    try:
        for found in importlib.import_module(f"supertf.bench.{benchmark}").run(**given):
            result |= found
            if out is not None:
                keep(result, Path(out), benchmark)
    except KeyboardInterrupt:
        result["interrupted"] = True
        raise
    finally:  # what was measured is printed, whatever ended the rest
        if len(result) > 1:
            print_result(result if json else flatten(result), json)
    return 0


def keep(result: dict[str, Any], folder: Path, name: str) -> None:
    """Write what a benchmark has found so far; some are drawn, too."""
    import matplotlib.pyplot as plt

    from supertf.files import atomic_path, write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", without_infinities(result))
    figure = picture(result, name)
    if figure is not None:
        with atomic_path(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
        plt.close(figure)


def picture(result: dict[str, Any], name: str) -> "Figure | None":
    """Of what a GPU does, or of how costs grow."""
    from supertf.lab import plots, plots_speed

    if name == "gpu":
        speed, trained = (result.get(part, {}) for part in ("speed", "training"))
        rates = {part: one["tokens_per_second"] for part, one in speed.items() if isinstance(one, dict)}
        losses = {part: one["losses"] for part, one in trained.items() if isinstance(one, dict)}
        return plots_speed.rates_and_losses(rates, losses)
    axes = {part: one for part, one in result.items() if isinstance(one, dict) and "sizes" in one}
    if name != "costs" or not axes:
        return None
    panels = {
        f"{part}: seconds ^ {one['seconds_exponent']:.2f}": {
            kind: (one["sizes"], [value / values[0] for value in values])
            for kind, values in one.items()
            if kind in ("seconds", "operations", "bytes", "other_bytes")
        }
        for part, one in axes.items()
    }
    return plots.line_panels(panels, xscale="log", yscale="log", ylabel="in units of the first")


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
