"""The models experiment: the strongest candidate of published models on trial, on thirty texts.

SmolLM2-135M-Instruct comes with the lab; the others are on a hub. Where one cannot be reached, its row waits,
and is filled where the same command is run with a network.
"""

import hashlib
from typing import Any

import torch

from supertf.device import pick_device_dtype
from supertf.errors import UserError
from supertf.experiments.sweep.description import WAITING, Experiment
from supertf.experiments.sweep.domains import SCORED, scored_texts
from supertf.model import is_hub_id, load, show
from supertf.superweights import PROMPT, ablate, search

BF16: dict[str, Any] = {"dtype": "bfloat16"}
EXPERIMENT = Experiment(
    name="models",
    question="Which published models lose their language with one weight, and which do not?",
    measure="models:on_trial",
    settings={"model": "smollm2-135m", "dtype": "float32", "controls": 20, "prompt": PROMPT, **SCORED},
    variants={
        "SmolLM2-135M-Instruct, 4-bit weights expanded": {},
        "SmolLM2-135M": {"model": "HuggingFaceTB/SmolLM2-135M", **BF16},
        "SmolLM2-360M": {"model": "HuggingFaceTB/SmolLM2-360M", **BF16},
        "SmolLM2-1.7B": {"model": "HuggingFaceTB/SmolLM2-1.7B", **BF16},
        "OLMo-1B-0724": {"model": "allenai/OLMo-1B-0724-hf", **BF16},  # has a published super weight
        "Qwen2.5-0.5B": {"model": "Qwen/Qwen2.5-0.5B", **BF16},
        "GPT-2": {"model": "openai-community/gpt2"},
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 64, "controls": 3},
)


def on_trial(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """The strongest candidate removed beside its controls; `seed` is that of the random ones. No `lengths`.

    settings: `model`, a name that `load` takes, and its `dtype`; `prompt`, that spikes are looked for in;
    `controls`, how many; `texts`, `windows` and `length`, see `SCORED`.

    Result: `weight`, and its `value`; `candidates`, how many follow the paper's rule (where none does, the
    spike that stands out most is tried); `verdict`, see `ablate`; by what is removed, `losses` by domain, and
    those of the model itself under "nothing"; `texts`, their SHA-256. Or why a model of a hub waits.
    """
    name, dtype = settings["model"], getattr(torch, settings["dtype"])
    try:
        model, tokenizer = load(name, device=pick_device_dtype()[0], dtype=dtype)
    except UserError as error:
        if not is_hub_id(name):
            raise
        return {WAITING: str(error)}
    searched = search(model, tokenizer.encode_prompt(settings["prompt"]))
    tried = next(iter(searched), None) or max(searched.rounds[0].spikes, key=lambda spike: spike.ratio)
    domains = scored_texts(tokenizer, settings)
    texts = [text for some in domains.values() for text in some]
    found = ablate(model, tried, texts, settings["controls"], seed, progress=False)
    controls = {"random": found.random, "largest": found.largest}
    controls |= {"largest of its row": found.row_largest, "its row": found.row}
    removed = {"the weight": found.candidate.losses, **{key: one.losses for key, one in controls.items()}}
    losses = {"nothing": found.candidate.bases, **removed}
    return {
        "weight": show(found.coordinate),
        "value": found.weight,
        "candidates": len(searched),
        "verdict": found.verdict,
        "losses": {key: by_domain(values, domains) for key, values in losses.items()},
        "texts": {
            name: hashlib.sha256(b"".join(one.ids.numpy().tobytes() for one in some)).hexdigest()
            for name, some in domains.items()
        },
    }


def by_domain(values: tuple[float, ...], domains: dict[str, list[Any]]) -> dict[str, list[float]]:
    """Values of all texts, in the domains' order, as a list for each domain."""
    left = iter(values)
    return {name: [next(left) for _ in some] for name, some in domains.items()}
