"""The pruning experiment: methods side by side on the real model, on thirty texts of three domains.

What plans are made from shares no passage with what is scored. Beside methods that keep the weights that the
lab found to matter stands what the same plan costs if they are protected, if random ones are, and if they go.
"""

import contextlib
import functools
from typing import Any

from supertf.compression import DynamicPruning, Known, Pruning, calibration_for, plan_pruning, pruned
from supertf.data import TEXTS
from supertf.errors import UserError
from supertf.experiments.removals import ROW_507, loaded
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.domains import SCORED, of_role, scored
from supertf.model import generate, parse
from supertf.superweights import random_beside, scaled_weights

PROMPT = "The capital of France is"
DOWN: dict[str, Any] = {"matrices": ["mlp.c_proj"]}
TASK: dict[str, Any] = {"passages": 100}


def at(method: str, *sparsities: float, label: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    """Variants of a method, one for each sparsity, by a label such as "wanda 50%"."""
    return {f"{label or method} {one:.0%}": {"method": method, "sparsity": one, **more} for one in sparsities}


EXPERIMENT = Experiment(
    name="pruning",
    question="What does each way of pruning cost SmolLM2-135M, and does it help to protect super weights?",
    measure="pruning:pruned_quality",
    settings={
        "model": "smollm2-135m",
        **SCORED,
        "calibrated_on": list(TEXTS),
        "calibration": 4096,
        "method": None,
        "sparsity": None,
        "scope": None,
        "pattern": None,
        "score": None,
        "matrices": None,
        "weights": ROW_507[:4],
        "protect": "nothing",
        "lost": False,
        "new_tokens": 12,
    },
    variants={
        "nothing": TASK,
        **at("random", 0.1),
        **at("magnitude", 0.3),
        **at("magnitude", 0.5, **TASK),
        **at("magnitude", 0.5, label="magnitude of mlp.c_proj", **DOWN),
        **at("wanda", 0.3),
        **at("wanda", 0.5, **TASK),
        **at("wanda", 0.7),
        "wanda 2:4": {"method": "wanda", "pattern": "2:4"},
        **at("wanda", 0.5, label="wanda, the four lost,", lost=True),
        **at("wanda", 0.5, label="wanda, calibrated on library-docs,", calibrated_on=["library-docs"]),
        **at("wanda", 0.5, 0.7, label="wanda of mlp.c_proj", **DOWN),
        **at("sparsegpt", 0.3),
        **at("sparsegpt", 0.5, **TASK),
        **at("sparsegpt", 0.7),
        "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4"},
        **at("sparsegpt", 0.5, label="sparsegpt, the four lost,", lost=True),
        **at("sparsegpt", 0.5, 0.7, label="sparsegpt of mlp.c_proj", **DOWN),
        **at("inputs", 0.3),
        **at("inputs", 0.5, **TASK),
        **at("inputs", 0.7),
        **at("inputs", 0.5, label="inputs, the four protected,", protect="weights"),
        **at("inputs", 0.5, label="inputs, four random ones protected,", protect="random"),
        **at("inputs", 0.5, label="inputs of mlp.c_proj", **DOWN, **TASK),
        **at("inputs", 0.7, label="inputs of mlp.c_proj", **DOWN),
        **at("top", 0.5, label="top of mlp.c_proj", **DOWN),
        **at("gate", 0.5),
        **at("channels", 0.2),
        **at("channels", 0.2, label="channels by magnitude", score="magnitude"),
        **at("channels", 0.2, label="channels at random", score="random"),
        **at(
            "channels",
            0.2,
            label="channels at random, the four protected,",
            score="random",
            protect="weights",
        ),
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 64, "passages": 0, "calibration": 64, "new_tokens": 2},
)


def pruned_quality(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Losses under one plan; `seed` draws what is random. No `lengths`.

    settings: `model`, a name that `load` takes; `texts`, `windows`, `length` and `passages`, see `SCORED`;
    `method` (None: nothing is pruned), `sparsity`, `scope`, `pattern`, `score`, `matrices`, see
    `plan_pruning`; `calibration`, tokens of each of the domains `calibrated_on` that the plan is made from;
    `weights`, such as "11[507, 1229]", whose fates are watched; `protect`, "nothing", those "weights" or as
    many "random" ones; `lost`, whether the weights go all the same; `new_tokens`, to continue a prompt with.

    Result: see `scored`; `removed`, the share of the matrices' weights that is zero, or of the work that was
    skipped; `gone`, of each watched weight whether it is zero, or at which share of the tokens its input was;
    `continuation`, of the prompt.
    """
    model, tokenizer = loaded(settings["model"])
    weights = list(map(parse, settings["weights"]))
    with contextlib.ExitStack() as stack:
        plan = None if settings["method"] is None else planned(settings, seed)
        skipped = None if plan is None else stack.enter_context(pruned(model, plan, watch=weights))
        if settings["lost"]:
            stack.enter_context(scaled_weights(model, weights))
        found = scored(model, tokenizer, settings)
        removed, gone = 0.0, [0.0] * len(weights)
        if isinstance(plan, Pruning):
            removed, gone = plan.sparsity, [float(fate.removed) for fate in plan.fates]
        elif skipped is not None:
            removed = skipped.work
            gone = [dropped / max(seen, 1) for dropped, seen in skipped.watched.values()]
        prompt = tokenizer.encode_ordinary(PROMPT)
        continuation = tokenizer.decode(generate(model, prompt, settings["new_tokens"]))
    return {**found, "removed": removed, "gone": gone, "continuation": continuation}


def planned(settings: dict[str, Any], seed: int) -> Pruning | DynamicPruning:
    """The plan of a cell."""
    model, _ = loaded(settings["model"])
    weights = list(map(parse, settings["weights"]))
    protected = {"nothing": [], "weights": weights, "random": random_beside(model, weights, seed)}
    if settings["protect"] not in protected:
        raise UserError(f"protect is {settings['protect']!r}; expected {', '.join(protected)}")
    matrices = settings["matrices"]
    known = calibration(
        settings["model"],
        settings["method"],
        settings["score"],
        None if matrices is None else tuple(matrices),
        tuple(settings["calibrated_on"]),
        settings["calibration"],
        settings["length"],
    )
    return plan_pruning(
        model,
        settings["method"],
        sparsity=settings["sparsity"],
        matrices=matrices,
        calibration=known,
        protect=protected[settings["protect"]],
        watch=weights,
        seed=seed,
        progress=False,
        **{name: settings[name] for name in ("scope", "pattern", "score")},
    )


@functools.lru_cache(maxsize=1)  # of cells one after the other; products of a model are hundreds of megabytes
def calibration(
    name: str,
    method: str,
    score: str | None,
    matrices: tuple[str, ...] | None,
    domains: tuple[str, ...],
    tokens: int,
    length: int,
) -> Known:
    """What a method must know of a model's activations, from the domains' calibration texts."""
    model, tokenizer = loaded(name)
    text = of_role("calibrate", domains, tokenizer, tokens, length)
    return calibration_for(model, method, text, matrices=matrices, score=score)
