"""The quantizing experiment: one scheme on the real model, weights held out or activations spared.

Weights: nothing held out, the super weight, the set of weights that the lab found to matter, the super
weight's whole column; and two controls, as many random weights as the set has, of the same matrices, and a
random column of the super weight's matrix. Activations: rounded as they are, with the channels where super
weights spike spared, and with as many random channels spared, the control.
"""

import copy
import functools
from typing import Any

import torch

from supertf.analysis import perplexity
from supertf.compression import (
    Calibration,
    Quantization,
    Scheme,
    calibrate,
    holding_out,
    plan_quantization,
    quantized,
    quantized_activations,
    super_activations,
)
from supertf.data import iter_documents
from supertf.experiments.removals import ROW_507, loaded
from supertf.experiments.sweep.description import Experiment
from supertf.model import Coordinate, LanguageModel, Tokenizer, matrices, output_projections, parse
from supertf.superweights import random_beside

APART = 16_384  # tokens from one text's beginning to the next one's
AWAY = 5  # texts between the one that is evaluated and the one that calibrates

EXPERIMENT = Experiment(
    name="quantizing",
    question="What do few bits cost SmolLM2-135M, and when does it help to hold super weights out?",
    measure="quantizing:quantized_quality",
    settings={
        "model": "smollm2-135m",
        "windows": 4,
        "length": 512,
        "calibration": 2048,
        "dtype": "bfloat16",
        "kinds": None,
        "activations": None,
        "super": ["11[507, 1229]"],
        "set": ROW_507,
        "shields": ["none", "set"],
    },
    variants={
        **{
            scheme: {
                "scheme": scheme,
                "shields": ["none", "super", "set", "random", "column", "random column"],
            }
            for scheme in (
                "int4 block=channel clip=none",
                "int4 block=18432 clip=none",
                "int4 block=64 clip=none",
                "int4 block=64 clip=error",
                "int4 block=4096 clip=none",
                "int4 block=64x64 clip=none",
                "int4 block=tensor clip=none",
            )
        },
        **{
            f"int4 {rest}": {"scheme": f"int4 {rest}", "shields": ["none", "super", "set", "random"]}
            for block in ("channel", 18432)
            for rest in (f"block={block} clip={clip}" for clip in ("z9", "error", "output"))
        },
        **{
            scheme: {"scheme": scheme}
            for scheme in (
                "int3 block=64 clip=output",
                "int4 block=64 clip=output",
                "int4 block=4096 clip=z9",
                "int4 block=64x64 clip=z9",
                "int8 block=channel clip=none",
                "int8 block=tensor clip=none",
            )
        },
        **{
            f"int4 block=16384 clip={clip}, MLPs": {
                "scheme": f"int4 block=16384 clip={clip}",
                "kinds": ["mlp.c_fc", "mlp.c_proj"],  # what this block divides
            }
            for clip in ("none", "z9")
        },
        "W8A8": {
            "scheme": "int8 block=tensor symmetric",
            "dtype": "float32",
            "activations": 8,
            "shields": ["none", "super", "set", "random"],
        },
    },
    seeds=(0, 1),
    quick={"windows": 1, "length": 64, "calibration": 64},
)


def quantized_quality(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Perplexity under one scheme; `seed` is which text, and draws the random controls. No `lengths`.

    settings: `model`, a name that `load` takes; `scheme` of the weights, see `Scheme`, and `kinds` of
    matrices; `super` and `set`, weights as "11[507, 1229]"; `shields`, which of "none", "super", "set",
    "random", "column" and "random column" are measured; `activations`, their bits, or None to leave them
    alone: then shields hold out weights, else the first four spare channels; `windows` of `length` tokens to
    evaluate, in `dtype` (weights are rounded in float32 all the same); `calibration`, tokens of another text
    for clip=output.

    Result: `dense`, its perplexity; `bits_per_weight`; `before`, the values of the set; by shield the
    `perplexity`, and of weights `after`, the set's values, `error`, the mean over matrices of the relative
    squared error, and `worst`, the matrix where it is largest. With activations also `weights`, the
    perplexity with quantized weights alone.
    """
    name, windows, length = settings["model"], settings["windows"], settings["length"]
    model, _ = loaded(name)
    evaluated = in_dtype(name, settings["dtype"])
    tokens = reading(name, seed)[: windows * length + 1]
    weights = {shield: [parse(weight) for weight in settings[shield]] for shield in ("super", "set")}
    weights |= {"none": [], "random": random_beside(model, weights["set"], seed)}
    weights |= columns(model, weights["super"][0], seed)
    scheme, watch = Scheme.parse(settings["scheme"]), weights["set"]
    read = calibration(name, seed, settings["calibration"], length) if scheme.clip == "output" else None
    bare = plan_quantization(
        model, scheme, watch=watch, calibration=read, matrices=settings["kinds"], progress=False
    )

    def measured() -> float:
        return perplexity(evaluated, tokens, length, batch_size=4).perplexity

    result = {
        "dense": dense(name, settings["dtype"], seed, windows, length),
        "bits_per_weight": bare.bits_per_weight,
        "before": [fate.before for fate in bare.fates],
    }
    if settings["activations"]:
        spared = {"none": {}, **spared_channels(model, weights, seed)}
        with quantized(evaluated, bare):
            result["weights"] = measured()
            for shield in settings["shields"]:
                with quantized_activations(evaluated, settings["activations"], spared[shield]):
                    result[shield] = {"perplexity": measured()}
        return result
    for shield in settings["shields"]:
        found = holding_out(model, bare, weights[shield], watch=watch, calibration=read)
        with quantized(evaluated, found):
            result[shield] = {"perplexity": measured(), **kept(found)}
    return result


def kept(found: Quantization) -> dict[str, Any]:
    """What became of the watched weights, and the errors of the matrices."""
    worst = max(found.errors, key=found.errors.__getitem__)
    return {
        "after": [fate.after for fate in found.fates],
        "error": sum(found.errors.values()) / len(found.errors),
        "worst": [worst, found.errors[worst]],
    }


def columns(model: LanguageModel, weight: Coordinate, seed: int) -> dict[str, list[Coordinate]]:
    """The weight's whole column, and a random other one of its matrix."""
    layer, _, into = weight
    rows, width = output_projections(model)[layer].weight.shape
    others = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    other = next(column for column in others.tolist() if column != into)
    found = {"column": into, "random column": other}
    return {name: [(layer, row, column) for row in range(rows)] for name, column in found.items()}


def spared_channels(
    model: LanguageModel, weights: dict[str, list[Coordinate]], seed: int
) -> dict[str, dict[str, list[int]]]:
    """By shield, the input channels that are spared, by matrix; random are as many as the set's."""
    spared = {name: super_activations(model, weights[name]) for name in ("super", "set")}
    generator = torch.Generator().manual_seed(seed)
    widths = {name: matrix.weight.shape[1] for name, matrix in matrices(model).items()}
    spared["random"] = {
        name: torch.randperm(widths[name], generator=generator)[: len(channels)].tolist()
        for name, channels in spared["set"].items()
    }
    return spared


@functools.lru_cache(maxsize=2)  # like the rest below: shared by the cells of a process
def in_dtype(name: str, dtype: str) -> LanguageModel:
    """The model that evaluates."""
    model, _ = loaded(name)
    return model if dtype == "float32" else copy.deepcopy(model).to(getattr(torch, dtype))


@functools.lru_cache(maxsize=4)
def reading(name: str, number: int) -> list[int]:
    """The text of that number in the model's tokens."""
    return documentation(number, loaded(name)[1])


def documentation(number: int, tokenizer: Tokenizer) -> list[int]:
    """Tokens of Python's and the scientific packages' documentation: the text of that number."""
    ids: list[int] = []
    for document in iter_documents("python-docs", progress=False):
        ids += tokenizer.encode_ordinary(document)
        if len(ids) > (number + 1) * APART:
            break
    return ids[number * APART : (number + 1) * APART + 1]


@functools.lru_cache(maxsize=4)
def dense(name: str, dtype: str, seed: int, windows: int, length: int) -> float:
    """Perplexity of the model as it is."""
    return perplexity(
        in_dtype(name, dtype), reading(name, seed)[: windows * length + 1], length, batch_size=4
    ).perplexity


@functools.lru_cache(maxsize=2)
def calibration(name: str, seed: int, tokens: int, length: int) -> Calibration:
    """Of the model in float32, on a text that is not evaluated."""
    return calibrate(loaded(name)[0], reading(name, seed + AWAY)[:tokens], length)
