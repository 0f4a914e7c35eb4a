"""The largest entry of activations, and how far it stands out."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Peak:
    """The entry of largest magnitude in one layer's activations.

    Attributes:
        value: with its sign.
        token, channel: where it is.
        ratio: its magnitude over the median of the channels' largest magnitudes, which needs no scale;
            channels that are silent (a ReLU's) do not count.
    """

    value: float
    token: int
    channel: int
    ratio: float = 1.0


def peak(activations: Tensor) -> Peak:
    """The entry of largest magnitude of activations (..., channels), reduced without a copy of them."""
    return peaks(activations.reshape(1, -1, activations.shape[-1]))[0]


def peaks(x: Tensor) -> list[Peak]:
    """The `Peak` of each of L layers' activations (L, T, K).

    All at once, since on a short prompt layer by layer would take some per cent of the forward pass.
    """
    high, low = x.amax(1), x.amin(1)  # (L, K), each a tenth of the time that torch.aminmax takes
    largest = torch.maximum(high, -low).float().abs()
    layers, channels = torch.arange(len(x), device=x.device), largest.argmax(1)
    columns = x[layers, :, channels]  # (L, T)
    tokens = columns.abs().argmax(1)
    found = columns[layers, tokens].tolist(), tokens.tolist(), channels.tolist()
    return [
        Peak(value, token, channel, abs(value) / median if value else 1.0)
        for value, token, channel, median in zip(*found, medians(largest.cpu().numpy()), strict=True)
    ]


def medians(rows: np.ndarray) -> list[float]:
    """The (lower) median of each row's positive entries; NaN for a row without any."""
    middle = (rows.shape[1] - 1) // 2
    found = np.partition(rows, middle, axis=1)[:, middle].tolist()  # half of the time that torch takes
    for i, median in enumerate(found):
        if median == 0:
            found[i] = float(np.median(rows[i][rows[i] > 0])) if rows[i].any() else float("nan")
    return found
