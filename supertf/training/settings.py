"""How to train, and what came of it."""

import math
from dataclasses import dataclass, field
from typing import Any

from supertf.errors import UserError
from supertf.model import GPT


@dataclass(frozen=True)
class TrainSettings:
    """How to train; what to train is `GPTConfig`.

    Attributes:
        steps: optimizer steps.
        batch_size: windows per micro-batch and process.
        grad_accumulation: micro-batches per step.
        length: tokens per window; None: the model's context.
        bos: whether each window begins with the end-of-text token, which also begins a generated text.
        lr: learning rate at its peak.
        warmup: steps from 0 to lr; None: a twentieth of all, at most 1,000.
        weight_decay: of matrices.
        clip: largest gradient norm; 0: no clipping.
        seed: of the weights, the order of the windows and dropout.
        validate_every: steps between validations; 0: only at the end.
        validation_windows: always the same, spread evenly over the validation file.
        sample_every: steps between samples of text; 0: none.
        sample_tokens: of a sample.
        save_every: steps between checkpoints, if there is a folder; 0: best and end only.
        device: "cpu", "cuda", "cuda:1" or "mps"; None: the best there is.
        precision: "fp32", or autocast to "bf16" or "fp16"; None: what suits the device.
        shard: whether several processes share one model, of which each holds a part (FSDP2), so that larger
            ones fit; else each holds all of it (DDP).
        tracker: an accelerate tracker, such as "wandb" or "tensorboard".
        progress: show a bar.

    Raises:
        UserError: a value out of range.
    """

    steps: int = 300
    batch_size: int = 16
    grad_accumulation: int = 1
    length: int | None = None
    bos: bool = True
    lr: float = 1e-3
    warmup: int | None = None
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    validate_every: int = 100
    validation_windows: int = 32
    sample_every: int = 0
    sample_tokens: int = 64
    save_every: int = 100
    device: str | None = None
    precision: str | None = None
    shard: bool = False
    tracker: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "grad_accumulation", "validation_windows", "sample_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("validate_every", "sample_every", "save_every", "warmup", "seed"):
            if (getattr(self, name) or 0) < 0:
                raise UserError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.shard and self.sample_every:
            raise UserError("samples need all of the model in one process: with shard leave sample_every 0")
        if self.seed >= 2**63:
            raise UserError(f"seed is {self.seed}, expected at most 2**63 - 1")
        for name in ("weight_decay", "clip"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr is {self.lr}, expected a positive number such as 1e-3")

    @property
    def warmup_steps(self) -> int:
        """Steps from 0 to the peak learning rate."""
        return min(self.steps // 20, 1000) if self.warmup is None else self.warmup


@dataclass
class TrainResult:
    """The model after its last step, in evaluation mode, and how it got there.

    Attributes:
        model: trained.
        metrics: one dictionary per step with step, loss (nats per token), lr, grad_norm (before clipping),
            tokens_per_second, seconds (of training so far, without validation); mean_s with SSMax;
            validation_loss and sample where they were due.
        step: the last one.
        windows_read: since the beginning of the run.
        best_loss: lowest validation loss, in nats per token.
        seconds: of training, without validation.
        interrupted: whether Ctrl-C ended the run early.
    """

    model: GPT
    metrics: list[dict[str, Any]] = field(default_factory=list)
    step: int = 0
    windows_read: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0
    interrupted: bool = False
