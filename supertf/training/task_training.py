"""Train small decoders on synthetic tasks (`data.Task`), and ask them at lengths they have never seen."""

import dataclasses
import time
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from supertf.analysis import attention_stats
from supertf.data import Batch, Task
from supertf.device import threads_for
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig, add_zero_key, layout
from supertf.training.optimizer import learning_rate, make_optimizer

DEPTHS = 8  # parts of the sequence by which accuracy is counted
FREE_LR = 10.0  # of a free scale p_n, in learning rates: it learns only from queries that see n keys


@dataclass(frozen=True)
class TaskSettings:
    """How to train: AdamW, linear warm-up, cosine decay to a tenth, gradients clipped at norm 1.

    Attributes:
        steps, batch_size, lr, warmup, weight_decay: as in `TrainSettings`.
        length: items before the queries; of several, each step draws one.
        seed: of the weights and the sequences.

    Raises:
        UserError: a value out of range.
    """

    steps: int = 500
    batch_size: int = 32
    length: int | tuple[int, ...] = 64
    lr: float = 2e-3
    warmup: int = 50
    weight_decay: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.lengths or min(self.lengths) < 1:
            raise UserError(f"length is {self.length}, expected at least 1, or several such numbers")

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths to draw from."""
        return (self.length,) if isinstance(self.length, int) else self.length


@dataclass
class TaskResult:
    """The trained model, in evaluation mode, and its way there.

    Attributes:
        model: trained.
        losses: nats per query, of every step.
        s: SSMax's s of all layers and heads, of every step; empty without.
        seconds: of training.
    """

    model: GPT
    losses: list[float] = field(default_factory=list)
    s: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0


def task_config(task: Task, length: int = 64, **changes) -> GPTConfig:
    """A decoder of two layers, two heads and width 64 whose context holds `length` items and the queries.

    Args:
        task: whose vocabulary it has.
        length: items before the queries.
        changes: of any field of `GPTConfig`.
    """
    small = GPTConfig(
        vocab_size=task.vocab_size,
        n_ctx=length + task.queries,
        n_layer=2,
        n_head=2,
        n_embd=64,
        norm="rmsnorm",
        bias=False,
        init_std=0.125,
        position="none",
    )
    return dataclasses.replace(small, **changes)


def train_on_task(
    config: GPTConfig,
    task: Task,
    settings: TaskSettings | None = None,
    model: GPT | None = None,
    progress: bool = False,
) -> TaskResult:
    """Train a decoder on a task. Every step draws new sequences, so there is no training set to remember.

    Args:
        config: of the decoder, such as `task_config(task)`.
        task: to learn.
        settings: default `TaskSettings()`.
        model: go on with it, changed in place; default a fresh `GPT(config)`.
        progress: show a bar.
    """
    settings = settings or TaskSettings()
    torch.manual_seed(settings.seed)
    model = GPT(config) if model is None else model
    generator = torch.Generator().manual_seed(settings.seed)
    optimizer = make_optimizer(model, settings.lr, settings.weight_decay, betas=(0.9, 0.98))
    free = [p for name, p in model.named_parameters() if name.endswith("scale.p")]
    if free:
        for group in optimizer.param_groups:
            group["params"] = [p for p in group["params"] if all(p is not other for other in free)]
        optimizer.add_param_group({"params": free, "weight_decay": 0.0, "factor": FREE_LR})
    scales: list[Tensor] = [p for name, p in model.named_parameters() if name.endswith("scale.s")]
    result, started = TaskResult(model), time.perf_counter()
    model.train()
    with threads_for(settings.batch_size * (max(settings.lengths) + task.queries) * config.n_embd):
        for step in tqdm(range(1, settings.steps + 1), desc=task.family, unit="step", disable=not progress):
            for group in optimizer.param_groups:
                rate = learning_rate(step, settings.steps, settings.lr, settings.warmup)
                group["lr"] = rate * group.get("factor", 1.0)
            length = settings.lengths[0]
            if len(settings.lengths) > 1:
                length = settings.lengths[int(torch.randint(len(settings.lengths), (), generator=generator))]
            batch = task.batch(settings.batch_size, length, generator)
            logits = query_logits(model, batch)  # (B, Q, V)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.answers.flatten().to(model.device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            result.losses.append(loss.item())
            if scales:
                result.s.append(torch.cat(scales).tolist())
    result.seconds = time.perf_counter() - started
    model.eval()
    return result


def query_logits(model: GPT, batch: Batch) -> Tensor:
    """Logits at the queries, (B, Q, V), as `model(tokens)` gives them but cheaper.

    The last layer attends from the queries only. A one-layer model therefore answers in time and memory
    that grow with T, not T x T, and can be asked about a million items.
    """
    tokens = batch.tokens.to(model.device)
    Q, T = batch.answers.shape[1], tokens.shape[1]
    where = model.layout(tokens, 0, None, None)
    x = model.drop(model.embed(tokens, where))
    for block in model.h[:-1]:
        x, _ = block(x, where)
    block = model.h[-1]
    attn = block.attn
    q, k, v = attn.queries_keys_values(block.ln_1(x), where)
    q, rows = q[:, :, -Q:], layout(Q, T - Q, device=x.device)
    mask = attn.alibi_bias(rows, q.dtype) if attn.alibi else rows.mask
    if attn.zero_key:
        q, k, v, mask = add_zero_key(q, k, v, mask, causal=False)
    dropout, grouped = attn.dropout if attn.training else 0.0, attn.kv_heads != attn.n_head
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, enable_gqa=grouped)
    x = x[:, -Q:] + block.drop(attn.c_proj(y.transpose(1, 2).flatten(2)))  # (B, Q, H, D) to (B, Q, C)
    x = x + block.drop(block.mlp(block.ln_2(x)))
    return model.lm_head(model.ln_f(x))


@dataclass(frozen=True)
class Score:
    """How a model answers at one length.

    Attributes:
        accuracy: share of right answers.
        questions: how many were asked.
        by_depth: accuracy by where the needle lies, from the first eighth of the items to the last; None
            where there were no questions.
        needle: attention weight on one item with the query's key, by layer and head, mean over the queries.
        entropy: H / log n of the queries' attention, likewise.
    """

    accuracy: float
    questions: int
    by_depth: list[float | None]
    needle: list[list[float]]
    entropy: list[list[float]]


@torch.inference_mode()
def score(model: GPT, task: Task, length: int, questions: int = 256, seed: int = 1000) -> Score:
    """Ask a model about fresh sequences.

    Args:
        model: in evaluation mode.
        task: to ask about.
        length: items in a sequence.
        questions: at least so many queries in all.
        seed: the same one asks every model the same.

    Raises:
        UserError: the model cannot read that far.
    """
    generator = torch.Generator().manual_seed(seed + length)
    size = max(1, min(32, 16384 // length))  # sequences at once
    rows = torch.arange(length, length + task.queries)
    answered, depths, needles, entropies = [], [], [], []
    for _ in range(-(-questions // (task.queries * size))):
        batch = task.batch(size, length, generator)
        answered.append(query_logits(model, batch).argmax(dim=-1).cpu() == batch.answers)
        depths.append(batch.needles / length * DEPTHS)
        stats = attention_stats(model, batch.tokens, rows=rows, needles=batch.needles.clamp(min=0))
        found = [layer.needle for layer in stats if layer.needle is not None]  # of all, as needles are given
        needle = torch.stack(found).cpu().transpose(1, 2)  # (layers, H, B, Q)
        needles.append(needle[:, :, batch.needles >= 0])
        entropies.append(torch.stack([layer.normalized for layer in stats]).cpu())
    right, depth = torch.cat(answered).flatten(), torch.cat(depths).flatten()
    by_depth = []
    for part in range(DEPTHS):
        chosen = right[(depth >= part) & (depth < part + 1)]
        by_depth.append(float(chosen.double().mean()) if len(chosen) else None)
    needle = torch.cat(needles, dim=2).mean(dim=2)  # (layers, H)
    entropy = torch.cat(entropies, dim=1).mean(dim=(1, 3))  # (layers, B, H, Q) to (layers, H)
    return Score(float(right.double().mean()), len(right), by_depth, needle.tolist(), entropy.tolist())
