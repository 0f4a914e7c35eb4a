"""The removals experiment: single weights of the real model beside controls, on thirty texts.

Removing the super weight shrinks one channel of every window's first state. Whether that channel's height is
missed, or the state's direction, is what the edits ask: they change the one without the other.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.experiments.sweep.description import Experiment
from supertf.experiments.sweep.domains import SCORED, scored, scored_texts
from supertf.model import (
    Coordinate,
    LanguageModel,
    Tokenizer,
    block_name,
    load,
    output_projections,
    parse,
    show,
)
from supertf.superweights import (
    largest_elsewhere,
    random_weights,
    restored_activations,
    scaled_weights,
    whole_row,
)

# large or spiking weights of one row, by what removing them did on other texts
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
WEIGHT = ROW_507[0]
EXPERIMENT = Experiment(
    name="removals",
    question="What does SmolLM2-135M lose without single weights, on thirty texts of three domains?",
    measure="removals:changed",
    settings={
        "model": "smollm2-135m",
        **SCORED,
        "watched": WEIGHT,
        "weights": [],
        "control": None,
        "count": 20,
        "factor": 0.0,
        "edit": None,
    },
    variants={
        "nothing": {"passages": 100},
        **{weight: {"weights": [weight], "passages": 100} for weight in ROW_507[:3]},
        **{weight: {"weights": [weight]} for weight in ROW_507[3:]},
        "20 random of layer 11, draw 0": {"weights": [WEIGHT], "control": "random 0", "passages": 100},
        **{
            f"20 random of layer 11, draw {draw}": {"weights": [WEIGHT], "control": f"random {draw}"}
            for draw in (1, 2)
        },
        "20 largest outside row 507": {"weights": [WEIGHT], "control": "largest", "passages": 100},
        "row 11[507, :]": {"weights": [WEIGHT], "control": "row"},
        "column 11[:, 1229]": {"weights": [WEIGHT], "control": "column"},
        "column 11[:, 1229] but for the weight": {"weights": [WEIGHT], "control": "rest of column"},
        "20 random columns of layer 11": {"weights": [WEIGHT], "control": "random columns"},
        **{
            f"{WEIGHT} and {other}": {"weights": [WEIGHT, other]}
            for other in ("2[507, 430]", "9[507, 200]", "11[507, 1487]", "28[507, 678]")
        },
        **{
            f"{WEIGHT} times {factor}": {"weights": [WEIGHT], "factor": factor} for factor in (0.1, 0.5, 2, 3)
        },
        f"{WEIGHT}, its activation kept": {"weights": [WEIGHT], "edit": "kept"},
        "all of the state shrunk": {"edit": "shrunk"},
        "all but the activation enlarged": {"edit": "rest enlarged"},
    },
    seeds=(0,),
    quick={"texts": 2, "windows": 1, "length": 16, "passages": 0},
)


def changed(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Losses with weights removed or scaled, or states edited. No `lengths`; the same on every `seed`.

    settings: `model`, a name that `load` takes; `texts`, `windows`, `length` and `passages`, see `SCORED`;
    `weights`, such as "11[507, 1229]"; `control`, None or what is removed in place of the one weight, see
    `chosen`; `factor`, by which they are scaled; `edit`, None or, of the `watched` weight, "kept": its
    activation is put back, "shrunk" or "rest enlarged", see `rebalanced`.

    Result: see `scored`; `weights`, those that were changed, or how many where they are a row or columns;
    and of the states behind the watched weight's layer at the first token of every text's windows, by domain
    and text: `left`, the part of its channel that is left, and `turned`, by how many degrees they turned.
    """
    model, tokenizer = loaded(settings["model"])
    watched, factor = parse(settings["watched"]), settings["factor"]
    weights = chosen(model, list(map(parse, settings["weights"])), settings["control"], settings["count"])
    texts = scored_texts(tokenizer, settings)
    firsts = {name: torch.stack([one.windows()[:, :1] for one in domain]) for name, domain in texts.items()}

    def states() -> dict[str, Tensor]:
        return {name: first_states(model, watched, ids) for name, ids in firsts.items()}

    before = states()
    with contextlib.ExitStack() as stack:
        if settings["edit"] == "kept":
            stack.enter_context(restored_activations(model, weights))
        else:
            stack.enter_context(scaled_weights(model, weights, factor))
        if settings["edit"] not in (None, "kept"):
            stack.enter_context(rebalanced(model, watched, settings["edit"]))
        after, found = states(), scored(model, tokenizer, settings)
    many = settings["control"] is not None and len(weights) > settings["count"]
    return {
        **found,
        "weights": len(weights) if many else list(map(show, weights)),
        **compared(before, after, watched[1]),
    }


def chosen(
    model: LanguageModel, weights: list[Coordinate], control: str | None, count: int
) -> list[Coordinate]:
    """What is changed: the weights, or a control of the one weight.

    Of its matrix: "random N", `count` weights of draw N; its "row", its "column", the "rest of column"
    without the weight, or `count` "random columns", none of them its own. Of all matrices: "largest", `count`
    weights of other rows.
    """
    if control is None:
        return weights
    [(layer, out, into)] = weights
    rows, columns = output_projections(model)[layer].weight.shape
    kind, _, draw = control.partition(" ")
    if kind == "random" and draw.isdecimal():
        return random_weights(model, weights[0], count, int(draw))
    if control == "largest":
        return largest_elsewhere(model, out, count)
    if control == "row":
        return whole_row(model, weights[0])
    if control in ("column", "rest of column"):
        return [(layer, row, into) for row in range(rows) if control == "column" or row != out]
    if control == "random columns":
        order = torch.randperm(columns, generator=torch.Generator().manual_seed(0)).tolist()
        drawn = [column for column in order if column != into][:count]
        return [(layer, row, column) for column in drawn for row in range(rows)]
    raise UserError(
        f"control is {control!r}; expected random N, largest, row, column, rest of column or random columns"
    )


@torch.inference_mode()
def first_states(model: LanguageModel, weight: Coordinate, firsts: Tensor) -> Tensor:
    """What the weight's block gives out at first tokens (texts, windows, 1): (texts, windows, C) float64."""
    states: list[Tensor] = []
    with behind(model, weight, lambda state, _: states.append(state.double().cpu())):
        model(firsts.flatten(0, 1).to(model.device))
    return states[0].view(*firsts.shape[:2], -1)


@contextlib.contextmanager
def rebalanced(model: LanguageModel, weight: Coordinate, edit: str) -> Iterator[None]:
    """Edit the first state of every window behind the weight's layer by f, what the weight's removal would
    leave of its channel: "shrunk", all of the state times f; "rest enlarged", all other channels over f."""
    layer, out, into = weight
    value = output_projections(model)[layer].row(out)[into].detach()
    if edit not in ("shrunk", "rest enlarged"):
        raise UserError(f"edit is {edit!r}; expected kept, shrunk or rest enlarged")

    def change(state: Tensor, inputs: Tensor) -> None:
        left = 1 - inputs[:, [into]] * value / state[:, [out]]  # (B, 1)
        height = state[:, [out]].clone()
        state.mul_(left if edit == "shrunk" else 1 / left)
        if edit == "rest enlarged":
            state[:, [out]] = height

    with behind(model, weight, change):
        yield


@contextlib.contextmanager
def behind(
    model: LanguageModel, weight: Coordinate, look: Callable[[Tensor, Tensor], None]
) -> Iterator[None]:
    """Show every window's first state behind the weight's block, (B, C), and the first input of its
    projection, (B, in); the state may be changed in place."""
    projection = output_projections(model)[weight[0]]
    inputs: list[Tensor] = []

    def before(_: Any, args: tuple[Tensor, ...]) -> None:
        inputs[:] = [args[0][:, 0]]

    def after(_: Any, args: Any, output: Any) -> None:
        look((output[0] if isinstance(output, tuple) else output)[:, 0], inputs.pop())

    with contextlib.ExitStack() as stack:
        stack.callback(projection.module.register_forward_pre_hook(before).remove)
        block = model.get_submodule(block_name(projection))
        stack.callback(block.register_forward_hook(after).remove)
        yield


def compared(before: dict[str, Tensor], after: dict[str, Tensor], channel: int) -> dict[str, Any]:
    """By domain and text, means over windows: `left` and `turned`, see `changed`."""
    found: dict[str, Any] = {"left": {}, "turned": {}}
    for name, whole in before.items():
        left = after[name][..., channel] / whole[..., channel]  # (texts, windows)
        cosine = torch.cosine_similarity(after[name], whole, dim=-1).clamp(-1, 1)
        found["left"][name] = left.mean(1).tolist()
        found["turned"][name] = (cosine.acos() * 180 / math.pi).mean(1).tolist()
    return found


@functools.lru_cache(maxsize=1)  # removals change the model for a while and leave it as it was
def loaded(name: str) -> tuple[LanguageModel, Tokenizer]:
    """The model and its tokenizer, read once for all cells of a process."""
    return load(name)
