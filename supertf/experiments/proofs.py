"""The proofs experiment: one weight of the real model on one text, beside its controls."""

from typing import Any

from supertf.errors import UserError
from supertf.experiments.removals import ROW_507, loaded
from supertf.experiments.smollm2_longer import text
from supertf.experiments.sweep.description import Experiment
from supertf.model import parse
from supertf.superweights import ablate, restoration, scaling_curve, text_loss

APART = 16_384  # tokens from one text's beginning to the next one's: other pages of the documentation

EXPERIMENT = Experiment(
    name="proofs",
    question="Which of eight large or spiking weights does SmolLM2-135M need more than their controls?",
    measure="proofs:proof",
    settings={
        "model": "smollm2-135m",
        "windows": 4,
        "length": 256,
        "controls": 20,
        "each": False,
        "factors": [],
    },
    variants={
        "11[507, 1229]": {
            "coordinate": "11[507, 1229]",
            "each": True,
            "factors": [0, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3],
        },
        **{weight: {"coordinate": weight} for weight in ROW_507[1:]},
    },
    quick={"windows": 1, "length": 16, "controls": 2},
)


def proof(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Remove one weight, beside its controls; `seed` is which text, and draws the random ones. No `lengths`.

    settings: `model`, a name that `load` takes; `coordinate`, such as "11[507, 1229]"; `windows` of
    `length` tokens, on which losses are measured; `controls`, how many random and largest weights; `each`,
    whether to remove the random ones also one by one; `factors`, by which the weight is scaled (none: neither
    that nor its restoration is measured).

    Result: losses in nats per token, everything else that a removal or a factor does as a ratio, perplexity
    with the change over perplexity without. `each` and `scaling` are lists, in the order of the weights of
    `random` and of the factors.
    """
    model, tokenizer = loaded(settings["model"])
    coordinate, factors = parse(settings["coordinate"]), settings["factors"]
    tokens = settings["windows"] * settings["length"]
    if tokens > APART:
        raise UserError(f"{tokens} tokens of text, expected at most {APART}: texts would overlap")
    loss = text_loss(text(seed, APART, tokenizer)[: tokens + 1], settings["length"])
    found = ablate(model, coordinate, loss, settings["controls"], seed, settings["each"], progress=False)
    controls = ("random", "largest", "row_largest", "row")
    result = {
        "base": found.base,
        "weight": found.weight,
        "ratio": found.candidate.ratio,
        "verdict": found.verdict,
        "controls": {name: getattr(found, name).ratio for name in controls},
        "each": [control.ratio for control in found.each],
        "coordinates": {name: getattr(found, name).coordinates for name in controls[:3]},
    }
    if factors:
        curve = scaling_curve(model, [coordinate], factors, loss, progress=False)
        back = restoration(model, [coordinate], loss)
        result["scaling"] = [point.ratio for point in curve]
        result["restoration"] = {"removed": back.removed, "restored": back.restored, "share": back.share}
    return result
