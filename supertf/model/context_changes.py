"""What contexts do to the modules of a model, noted on these modules while it lasts.

Each context holds what it changed. Where several changed the same weights, they are undone in the reverse
order of entering, whatever the order of leaving: a context that is left before one inside it is told so, and
undone when that one is. A copy of the model is a model of its own: it has the weights as they are, and
neither notes nor hooks.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from supertf.errors import UserError

WEIGHTS, INPUTS, ROUNDING = "_weights_changed", "_inputs_cut", "_inputs_rounded"  # kinds of changes


@dataclass(eq=False)
class Change:
    """What one context does to one module, in a word for messages, and how that is undone."""

    what: str
    undo: Callable[[], None]
    left: bool = False  # the context, while a change upon this one is still there


class Changes(list[Change]):
    """The changes of one kind to one module, in the order of entering; copies and files have none."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Changes":
        return Changes()

    def __reduce__(self) -> tuple[type["Changes"], tuple[()]]:
        return Changes, ()


def changes(module: nn.Module, kind: str) -> Changes:
    """Those of this kind that contexts make to a module now."""
    return module.__dict__.get(kind) or Changes()


@contextlib.contextmanager
def changed(
    kind: str, what: str, modules: Mapping[str, nn.Module], undo: Callable[[str], None] = lambda name: None
) -> Iterator[dict[str, Change]]:
    """Note that modules, by name, are changed while the context lasts, and call `undo(name)` for each then.

    Raises `UserError` on leaving it before a context inside it that changes the same modules, or that has
    laid their weights out for products of its own.
    """
    mine = {name: Change(what, lambda name=name: undo(name)) for name in modules}
    for name, module in modules.items():
        module.__dict__.setdefault(kind, Changes()).append(mine[name])
    try:
        yield mine
    finally:
        inside = {}
        for name, module in modules.items():
            mine[name].left, there = True, module.__dict__[kind]
            if there[-1] is not mine[name]:
                inside[name] = there[-1].what
            elif kind == WEIGHTS and getattr(module, "product", None) is not None:
                inside[name] = "packed, or laid out for skipping"
            while there and there[-1].left:
                there.pop().undo()
            if not there:
                del module.__dict__[kind]
        if inside:
            name, other = next(iter(inside.items()))
            raise UserError(
                f"{name} is still {other} in a context inside the one that is left now, where it is {what}: "
                "leave contexts in the reverse order of entering them"
            )


class Hook:
    """A hook of a context, which copies of the model do not have."""

    def __init__(self, hook: Callable[..., Any]):
        self.hook = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the hook does."""
        return self.hook(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return nothing


def nothing(*_: Any, **__: Any) -> None:
    """A hook that does nothing."""
