"""A model as the command line names it: loaded, with its tokenizer, its BOS token and a loss on a text."""

import time
from typing import TYPE_CHECKING, Any

from supertf.ablation import Loss, text_loss
from supertf.bench import machine
from supertf.checkpoint import trained_with_bos
from supertf.cli_eval import read_ids
from supertf.device import pick_device_dtype
from supertf.errors import UserError
from supertf.hf_model import HFModel, HFTokenizer, load_any

if TYPE_CHECKING:
    import numpy as np


class Subject:
    """A model on the table: loaded as the options say, with its tokenizer and BOS token."""

    def __init__(
        self,
        name: str,
        tokenizer: str | None = None,
        bos: bool | None = None,
        device: str | None = None,
        stream: bool = False,
    ) -> None:
        if stream and device not in (None, "cpu"):
            raise UserError(f"--stream True computes on the CPU, not on {device}: leave out --device")
        place, _, _ = pick_device_dtype("cpu" if stream else device)
        self.name = name
        self.model, self.tokenizer = load_any(name, stream, place, tokenizer=tokenizer)
        self.other = isinstance(self.tokenizer, HFTokenizer)  # not one of the lab's
        own = self.own_bos() if self.other else None
        wanted = bos if bos is not None else own is not None or trained_with_bos(name)
        self.bos_id = (self.tokenizer.eot_token if own is None else own) if wanted else None
        self.started = time.perf_counter()

    def own_bos(self) -> int | None:
        """The token that a Hugging Face tokenizer puts in front of a text."""
        first, plain = self.tokenizer.encode("a")[0], self.tokenizer.encode_ordinary("a")
        return first if first != plain[0] else None

    def encode(self, prompt: str) -> list[int]:
        """A prompt's tokens, special ones and BOS included; `UserError` when it is empty."""
        if not prompt:
            raise UserError("the prompt is empty: give at least one word")
        if self.other:
            ids = self.tokenizer.encode_ordinary(prompt)
        else:
            ids = self.tokenizer.encode(prompt, allowed_special="all")
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def config(self, **settings: Any) -> dict[str, Any]:
        """What a result was made with, to begin its JSON."""
        weight = next(self.model.parameters())
        made = {
            "model": self.name,
            **settings,
            "bos": self.bos_id is not None,
            "device": str(self.model.device),
            "dtype": str(weight.dtype).removeprefix("torch."),
        }
        packages = ("transformers",) if isinstance(self.model, HFModel) else ()
        return {"config": made, "versions": machine(*packages)["versions"]}

    def seconds(self) -> float:
        """Since it was loaded."""
        return time.perf_counter() - self.started

    def loss(self, data: str, length: int, max_tokens: int) -> tuple[Loss, dict[str, Any]]:
        """The loss on a text, for `ablation`, and the settings that it depends on.

        Raises `UserError` when the text cannot be read or is too short to predict a token.
        """
        ids = self.read(data, max_tokens)
        tokens = len(ids) - (self.bos_id is None)
        if tokens < 1:
            raise UserError(f"{data} has {len(ids)} tokens: too short to predict any")
        loss = text_loss(ids, length, bos_id=self.bos_id)
        return loss, {"data": data, "tokens": tokens, "length": length}

    def read(self, data: str, max_tokens: int) -> "np.ndarray":
        """The first tokens of a text, (N,) int64, see `read_ids`; `UserError` when it cannot be read."""
        if data.endswith(".bin") and self.other:
            raise UserError(f"{data} holds tokens of this lab's tokenizers: give the text itself")
        return read_ids(data, self.tokenizer, max_tokens)
