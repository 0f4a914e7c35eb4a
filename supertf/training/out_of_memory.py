"""A device whose memory is full: one line that says which setting to change, and by how much."""

import contextlib
import dataclasses
from collections.abc import Iterator

import torch

from supertf.errors import UserError
from supertf.model import GPTConfig
from supertf.training.plan import GB, plan_training, this_device
from supertf.training.settings import TrainSettings

OF_PROCESSORS = "DefaultCPUAllocator"  # in what PyTorch says when there is no memory for a processor


@contextlib.contextmanager
def memory_explained(config: GPTConfig, settings: TrainSettings) -> Iterator[None]:
    """Turn an error of a device whose memory is full into a `UserError` with advice from a plan."""
    try:
        yield
    except RuntimeError as error:  # which `torch.OutOfMemoryError` is, too
        if not isinstance(error, torch.OutOfMemoryError) and OF_PROCESSORS not in str(error):
            raise
        what = str(error).split(". ")[0]
        raise UserError(f"{what}: {advice(config, settings)}; checkpoints written so far are kept") from error


def advice(config: GPTConfig, settings: TrainSettings) -> str:
    """What a plan for this device says."""
    here = this_device(settings.device, settings.precision)
    planned = plan_training(config, dataclasses.replace(settings, precision=here.precision), here)
    if not planned.fits:
        return planned.advice()
    need, have = planned.needed / GB, here.memory / GB
    return (
        f"the training needs {need:.1f} of the {have:.1f} GB that {here.name} has, and other programs hold "
        "the rest: end them, or take a smaller batch_size and more grad_accumulation"
    )
