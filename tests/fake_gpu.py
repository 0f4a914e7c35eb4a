"""An Apple GPU that is none: tensors that say "mps" of themselves, compute on the CPU and refuse float64.

What PyTorch does not do there fails here as well: float64 in any form, operations on tensors of two devices
(but for single numbers, indices and copies), NumPy arrays of them, and some decompositions.
"""

import contextlib
import copy
from unittest import mock

import torch
from torch import nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

MPS = torch.device("mps:0")
MISSING = {"eigh", "linalg_eigh", "linalg_qr", "geqrf", "cholesky_solve"}
TWO_DEVICES = {"copy_", "to", "__getitem__", "__setitem__", "__set__", "type_as", "cpu"}
TWO_DEVICES |= {"_has_compatible_shallow_copy_type"}


class OnGPU(torch.Tensor):
    """A tensor on the fake device."""

    @property
    def device(self):
        return MPS

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class ParameterOnGPU(OnGPU, nn.Parameter):
    """A parameter on the fake device."""


class GeneratorOnGPU(torch.Generator):
    """Random numbers for it."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)


class FakeGPU(TorchFunctionMode):
    """While it lasts, tensors can be made on the fake device and moved there."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def on_gpu(tensor):
    """The same tensor, there."""
    if tensor.dtype == torch.float64:
        raise TypeError(
            "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support it"
        )
    return tensor if isinstance(tensor, OnGPU) else tensor.as_subclass(OnGPU)


def compute(function, args, kwargs):
    """Run an operation on the CPU; its result is where PyTorch would have it."""
    name = getattr(function, "__name__", "")
    if function is torch.Tensor.backward:  # our own backward passes make tensors there as well
        with FakeGPU():
            return _engine_run_backward(
                (args[0],),
                (torch.ones_like(args[0]),),
                False,
                False,
                (),
                allow_unreachable=True,
                accumulate_grad=True,
            )
    with torch._C.DisableTorchFunction():
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        here = [leaf for leaf in tensors if isinstance(leaf, OnGPU)]
        devices = [leaf for leaf in tree_leaves((args, kwargs)) if is_device(leaf)]
        there = torch.device(devices[0]).type == "mps" if devices else bool(here)
        if name == "cpu" or (name == "to" and len(tensors) == 2 and not isinstance(tensors[1], OnGPU)):
            there = False
        if name == "__set__" and isinstance(args[1], OnGPU) and type(args[0]) is nn.Parameter:
            args[0].__class__ = ParameterOnGPU  # what `module.to` does: `parameter.data = moved`
        if here:
            check(name, tensors, here, args, kwargs)
        if devices and name != "_parse_to":
            moved = lambda leaf: "cpu" if is_device(leaf) else leaf  # noqa: E731
            args, kwargs = tree_map_only((str, torch.device), moved, (args, kwargs))
        result = function(*args, **kwargs)
        if name in ("__get__", "__set__", "tolist", "item") and not isinstance(result, torch.Tensor):
            return result
        if there:
            return tree_map_only(torch.Tensor, on_gpu, result)
        return tree_map_only(OnGPU, lambda one: one.as_subclass(torch.Tensor), result)


def check(name, tensors, here, args, kwargs):
    """Refuse what PyTorch refuses."""
    if any(leaf == torch.float64 for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.dtype)):
        raise TypeError(f"{name}: the MPS framework doesn't support float64")
    if name in MISSING:
        raise NotImplementedError(f"The operator {name!r} is not currently implemented for the MPS device")
    if name == "numpy":
        raise TypeError("can't convert mps:0 device type tensor to numpy")
    if name not in TWO_DEVICES and any(one.ndim and not isinstance(one, OnGPU) for one in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found mps:0 and cpu")


def is_device(leaf):
    """Whether an argument names a device."""
    return isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf in ("cpu", "mps"))


@contextlib.contextmanager
def gpu(model):
    """A copy of the model on the fake device, for as long as there is one."""
    with FakeGPU(), mock.patch("torch.Generator", GeneratorOnGPU):
        yield copy.deepcopy(model).to(MPS)
