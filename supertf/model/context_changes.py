"""What contexts do to the modules of a model while they last: change weights, hang hooks, compute otherwise.

Where several change the same weights, they are undone in the reverse order of entering, whatever the order
of leaving: a context that is left before one inside it says so, and is undone when that one is. For this,
modules carry notes of what is done to them. A copy of the model, or a file of it, is a model of its own: it
has the weights as they are, and neither notes nor hooks nor other ways to compute.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

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
    """Note on modules that they are changed while the context lasts, and undo that afterwards.

    Args:
        kind: WEIGHTS, INPUTS or ROUNDING.
        what: the change in a word for messages, such as "pruned".
        modules: those changed, by name.
        undo: called with each name on leaving, or, where a change inside is still there, when that is undone.

    Yields:
        The notes, by name.

    Raises:
        UserError: on leaving before a context inside that changes the same modules, or has laid their weights
            out for products of its own.
    """
    mine = {name: Change(what, functools.partial(undo, name)) for name in modules}
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
            elif kind == WEIGHTS and isinstance(module, OtherProduct):
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


class ForAWhile:
    """First base of a class that modules have while a context lasts; in copies and files they have its last
    base, their class of before."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return object.__new__, (type(self).__bases__[-1],), self.__getstate__()


@contextlib.contextmanager
def computing_as(classes: Mapping[type, type], modules: Iterable[nn.Module]) -> Iterator[None]:
    """Give modules of the classes named, and of no subclass, another class while the context lasts.

    So they compute otherwise, and their parameters, hooks and names stay.
    """
    before = [(module, type(module)) for module in modules if type(module) in classes]
    try:
        for module, plain in before:
            object.__setattr__(module, "__class__", classes[plain])  # the module's own is ten times slower
        yield
    finally:
        for module, plain in before:
            object.__setattr__(module, "__class__", plain)


class OtherProduct(ForAWhile, nn.Linear):
    """A linear layer with a `product` in its weights' place."""

    product: Callable[[Tensor], Tensor]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "product"}

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


def replace_product(
    undo: contextlib.ExitStack, name: str, layer: nn.Linear, make: Callable[[], Callable[[Tensor], Tensor]]
) -> None:
    """Give a linear layer another product for a while.

    Args:
        undo: takes it back when it is closed.
        name: the layer's, for messages.
        layer: keeps its weights, which the product takes the place of.
        make: makes the product, of x (..., in) to (..., out).

    Raises:
        UserError: it has one already. So contexts which replace products can be left in any order: each
            undoes only its own.
    """
    if isinstance(layer, OtherProduct):
        raise UserError(f"{name} is packed, or skips, already: leave that context first")
    vars(layer)["product"] = make()
    undo.callback(delattr, layer, "product")
    undo.enter_context(computing_as({type(layer): OtherProduct}, [layer]))
