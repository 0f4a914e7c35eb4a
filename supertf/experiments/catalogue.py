"""Every experiment of the lab, described as data; `experiment_runner.run` turns one into numbers."""

from typing import Any

from supertf.errors import UserError
from supertf.experiments.description import Experiment


def experiment(name: str) -> Experiment:
    """The registered experiment of that name; `UserError` listing the known names otherwise."""
    if name not in EXPERIMENTS:
        raise UserError(f"unknown experiment {name!r}; choose from {', '.join(EXPERIMENTS) or 'none yet'}")
    return EXPERIMENTS[name]


POSITIONS_TRIED = {
    "none": {"position": "none"},
    "learned": {"position": "learned"},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "p-rope": {"position": "rope", "rope_fraction": 0.5},
    "alibi": {"position": "alibi"},
}
TRAINED_SCALES = ("softmax", "ssmax", "ssmax_fixed", "ssmax_bias")
SIZED_FOR_2048 = 1.78  # log 2056 / log 72: what log n comes to at 2048 items and 8 queries


def constants(*values: float) -> dict[str, dict[str, Any]]:
    """Swaps to log n and to constant factors."""
    swaps = {f"constant {c}": {"attention": "constant", "attention_constant": c} for c in values}
    return {"logn": {"attention": "logn"}, **swaps}


RECALL = Experiment(
    name="recall",
    question="Trained on 64 items, at which lengths does a two-layer decoder still find the one it needs?",
    measure="measure_tasks:answers",
    settings={
        "family": "recall",
        "queries": 8,
        "length": 64,
        "steps": 400,
        "questions": 256,
        "model": {},
        "swaps": {},
    },
    variants={
        f"{attention} {label}": {
            "model": {"attention": attention, **position},
            "swaps": constants(SIZED_FOR_2048) if attention == "softmax" else {},
        }
        for label, position in POSITIONS_TRIED.items()
        for attention in TRAINED_SCALES
    },
    lengths=(64, 128, 256, 512, 1024, 2048),
    quick={"steps": 20, "questions": 16},
)

ONE_LAYER = {"n_layer": 1, "n_head": 1}
EXTREME = Experiment(
    name="extreme",
    question="One layer, trained on 64 items, asked about 2^18: can a constant replace log n?",
    measure="measure_tasks:answers",
    settings={**RECALL.settings, "questions": 64},
    variants={
        f"{family} {attention}": {
            "family": family,
            "queries": queries,
            "steps": steps,
            "model": {"attention": attention, **ONE_LAYER},
            "swaps": constants(SIZED_FOR_2048, 2.5, 4.0, 8.0) if attention == "softmax" else {},
        }
        for family, queries, steps in (("recall", 8, 400), ("majority", 4, 1000))
        for attention in ("softmax", "ssmax")
    },
    lengths=tuple(2**power for power in (6, 9, 12, 15, 18)),
    quick={"steps": 20, "questions": 16},
)

SWAP = Experiment(
    name="swap",
    question="Is a trained softmax model rescued by a swap, by a swap and a little training, or by neither?",
    measure="measure_tasks:swaps",
    settings={
        **RECALL.settings,
        "tuning": {"steps": 50, "lr": 5e-4, "warmup": 5},
        "swaps": {**constants(SIZED_FOR_2048), "ssmax": {"attention": "ssmax"}},
    },
    variants={
        f"softmax {label}": {"model": {"attention": "softmax", **POSITIONS_TRIED[label]}}
        for label in ("none", "rope", "p-rope")
    },
    lengths=RECALL.lengths,
    quick=RECALL.quick,
)

LANGUAGE = Experiment(
    name="language",
    question="What do positions and log n cost or gain a language model, inside its context and beyond?",
    measure="measure_language:language",
    settings={"vocab_size": 257, "context": 64, "steps": 1000, "batch_size": 32, "lr": 5e-3, "model": {}},
    variants={
        **{
            f"{attention} {label}": {"model": {"attention": attention, **POSITIONS_TRIED[label]}}
            for attention, labels in (
                ("softmax", ("none", "learned", "sinusoidal", "rope", "alibi")),
                ("ssmax", ("none", "sinusoidal", "rope")),
            )
            for label in labels
        },
        **{
            f"zero key {label}": {"model": {"zero_key": True, **POSITIONS_TRIED[label]}}
            for label in ("none", "rope")
        },
    },
    lengths=(64, 128, 256, 512, 1024),
    quick={"steps": 20},
)

FREE_SCALE = Experiment(
    name="free_scale",
    question="Free to learn one factor per number of visible keys: does a model ask for log n?",
    measure="measure_free_scale:scale",
    settings={"family": "majority", "queries": 4, "steps": 1000, "model": ONE_LAYER},
    variants={
        "majority": {},
        "majority two heads": {"model": {"n_layer": 1, "n_head": 2}},
        "recall": {"family": "recall"},
    },
    lengths=(16, 20, 25, 32, 40, 51, 64, 81, 102, 128, 161, 203, 256, 323, 406, 512, 645, 813, 1024),
    quick={"steps": 20},
)

SMOLLM2_LONGER = Experiment(
    name="smollm2_longer",
    question="Does anything without training let SmolLM2-135M read twice the 8,192 tokens it was trained on?",
    measure="measure_smollm2:longer",
    settings={"changes": {}},
    variants={
        "as trained": {},
        "logn": {"changes": {"attention": "logn"}},
        "constant 1.08": {"changes": {"attention": "constant", "attention_constant": 1.08}},
        "rope base x 4": {"changes": {"rope_base": 400_000.0}},
        "rope base x 4, logn": {"changes": {"rope_base": 400_000.0, "attention": "logn"}},
    },
    lengths=(16384,),
    seeds=(0, 1, 2),
)

FOUR_LAYERS = {"n_layer": 4, "init_std": 0.02}
GROWTH = Experiment(
    name="growth",
    question="Does a small decoder grow a super weight while it learns to write Python's documentation?",
    measure="measure_growth:growth",
    settings={
        "vocab_size": 512,
        "context": 128,
        "bos": True,
        "steps": 2000,
        "batch_size": 4,
        "lr": 1e-2,
        "weight_decay": 0.3,
        "moments": 12,
        "windows": 16,
        "model": {},
    },
    variants={
        **{
            f"{mlp} {start} {attention}": {
                "bos": start == "bos",
                "model": {"mlp": mlp, "n_inner": inner, "attention": attention, **FOUR_LAYERS},
            }
            for mlp, inner in (("gelu", 256), ("swiglu", 176))  # a third matrix, about as many weights
            for start in ("bos", "no bos")
            for attention in ("softmax", "ssmax")
        },
        "swiglu bos softmax, deeper and longer": {
            "steps": 5000,
            "model": {"mlp": "swiglu", "n_inner": 176, "attention": "softmax", **FOUR_LAYERS, "n_layer": 6},
        },
    },
    seeds=(0, 1, 2),
    quick={"steps": 8, "moments": 4, "windows": 4},
)

# large or spiking weights of one row, by what they do in the proofs experiment
ROW_507 = [
    "11[507, 1229]",
    "28[507, 678]",
    "11[507, 1487]",
    "2[507, 430]",
    "2[507, 90]",
    "1[507, 49]",
    "9[507, 200]",
    "10[507, 198]",
]
PROOFS = Experiment(
    name="proofs",
    question="Which of eight large or spiking weights does SmolLM2-135M need more than their controls?",
    measure="measure_proofs:proof",
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

QUANTIZING = Experiment(
    name="quantizing",
    question="What do few bits cost SmolLM2-135M, and when does it help to hold super weights out?",
    measure="measure_quantization:quantized_quality",
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

SPARSITIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
WHOLE = [0.05, 0.1, 0.2, 0.3]  # of channels and heads, where less does more
PRUNING = Experiment(
    name="pruning",
    question="What does each way of pruning cost SmolLM2-135M, and does it help to protect super weights?",
    measure="measure_pruning:pruned_quality",
    settings={
        "model": "smollm2-135m",
        "windows": 4,
        "length": 512,
        "calibration": 2048,
        "new_tokens": 12,
        "method": "magnitude",
        "scope": None,
        "pattern": None,
        "score": None,
        "kinds": None,
        "sparsities": SPARSITIES,
        "protect": ROW_507[:4],
    },
    variants={
        "random": {"method": "random", "sparsities": SPARSITIES[:5]},
        "magnitude": {},
        "magnitude by row": {"scope": "row"},
        "magnitude global": {"scope": "global"},
        "wanda": {"method": "wanda"},
        "sparsegpt": {"method": "sparsegpt", "sparsities": [0.3, 0.5, 0.7]},
        "wanda 2:4": {"method": "wanda", "pattern": "2:4", "sparsities": [0.5]},
        "sparsegpt 2:4": {"method": "sparsegpt", "pattern": "2:4", "sparsities": [0.5]},
        "channels": {"method": "channels", "score": "activation", "sparsities": WHOLE},
        "channels by magnitude": {"method": "channels", "score": "magnitude", "sparsities": WHOLE},
        "channels at random": {"method": "channels", "score": "random", "sparsities": WHOLE},
        "inputs": {"method": "inputs"},
        "inputs of mlp.c_proj": {"method": "inputs", "kinds": ["mlp.c_proj"]},
        "top of mlp.c_proj": {"method": "top", "kinds": ["mlp.c_proj"]},
        "gate": {"method": "gate"},
    },
    seeds=(0, 1),
    quick={"windows": 1, "length": 64, "calibration": 64, "new_tokens": 2},
)

RECOVERING = Experiment(
    name="recovering",
    question="How much of what a fifth of the MLP channels was worth does a minute of training bring back?",
    measure="measure_recovery:recovered",
    settings={
        "model": "smollm2-135m",
        "sparsity": 0.2,
        "steps": 40,
        "teacher": False,
        "training": 16_384,
        "windows": 8,
        "length": 512,
        "calibration": 4096,
        "weight": "11[507, 1229]",
    },
    variants={
        "dense, next tokens": {"sparsity": 0.0},
        "pruned, next tokens": {},
        "pruned, taught": {"teacher": True},
    },
    seeds=(0, 1),
    quick={"steps": 2, "windows": 1, "length": 128, "calibration": 128, "training": 512},
)

REFITTING = Experiment(
    name="refitting",
    question="How much of what is left out can the rest make up for in closed form, and from how much text?",
    measure="measure_refit:refitted",
    settings={
        "model": "smollm2-135m",
        "method": "inputs",
        "sparsity": 0.5,
        "kinds": ["mlp.c_proj"],
        "tokens": [8192, 32_768, 131_072],
        "away": 5,
        "calibration": 4096,
        "windows": 8,
        "length": 512,
        "weight": "11[507, 1229]",
    },
    variants={
        "inputs": {},
        "inputs, text from farther away": {"tokens": [32_768], "away": 64},
        "largest inputs of each token": {"method": "top", "tokens": [32_768]},
        "channels": {"method": "channels", "kinds": None, "sparsity": 0.2, "tokens": [8192, 32_768]},
        "nothing": {"sparsity": 0.0, "tokens": [8192]},
    },
    seeds=(0, 1),
    quick={"tokens": [512], "calibration": 128, "windows": 1, "length": 128},
)

# Every experiment of the lab. To add one: a description here and a `measure_*.py` with its measure.
EXPERIMENTS: dict[str, Experiment] = {
    described.name: described
    for described in (
        RECALL,
        EXTREME,
        SWAP,
        FREE_SCALE,
        LANGUAGE,
        SMOLLM2_LONGER,
        GROWTH,
        PROOFS,
        QUANTIZING,
        PRUNING,
        RECOVERING,
        REFITTING,
    )
}
