"""What the MLPs add to the residual stream: their projections' outputs, and what becomes of these on the way.

In most models the stream takes the output as it is. Where a norm follows the MLP (Gemma 2 and 3, OLMo 2), or
a multiplier (Granite), it takes something else, and that is what later layers meet. Which it is shows in the
pass itself: the output is followed from operation to operation until it is added to a tensor of the stream's
shape that does not come from it.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from supertf.model.weight_matrices import Projection, block_name

Heard = Callable[[Projection, Tensor, Tensor, Tensor | None], None]


@contextlib.contextmanager
def additions(model: nn.Module, projections: Iterable[Projection], heard: Heard) -> Iterator[None]:
    """Watch what projections add to the residual stream, in all passes while the context lasts.

    Args:
        model: whose passes they are.
        projections: of its MLPs, from `output_projections`.
        heard: called for each with (projection, x, y, added): its input (..., K), its output (..., C), and
            what the stream takes (..., C), None where that is y, or where the block adds it to nothing. The
            addition follows, and may happen in place: copy what is to be kept.
    """
    following: Follower | None = None

    def begin(projection: Projection) -> Callable[..., None]:
        def follow(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal following
            end()
            following = Follower(output, lambda added: heard(projection, inputs[0], output, added))
            following.__enter__()  # only from here to the end of the block: it costs a little per operation

        return follow

    def end(*_: Any) -> None:
        last = following
        leave()
        if last is not None and last.found is not None:
            last.found(None)

    def leave() -> None:
        nonlocal following
        if following is not None:
            last, following = following, None
            last.__exit__(None, None, None)

    with contextlib.ExitStack() as hooks:
        hooks.callback(leave)
        for projection in projections:
            hooks.callback(projection.module.register_forward_hook(begin(projection)).remove)
            block = model.get_submodule(block_name(projection))
            hooks.callback(block.register_forward_hook(end).remove)
        yield
        end()


class Follower(TorchFunctionMode):
    """Follows a tensor y through the operations that read it, and calls `found` with what is added."""

    def __init__(self, y: Tensor, found: Callable[[Tensor | None], None]):
        super().__init__()
        self.y, self.derived = y, [y]  # which keeps them alive: they are known by identity
        self.found: Callable[[Tensor | None], None] | None = found

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.found is None or not (mine := [one for one in tensors((args, kwargs)) if self.knows(one)]):
            return function(*args, **kwargs)
        if function.__name__ in ("add", "add_") and len(mine) == 1 and self.is_addition(mine[0], args):
            found, self.found = self.found, None
            found(None if mine[0].data_ptr() == self.y.data_ptr() else mine[0])
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        self.derived += tensors(result)
        return result

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor comes from y."""
        return any(tensor is one for one in self.derived)

    def is_addition(self, mine: Tensor, operands: tuple[Any, ...]) -> bool:
        """Whether all of y, as it is by now, is added to something of the same shape: no bias, no eps."""
        others = [one for one in tensors(operands) if one is not mine]
        alike = (mine.numel(), mine.shape[-1:]) == (self.y.numel(), self.y.shape[-1:])
        return alike and len(others) == 1 and others[0].shape == mine.shape


def tensors(tree: Any) -> list[Tensor]:
    """The tensors among an operation's arguments or results, also in lists and by keyword."""
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, list | tuple):
        return []
    return [tensor for one in tree for tensor in tensors(one)]
