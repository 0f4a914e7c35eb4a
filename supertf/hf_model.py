"""Any Hugging Face causal language model behind the interface of this lab's `GPT`.

`evaluate`, `generation`, `superweights` and `ablation` then work on it unchanged. transformers is needed, and
only here. A checkpoint larger than the memory is read layer by layer while it runs (`stream=True`, by
accelerate's offloading): slow, but nothing is kept.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.errors import UserError
from supertf.model import Output


@dataclass(frozen=True)
class HFConfig:
    """What the lab's tools ask of a model's config, under this lab's names."""

    model_type: str
    vocab_size: int
    n_ctx: int
    n_layer: int
    n_embd: int

    @property
    def length_limit(self) -> int:
        """Tokens at most, see `GPTConfig.length_limit`."""
        return self.n_ctx


class HFModel(nn.Module):
    """A transformers causal language model, called as `GPT` is: logits, losses, a cache."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()
        values = model.config.get_text_config()
        limit = getattr(values, "max_position_embeddings", None)  # None: ALiBi, as in some Falcons
        self.config = HFConfig(
            values.model_type,
            values.vocab_size,
            limit or 2**31,
            values.num_hidden_layers,
            values.hidden_size,
        )

    @property
    def device(self) -> torch.device:
        """Where inputs go; weights on disk are computed on the CPU."""
        device = next(self.model.parameters()).device
        return torch.device("cpu") if device.type == "meta" else device

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, *, cache: Any = None, last_only: bool = False
    ) -> Output:
        """Logits (B, T, V), of the last token with last_only; with targets (B, T) the mean loss in nats."""
        logits = self.model(
            input_ids=idx,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1 if last_only else 0,
        ).logits
        if targets is None:
            return Output(logits)
        return Output(
            None, F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)
        )

    def new_cache(self) -> Any:
        """An empty cache for `forward`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def num_parameters(self) -> int:
        """Distinct parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_hf_model(
    name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    stream: bool = False,
) -> HFModel:
    """A folder or hub id of a Hugging Face causal language model, in evaluation mode.

    dtype: None keeps the checkpoint's. stream: leave the weights in their safetensors files and read each
    layer when it runs, on the CPU. Raises `UserError` without transformers, and when the model is missing,
    damaged or none that predicts the next token.
    """
    try:
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise UserError("models of this kind are read by transformers: `pip install transformers`") from error
    offload = {"device_map": {"": "disk"}} if stream else {}
    try:
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype or "auto", **offload)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"could not load {name} as a causal language model: {reason}; expected a folder with config.json "
            "and safetensors, or a hub id and the network"
        ) from error
    return HFModel(model if stream else model.to(device))
