"""Super weights: single entries W[out, in] of an MLP's output projection that a model cannot do without.

Yu et al. 2024, "The Super Weight in Large Language Models" (arXiv 2411.07191): one forward pass shows
them, because the input and the output of their layer's down projection spike at one channel each. A spike
makes a candidate; only removing the weight, beside controls, makes a verdict.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.model import GPT


@dataclass(frozen=True)
class Peak:
    """The entry of largest magnitude in one layer's activations: its value, token and channel."""

    value: float
    token: int
    channel: int


@dataclass(frozen=True)
class Spike:
    """The largest input and output of one layer's down projection in a forward pass."""

    layer: int
    input: Peak
    output: Peak
    weight: float  # W[output.channel, input.channel]

    @property
    def coordinate(self) -> tuple[int, int, int]:
        """(layer, out, in) of the weight that links the two peaks."""
        return self.layer, self.output.channel, self.input.channel


def peak(activations: Tensor) -> Peak:
    """The entry of largest magnitude of activations (1, T, channels)."""
    flat = activations[0].flatten()
    where = int(flat.abs().argmax())
    token, channel = divmod(where, activations.shape[-1])
    return Peak(float(flat[where]), token, channel)


def find_spikes(model: GPT, prompt: list[int]) -> list[Spike]:
    """One `Spike` per layer from one forward pass over a prompt; nothing larger than a layer is kept."""
    if not prompt:
        raise UserError("the prompt is empty: give at least one token")
    spikes: list[Spike] = []

    def record(module, inputs, output):
        into, out = peak(inputs[0]), peak(output)
        spikes.append(Spike(len(spikes), into, out, float(module.weight[out.channel, into.channel])))

    with contextlib.ExitStack() as hooks, torch.inference_mode():
        for block in model.h:
            hooks.callback(block.mlp.c_proj.register_forward_hook(record).remove)
        model(torch.tensor([prompt], device=model.device), last_only=True)
    return spikes


def candidates(spikes: Iterable[Spike], threshold: float = 50.0) -> list[Spike]:
    """Layers whose input and output both exceed the threshold of the paper's code, largest output first."""
    found = [spike for spike in spikes if min(abs(spike.input.value), abs(spike.output.value)) > threshold]
    return sorted(found, key=lambda spike: -abs(spike.output.value))


@contextlib.contextmanager
def scaled_weights(
    model: GPT, coordinates: Iterable[tuple[int, int, int]], factor: float = 0.0
) -> Iterator[None]:
    """Multiply weights (layer, out, in) of the down projections by `factor` while the context lasts.

    On leaving, also through an exception, every weight is put back bit for bit. Raises `UserError` on a
    coordinate outside the model.
    """
    coordinates = list(coordinates)
    for coordinate in coordinates:
        check_coordinate(model, coordinate)
    saved = []
    try:
        for layer, out, into in coordinates:
            weight = model.h[layer].mlp.c_proj.weight.data
            saved.append((weight, out, into, weight[out, into].clone()))
            weight[out, into] *= factor
        yield
    finally:
        for weight, out, into, value in reversed(saved):  # last first, in case a coordinate came twice
            weight[out, into] = value


def check_coordinate(model: GPT, coordinate: tuple[int, int, int]) -> None:
    """`UserError` unless (layer, out, in) lies inside the model."""
    layer, out, into = coordinate
    shape = (len(model.h), model.config.n_embd, model.config.inner)
    if not all(0 <= index < size for index, size in zip(coordinate, shape, strict=True)):
        raise UserError(
            f"no weight {layer}[{out}, {into}]: this model has {shape[0]} layers with down projections of "
            f"{shape[1]} x {shape[2]}; give layer, out and in counted from 0"
        )
