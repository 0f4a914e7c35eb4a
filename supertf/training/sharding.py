"""One model over several processes, each of which holds a part of every weight (FSDP2), on PyTorch's own."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

from supertf.model import GPT, Output
from supertf.training.sliced_loss import SlicedHeadGPT

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor  # which takes a second to import


def shard(model: GPT, processes: int) -> None:
    """Split the weights of a model, in place: each block's, and the rest's, are put together when they are
    needed and let go after it. Gradients and the optimizer's state are split as the weights are.

    The loss is taken in slices of the vocabulary from now on, see `sliced_head`.

    Args:
        model: the same in each process, on its device.
        processes: of the job, all of which share the weights.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    outputs_are_looked_into()
    mesh = init_device_mesh(model.device.type, (processes,))
    model.__class__ = SlicedHeadGPT
    for block in model.h:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@functools.cache
def outputs_are_looked_into() -> None:
    """Let FSDP find the loss in an `Output`, by which it knows when the backward pass begins."""
    torch.export.register_dataclass(Output)


def is_part(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether this process has a part of the tensor only."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from its parts, in every process; one that is whole already as it is."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def part_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, split as `other` is."""
    if not is_part(other) or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)


def load_weights(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Put whole weights into a model, split or not."""
    own = model.state_dict()
    model.load_state_dict({name: part_like(weights[name], own[name]) for name in own})


def gathered(model: GPT) -> GPT:
    """The model whole, in every process: itself, or a copy of one that is split; asked for in all at once."""
    if not any(map(is_part, model.parameters())):
        return model
    found = GPT(model.config).to(model.device)
    found.load_state_dict({name: whole(tensor) for name, tensor in model.state_dict().items()})
    return found
