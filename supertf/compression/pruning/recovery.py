"""A short training that lets a pruned model make up for what it lost.

What it gains by next tokens, on text like that it is trained on, is not all recovery: any model learns such
text. Give the dense model the same training, and compare with that. With the dense model for a teacher there
is nothing but that model to learn: it is its own control.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from supertf.compression.own_model import as_gpt
from supertf.data import batches, check_vocabulary
from supertf.errors import UserError
from supertf.model import GPT, LanguageModel, matrices, with_changes
from supertf.training import learning_rate, make_optimizer, sliced_head

WARMUP = 0.1  # of the steps, from a learning rate of 0


@dataclass
class Recovery:
    """What `recover` gives.

    Attributes:
        model: the trained copy, in evaluation mode.
        losses: of every step, in nats per token.
        seconds: of training.
    """

    model: GPT
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


@torch.enable_grad()
def recover(
    model: LanguageModel,
    ids: Sequence[int] | Tensor,
    steps: int = 100,
    *,
    teacher: LanguageModel | None = None,
    length: int = 128,
    batch_size: int = 4,
    lr: float = 1e-4,
    seed: int = 0,
    progress: bool = True,
) -> Recovery:
    """Train a copy of the model for a while; weights of its matrices that are exactly 0 stay 0.

    AdamW without weight decay, linear warm-up over a tenth of the steps, cosine decay to a tenth of `lr`,
    gradients clipped at norm 1; the same seed gives the same batches.

    Args:
        model: this package's `GPT` in float32 or float64; it is not changed.
        ids: the text, (N,) int, cut into windows side by side.
        steps: batches to train on.
        teacher: such as the dense model: learn its next-token probabilities (distillation: KL divergence), in
            place of the text's next tokens.
        length: tokens of a window.
        batch_size: windows of a batch.
        lr: the highest learning rate.
        seed: of the batches and of dropout.

    Raises:
        UserError: a model of another class or dtype, a text of another vocabulary or shorter than a batch,
            numbers out of range, and a loss that stops being finite.
    """
    model = as_gpt(model, "recover trains")
    for name, value in (("steps", steps), ("length", length), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1")
    if not 0 < lr < math.inf:
        raise UserError(f"lr is {lr}, expected a positive number such as 1e-4")
    if model.wte.weight.dtype not in (torch.float32, torch.float64):
        raise UserError(f"the model is in {model.wte.weight.dtype}: load it in float32 to train it")
    if teacher is not None and teacher.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"the teacher's vocabulary has {teacher.config.vocab_size} tokens, the model's "
            f"{model.config.vocab_size}: teach with the model that was pruned"
        )
    ids = torch.as_tensor(ids, dtype=torch.int64)
    check_vocabulary(ids, model.config.vocab_size, "the text to train on")
    if len(ids) < batch_size * length + 1:
        raise UserError(
            f"the text to train on has {len(ids)} tokens, fewer than a batch of {batch_size} windows of "
            f"{length}: use more text or a smaller batch"
        )
    windows = ids.unfold(0, length + 1, length)  # (N, length + 1): each target is predicted once

    torch.manual_seed(seed)  # of dropout
    result = Recovery(with_changes(model))
    student, started = result.model.train(), time.perf_counter()
    optimizer = make_optimizer(student, lr, weight_decay=0.0)
    zeros = [(matrix.weight, matrix.weight == 0) for matrix in matrices(student).values()]
    data = batches(windows, batch_size, seed)
    with tqdm(range(1, steps + 1), desc="recovering", unit="step", disable=not progress) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, lr, int(WARMUP * steps))
            inputs, targets = (part.to(student.device) for part in next(data))  # (B, T) each
            if teacher is None:
                with sliced_head(student):
                    loss = student(inputs, targets).loss
            else:
                loss = divergence(student, teacher, inputs)
            if not loss.isfinite():
                raise UserError(f"the loss of step {step} is {loss.item()}: try a smaller lr than {lr}")
            loss.backward()
            for weight, removed in zeros:  # no gradient and no weight decay: AdamW leaves them at 0
                if weight.grad is not None:  # else the user has frozen it
                    weight.grad.masked_fill_(removed, 0.0)
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            result.losses.append(loss.item())
            bar.set_description(f"recovering, loss {loss.item():.3f}", refresh=False)
    result.seconds = time.perf_counter() - started
    student.eval()
    return result


def divergence(student: GPT, teacher: LanguageModel, inputs: Tensor) -> Tensor:
    """KL divergence from the teacher's next-token probabilities to the student's, a mean over the tokens in
    nats. inputs: (B, T) int64."""
    with torch.no_grad():
        wanted = teacher(inputs.to(teacher.device)).logits.to(student.device).flatten(0, 1)  # (B * T, V)
    found = student(inputs).logits.flatten(0, 1)
    return F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="batchmean")
