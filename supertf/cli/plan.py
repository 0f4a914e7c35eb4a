"""`supertf plan`: what a recipe needs on a device, before anything is allocated."""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option, Typer

from supertf.cli.options import Json
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result, print_table
from supertf.errors import UserError

if TYPE_CHECKING:
    from supertf.training import Device

GB = 1e9

app = Typer()


@app.command(cls=Command)
def plan(
    recipe: Annotated[str | None, Option(help="of supertf train (default: all, in a table)")] = None,
    variant: Annotated[str | None, Option(help="of the recipe (default: its first)")] = None,
    scale: Annotated[float, Option(help="about this share of the recipe's weights and tokens")] = 1.0,
    device: Annotated[
        str,
        Option(help="t4, l4, v100, a100, a100-80gb, h100, h200, or what is here, measured: cpu, cuda, mps"),
    ] = "t4",
    batch_size: Annotated[int | None, Option(min=1, help="windows per micro-batch and process")] = None,
    grad_accumulation: Annotated[int | None, Option(min=1, help="micro-batches per step")] = None,
    precision: Annotated[str | None, Option(help="fp32, bf16 or fp16 (default: what is fast there)")] = None,
    utilisation: Annotated[
        float, Option(help="share of the device's matrix products that a whole step reaches")
    ] = 0.3,
    processes: Annotated[int, Option(min=1, help="devices that share the work")] = 1,
    json: Json = False,
) -> int:
    """Say what training by a recipe needs: memory by part, operations, hours."""
    from supertf.bench import this_machine
    from supertf.training import RECIPES

    where = this_machine(device, precision) if device in ("cpu", "cuda", "mps") else known(device)
    changes = {"batch_size": batch_size, "grad_accumulation": grad_accumulation, "precision": precision}
    changes = {name: value for name, value in changes.items() if value is not None}
    names = RECIPES if recipe is None else [recipe]
    found = [figures(name, variant, scale, where, changes, utilisation, processes) for name in names]
    if recipe is not None or json:
        print_result(found[0] if recipe is not None else {"recipes": found}, json)
        return 0
    columns = ["recipe", "parameters", "tokens", "memory_gb", "fits", "device_hours"]
    print(f"{where.name}, {found[0]['precision']}, at {utilisation:.0%} of its matrix products (assumed)")
    print_table(columns, [[short(one[name]) for name in columns] for one in found])
    return 0


def figures(
    name: str,
    variant: str | None,
    scale: float,
    device: "Device",
    changes: dict[str, Any],
    utilisation: float,
    processes: int,
) -> dict[str, Any]:
    """What is told of a recipe."""
    from supertf.training import plan_training
    from supertf.training import recipe as named

    recipe = named(name, scale)
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, **changes))
    settings = recipe.for_processes(processes)
    found = plan_training(recipe.of(variant), settings, device, utilisation=utilisation, processes=processes)
    return {
        "recipe": recipe.name,
        "question": recipe.question,
        "variant": variant or next(iter(recipe.variants)),
        "variants": ", ".join(recipe.variants),
        "data": recipe.data,
        "device": device.name,
        "precision": found.precision,
        "parameters": found.parameters,
        "tokens": found.steps * found.tokens_per_step,
        "steps": found.steps,
        "tokens_per_step": found.tokens_per_step,
        "flops_per_token": float(found.flops),
        **{f"{part}_gb": size / GB for part, size in found.memory.items()},
        "reserved_gb": device.reserved / GB,
        "memory_gb": found.needed / GB,
        "fits": found.fits,
        "advice": found.advice(),
        "utilisation": utilisation,
        "tokens_per_second": found.tokens_per_second,
        "hours": found.hours,
        "device_hours": found.device_hours,
    }


def short(value: Any) -> str:
    """A cell of the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def known(name: str) -> "Device":
    """The device of that name."""
    from supertf.training import DEVICES

    if name not in DEVICES:
        raise UserError(f"unknown device {name!r}; choose from {', '.join(DEVICES)}, cpu, cuda, mps")
    return DEVICES[name]
