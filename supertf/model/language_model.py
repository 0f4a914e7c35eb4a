"""What this package asks of a language model, whoever wrote it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        logits: (B, T, V); None where targets were given.
        loss: with targets, the mean cross-entropy in nats, a scalar.
        attentions: with output_attentions, probabilities (B, H, T, S), one tensor per layer.
    """

    logits: Tensor | None
    loss: Tensor | None = None
    attentions: tuple[Tensor, ...] | None = None


class LanguageModel(nn.Module, ABC):
    """A causal language model: this lab's `GPT`, or `HFModel` around one of transformers.

    Called as `model(idx, targets=None, *, cache=None, last_only=False)`, it gives an `Output`.

    Attributes:
        config: has vocab_size, n_ctx, n_layer, n_embd and length_limit, as `GPTConfig` has.
    """

    config: Any

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where inputs go."""

    @abstractmethod
    def new_cache(self) -> Any:
        """An empty cache of the tokens before these."""

    def num_parameters(self) -> int:
        """Distinct parameters; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
