"""The quantizing experiment: schemes side by side on the real model, on thirty texts of three domains.

Weights: nothing held out, the super weight, the set of weights that the lab found to matter, the super
weight's whole column; and two controls, as many random weights as the set has, of the same matrices, and a
random column of the super weight's matrix. Activations: rounded as they are, with the channels where super
weights spike spared, and with as many random channels spared, the control.
"""

import contextlib
import functools
from typing import Any

import torch

from supertf.compression import (
    Calibration,
    Quantization,
    calibrate,
    plan_quantization,
    quantized,
    quantized_activations,
    super_activations,
)
from supertf.data import TEXTS
from supertf.errors import UserError
from supertf.experiments.removals import ROW_507, chosen, loaded
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.domains import SCORED, of_role, scored
from supertf.model import Coordinate, LanguageModel, matrices, parse
from supertf.superweights import random_beside

TASK: dict[str, Any] = {"passages": 100}
MLPS: dict[str, Any] = {"matrices": ["mlp.c_fc", "mlp.c_proj"]}  # what blocks of 16,384 divide
ZS = [4, 6, 9, 12, 16, 20, 30]


def held(scheme: str, *groups: str, label: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    """Variants of a scheme, one for each group of weights that are held out."""
    name = label or scheme
    ends = {group: "" if group == "nothing" else f", {group} held out" for group in groups}
    return {f"{name}{end}": {"scheme": scheme, "hold": group, **more} for group, end in ends.items()}


def spared(*groups: str, label: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Variants with activations in 8 bits, one for each group of channels that are spared."""
    ends = {group: "" if group == "nothing" else f", {group} spared" for group in groups}
    return {f"{label}{end}": {"activations": 8, "spare": group, **more} for group, end in ends.items()}


EXPERIMENT = Experiment(
    name="quantizing",
    question="What do few bits cost SmolLM2-135M, and when does it help to hold super weights out?",
    measure="quantizing:quantized_quality",
    settings={
        "model": "smollm2-135m",
        **SCORED,
        "calibrated_on": list(TEXTS),
        "calibration": 4096,
        "scheme": None,
        "zs": [],
        "matrices": None,
        "weights": ROW_507,
        "hold": "nothing",
        "activations": None,
        "spare": "nothing",
    },
    variants={
        "nothing": TASK,
        **held("int4 block=64", "nothing", **TASK),
        **held("int4 block=64", "the set"),
        **held("int4 block=channel", "nothing", "the set", "the column", "a random column"),
        **held("int4 block=channel clip=z9", "nothing", "the set"),
        **held("int4 block=channel clip=error", "nothing"),
        **held("int4 block=channel clip=output", "nothing", **TASK),
        **held("int4 block=channel clip=z", "the set", label="int4 block=channel clip=tuned z", zs=ZS),
        **held("int4 block=4096", "nothing", "the column"),
        **held("int4 block=4096 clip=z9", "the set"),
        **held("int4 block=64x64", "nothing", "the weight", "the set", "the column", "a random column"),
        **held("int4 block=64x64 clip=z9", "nothing", "the set"),
        **held("int4 block=16384", "nothing", "the set", **MLPS),
        **held("int4 block=16384 clip=z9", "nothing", "the set", **MLPS),
        **held("int4 block=16384 clip=z", "the set", label="int4 block=16384 clip=tuned z", zs=ZS, **MLPS),
        **held("int4 block=18432", "nothing", "the set", "the column"),
        **held("int4 block=18432 clip=z9", "nothing", "the weight", "the set", "random weights"),
        **held("int4 block=18432 clip=error", "nothing"),
        **held("int4 block=18432 clip=output", "nothing"),
        **held("int4 block=18432 clip=z", "the set", label="int4 block=18432 clip=tuned z", zs=ZS),
        **held("int8 block=tensor symmetric", "nothing", label="W8"),
        **spared("nothing", "the weight", "the set", "random channels", label="A8"),
        **spared("nothing", label="W8A8", scheme="int8 block=tensor symmetric", **TASK),
        **spared(
            "the weight",
            "the set",
            "random channels",
            label="W8A8",
            scheme="int8 block=tensor symmetric",
        ),
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 64, "passages": 0, "calibration": 64},
)


def quantized_quality(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Losses under one scheme; `seed` draws the random controls. No `lengths`.

    settings: `model`, a name that `load` takes; `texts`, `windows`, `length` and `passages`, see `SCORED`;
    `scheme` of the weights, see `Scheme`, None to leave them alone, and `matrices` that are rounded; `zs`,
    numbers to choose the z of "clip=z" from, by `output_error`; `weights`, the set, such as "11[507, 1229]",
    the super weight first; `hold`, which of `groups` are held out; `activations`, their bits, None to leave
    them alone, and `spare`, the channels of which group keep full precision; `calibration`, tokens of each of
    the domains `calibrated_on` for clip=output and z.

    Result: see `scored`; `scheme`, as it was used; `bits` per weight; `error`, the mean over matrices of the
    relative squared error; `before` and `after`, the values of the set.
    """
    model, tokenizer = loaded(settings["model"])
    weights = list(map(parse, settings["weights"]))
    plan = None
    with contextlib.ExitStack() as stack:
        if settings["scheme"] is not None:
            plan = planned(settings, groups(model, weights, seed))
            stack.enter_context(quantized(model, plan))
        if settings["activations"] is not None:
            channels = spared_channels(model, weights, seed)
            group = pick(channels, "spare", settings["spare"])
            stack.enter_context(quantized_activations(model, settings["activations"], group))
        found = scored(model, tokenizer, settings)
    if plan is None:
        return found
    errors = plan.errors.values()
    return {
        **found,
        "scheme": str(plan.scheme),
        "bits": plan.bits_per_weight,
        "error": sum(errors) / len(errors),
        "before": [fate.before for fate in plan.fates],
        "after": [fate.after for fate in plan.fates],
    }


def planned(settings: dict[str, Any], held_out: dict[str, list[Coordinate]]) -> Quantization:
    """The quantization of a cell."""
    model, _ = loaded(settings["model"])
    scheme, needs_text = settings["scheme"], settings["zs"] or "output" in settings["scheme"]
    options = {
        "protect": pick(held_out, "hold", settings["hold"]),
        "watch": held_out["the set"],
        "matrices": settings["matrices"],
        "calibration": calibration_of(settings) if needs_text else None,
        "progress": False,
    }
    if not settings["zs"]:
        return plan_quantization(model, scheme, **options)
    plans = (plan_quantization(model, f"{scheme}{z}", **options) for z in settings["zs"])
    return min(plans, key=lambda plan: output_error(model, plan, options["calibration"]))


def output_error(model: LanguageModel, plan: Quantization, calibration: Calibration) -> float:
    """The mean over matrices of the relative squared error of outputs, as if input channels were
    uncorrelated: what Yu et al. 2024 choose their z by, as far as they say ("reconstruction error" on text).
    """
    errors = []
    for name, matrix in matrices(model).items():
        if name in plan.values:
            weight, loud = matrix.weight.detach().double(), calibration.squares[name]
            wrong = (plan.values[name].double() - weight).square() @ loud
            errors.append(float(wrong.sum() / (weight.square() @ loud).sum()))
    return sum(errors) / len(errors)


def groups(model: LanguageModel, weights: list[Coordinate], seed: int) -> dict[str, list[Coordinate]]:
    """What may be held out, by name; the random ones are the controls."""
    return {
        "nothing": [],
        "the weight": weights[:1],
        "the set": weights,
        "random weights": random_beside(model, weights, seed),
        "the column": chosen(model, weights[:1], "column", 1),
        "a random column": chosen(model, weights[:1], "random columns", 1),
    }


def spared_channels(
    model: LanguageModel, weights: list[Coordinate], seed: int
) -> dict[str, dict[str, list[int]]]:
    """By group, the input channels that are spared, by matrix; random are as many as the set's."""
    found = {
        "nothing": {},
        "the weight": super_activations(model, weights[:1]),
        "the set": super_activations(model, weights),
    }
    generator = torch.Generator().manual_seed(seed)
    widths = {name: matrix.weight.shape[1] for name, matrix in matrices(model).items()}
    found["random channels"] = {
        name: torch.randperm(widths[name], generator=generator)[: len(channels)].tolist()
        for name, channels in found["the set"].items()
    }
    return found


def pick(known: dict[str, Any], setting: str, name: str) -> Any:
    """One of several by its name."""
    if name not in known:
        raise UserError(f"{setting} is {name!r}; expected {', '.join(known)}")
    return known[name]


def calibration_of(settings: dict[str, Any]) -> Calibration:
    """Of the model as it is, on the domains' calibration texts."""
    return calibration(
        settings["model"], tuple(settings["calibrated_on"]), settings["calibration"], settings["length"]
    )


@functools.lru_cache(maxsize=1)  # shared by the cells of a process
def calibration(name: str, domains: tuple[str, ...], tokens: int, length: int) -> Calibration:
    """What goes into the matrices on the beginning of the domains' calibration texts."""
    model, tokenizer = loaded(name)
    text = of_role("calibrate", domains, tokenizer, tokens, length)
    return calibrate(model, text.windows().flatten(), length)
