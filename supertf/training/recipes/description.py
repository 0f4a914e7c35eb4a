"""What a recipe says, and how it is made smaller."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supertf.errors import UserError
from supertf.model import GPTConfig
from supertf.training.settings import TrainSettings

SHORTEST = 64  # tokens of a window, however small the scale
NARROWEST = 16  # channels of a head
FEWEST_LAYERS = 2  # one layer without positions sees a bag of tokens


@dataclass(frozen=True)
class Recipe:
    """A training: its models, text, length and settings.

    Attributes:
        name: such as "gpt2-small".
        question: what it is for.
        config: of the decoder, before a variant changes it.
        variants: by name, changes of the config.
        data: the text, as `iter_documents` takes it.
        tokens: that are read in training.
        settings: how; `steps` follows from `tokens`.
        offline: a text in the place of `data` where no hub is reached.
        tokenizer: as `load_tokenizer` takes it.
        looks: how often, along the way, spikes and sinks are measured; 0: never.
    """

    name: str
    question: str
    config: GPTConfig
    variants: Mapping[str, Mapping[str, Any]]
    data: str
    tokens: int
    settings: TrainSettings = field(default_factory=TrainSettings)
    offline: str = "library-docs:train"
    tokenizer: str = "gpt2"
    looks: int = 0

    def of(self, variant: str | None = None) -> GPTConfig:
        """The config of a variant, by default of the first.

        Raises:
            UserError: there is no such variant.
        """
        name = next(iter(self.variants)) if variant is None else variant
        if name not in self.variants:
            raise UserError(f"{self.name} has no variant {name!r}; choose from {', '.join(self.variants)}")
        return dataclasses.replace(self.config, **self.variants[name])

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one process reads between two updates of the weights."""
        return self.settings.batch_size * self.settings.grad_accumulation * self.config.n_ctx

    def for_processes(self, processes: int) -> TrainSettings:
        """The settings with their number of steps, the accumulation shared out among so many processes."""
        accumulation = max(1, self.settings.grad_accumulation // processes)
        per_step = self.settings.batch_size * accumulation * self.config.n_ctx * processes
        steps = max(1, math.ceil(self.tokens / per_step))
        return dataclasses.replace(self.settings, grad_accumulation=accumulation, steps=steps)

    def scaled(self, scale: float) -> "Recipe":
        """A smaller training of the same kind: about `scale` times the weights of the layers, and the tokens.

        Depth, width and heads, the context and the tokens of a step shrink by the cube root of the scale; the
        vocabulary stays, since the text does. Never fewer than two layers, and 64 tokens of context.

        Args:
            scale: above 0, at most 1.

        Raises:
            UserError: the scale is out of range.
        """
        if not 0 < scale <= 1:
            raise UserError(f"scale is {scale}, expected more than 0 and at most 1, such as 0.01")
        if scale == 1:
            return self
        by, old = scale ** (1 / 3), self.config
        n_layer = max(FEWEST_LAYERS, round(old.n_layer * by))
        n_head = max(1, round(old.n_head * by))
        width = max(NARROWEST, round(old.n_embd * by / n_head / 8) * 8) * n_head
        config = dataclasses.replace(
            old,
            n_layer=n_layer,
            n_head=n_head,
            n_kv_head=None if old.n_kv_head is None else max(1, n_head * old.n_kv_head // old.n_head),
            n_embd=width,
            n_inner=None if old.n_inner is None else round(old.n_inner * width / old.n_embd / 8) * 8,
            n_ctx=max(min(SHORTEST, old.n_ctx), round(old.n_ctx * by / 8) * 8),
        )
        settings = dataclasses.replace(
            self.settings,
            batch_size=max(1, round(self.settings.batch_size * by)),
            grad_accumulation=max(1, round(self.settings.grad_accumulation * by)),
        )
        tokens = max(round(self.tokens * scale), 1)
        name = f"{self.name}, scaled by {scale:g}"
        return dataclasses.replace(self, name=name, config=config, tokens=tokens, settings=settings)
