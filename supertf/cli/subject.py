"""A model as the command line names it: loaded, with its tokenizer, its BOS token and a loss on a text.

Every command that takes a model takes it through here, so all of them read the same models.
"""

import time
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from supertf.bench import machine
from supertf.data import TEXTS, read_ids, unused_ids
from supertf.device import pick_device_dtype
from supertf.errors import Note, UserError
from supertf.model import ENDLESS, HFModel, HFTokenizer, load, text_ends
from supertf.superweights import Loss, text_loss


class Subject:
    """A model on the table: loaded as the options say, with its tokenizer and BOS token.

    unused: ids of its vocabulary that are no tokens, for generation to leave out. ends: tokens that end a
    text.
    """

    def __init__(
        self,
        name: str,
        tokenizer: str | None = None,
        bos: bool | None = None,
        device: str | None = None,
        stream: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        if stream and device not in (None, "cpu"):
            raise UserError(f"--stream True computes on the CPU, not on {device}: leave out --device")
        place, _, _ = pick_device_dtype("cpu" if stream else device)
        self.name = name
        self.model, self.tokenizer = load(name, device=place, dtype=dtype, tokenizer=tokenizer, stream=stream)
        if bos is not None:
            own = self.tokenizer.bos_id
            self.tokenizer.bos_id = (self.tokenizer.eot_token if own is None else own) if bos else None
        self.bos_id = self.tokenizer.bos_id
        self.unused = unused_ids(self.tokenizer, self.model.config.vocab_size)
        self.ends = text_ends(self.tokenizer)
        self.started = time.perf_counter()

    def encode(self, prompt: str) -> list[int]:
        """A prompt's tokens, special ones and BOS included; `UserError` when there are none."""
        ids = self.tokenizer.encode_prompt(prompt)
        if not ids:
            raise UserError("the prompt is empty: give at least one word")
        return ids

    def spoken(self, prompt: list[int], tokens: Iterable[int]) -> Iterator[str]:
        """The text of tokens that continue a prompt, piece by piece as its characters are complete.

        A character can span tokens, and a token's text can depend on those before it (a space that begins a
        text is left out by some tokenizers), so each piece is what it adds to the last few.
        """
        decode = self.tokenizer.decode
        before, new = prompt[-8:], []
        for token in tokens:
            new.append(token)
            piece = decode([*before, *new])[len(decode(before)) :]
            if not piece.endswith("\ufffd"):
                yield piece
                before, new = [*before, *new][-8:], []
        if new:
            yield decode([*before, *new])[len(decode(before)) :]

    def length(self, wanted: int | None, default: int) -> int:
        """Tokens per window: as wanted, or else the default or the context if that is shorter.

        Longer windows are measured where the model can read them, and said in a `Note`.
        """
        length = wanted or min(default, self.model.config.n_ctx)
        self.check_context(length)
        return length

    def check_context(self, tokens: int) -> None:
        """Say in a `Note` that so many tokens are beyond the context; a table of positions refuses them."""
        context = self.model.config.n_ctx
        if tokens > context and self.model.config.length_limit is None:
            warnings.warn(
                f"{tokens} tokens are beyond the context of {context} that {self.name} was made for; few "
                "models do well there",
                Note,
                stacklevel=2,
            )

    @property
    def context(self) -> int | None:
        """Tokens that the model was made for, for JSON; None where its config does not say."""
        return None if self.model.config.n_ctx == ENDLESS else self.model.config.n_ctx

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

    def losses(
        self, data: list[str] | None, length: int | None, max_tokens: int
    ) -> tuple[list[Loss], dict[str, Any]]:
        """The loss on each text, for `ablation`, and the settings that they depend on; length: see `length`.

        data: None is the first four texts to score of each domain. max_tokens: of each.

        Raises `UserError` when a text cannot be read or is too short to predict a token.
        """
        data = data or [f"{name}:evaluate:{part}" for name in TEXTS for part in range(4)]
        length = self.length(length, 256)
        found, tokens = [], 0
        for name in data:
            ids = self.read(name, max_tokens)
            if len(ids) - (self.bos_id is None) < 1:
                raise UserError(f"{name} has {len(ids)} tokens: too short to predict any")
            tokens += len(ids) - (self.bos_id is None)
            found.append(text_loss(ids, length, bos_id=self.bos_id))
        return found, {"data": data, "tokens": tokens, "length": length, "context": self.context}

    def read(self, data: str, max_tokens: int) -> Tensor:
        """The first tokens of a text, (N,) int64, see `read_ids`; `UserError` when it cannot be read."""
        self.check_data(data)
        return torch.from_numpy(read_ids(data, self.tokenizer, max_tokens))

    def check_data(self, data: str) -> None:
        """`UserError` on tokens of another tokenizer than the model's."""
        if data.endswith(".bin") and isinstance(self.tokenizer, HFTokenizer):
            raise UserError(
                f"{data} holds tokens of this lab's tokenizers: give the text itself, or name its own with "
                "--tokenizer"
            )
