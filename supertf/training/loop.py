"""Train a decoder: `train` is the whole loop, from a config and two token files to a model.

It is written with Hugging Face `accelerate`, which places the model, runs mixed precision, adds up
gradients over micro-batches and processes (`torchrun --nproc_per_node 2 -m supertf.cli train ...`) and
talks to trackers; what a step does stays in sight.
"""

import contextlib
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from torch import Tensor
from tqdm.auto import tqdm

from supertf.data import TokenFile, Windows, batches, unused_ids
from supertf.device import pick_device_dtype, threads_for
from supertf.errors import UserError
from supertf.model import GPT, GPTConfig, generate
from supertf.training.interrupt import StopRequest
from supertf.training.optimizer import learning_rate, make_optimizer, mean_s
from supertf.training.out_of_memory import memory_explained
from supertf.training.run_folder import RunFolder
from supertf.training.settings import TrainResult, TrainSettings
from supertf.training.sharding import gathered, shard, whole
from supertf.training.sliced_loss import sliced_head


def train(
    config: GPTConfig,
    train_tokens: TokenFile | str | Path,
    validation_tokens: TokenFile | str | Path,
    settings: TrainSettings | None = None,
    output_dir: str | Path | None = None,
    *,
    resume: bool = False,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
    on_step: Callable[[int, GPT], None] | None = None,
) -> TrainResult:
    """Train a fresh decoder to predict the next token, or resume a run.

    Ctrl-C or SIGTERM ends the run after the current step, saves, and returns with `interrupted` set; a
    second one stops at once. On a CPU a resumed run ends with the same weights, bit for bit, as one never
    stopped. Resumed with another batch size, accumulation or number of processes, it still reads every
    window once per epoch; with windows cut or shuffled otherwise, it begins a new epoch.

    Windows run across the ends of documents, an end-of-text token between, as GPT-2's did: attention is
    not restarted there, though `GPT.forward` could with `segments`.

    Args:
        config: of the decoder.
        train_tokens, validation_tokens: token files or their paths, from one run of `prepare`.
        settings: default `TrainSettings()`.
        output_dir: folder for `metrics.jsonl` and checkpoints; None: nothing is written.
        resume: go on with the run in `output_dir`.
        on_metrics: gets each step's metrics, for a live plot for example.
        on_step: gets a step's number and the model as that step left it, in evaluation mode, to look at and
            not to change; first, `on_step(0, model)`, what training starts from.

    Returns:
        The trained model with its metrics.

    Raises:
        UserError: data and model do not fit, a token file was changed, the folder holds another run, a
            checkpoint is damaged or cannot be written, or the loss stops being a finite number (the last
            checkpoint is kept).

    Example:
        >>> import tempfile
        >>> from supertf import GPTConfig, TrainSettings, load_tokenizer, train
        >>> from supertf.data import prepare
        >>> sums = [f"{a} plus {b} makes {a + b}." for a in range(9) for b in range(9)]
        >>> sizes = {"max_length": 16, "stride": 16, "progress": False}
        >>> files = prepare(sums, load_tokenizer("bytes"), tempfile.mkdtemp(), **sizes)
        >>> config = GPTConfig(vocab_size=257, n_ctx=16, n_layer=1, n_head=2, n_embd=16)
        >>> settings = TrainSettings(steps=20, lr=1e-2, device="cpu", progress=False)
        >>> train(config, *files, settings).best_loss < 5.55  # nats; log 257 is a guess
        True
    """
    settings = settings or TrainSettings()
    with memory_explained(config, settings), lost_processes_explained():
        return run_training(
            config, train_tokens, validation_tokens, settings, output_dir, resume, on_metrics, on_step
        )


@contextlib.contextmanager
def lost_processes_explained() -> Iterator[None]:
    """Turn what a process says whose partners are gone, killed say, into one clear line."""
    try:
        yield
    except RuntimeError as error:
        distributed = torch.distributed.is_available() and isinstance(error, torch.distributed.DistError)
        if not distributed and "gloo" not in str(error):
            raise
        raise UserError(
            "another process of this training is gone; the checkpoints written so far are kept, and the same "
            "command with --resume goes on from the last"
        ) from error


def run_training(
    config: GPTConfig,
    train_tokens: TokenFile | str | Path,
    validation_tokens: TokenFile | str | Path,
    settings: TrainSettings,
    output_dir: str | Path | None,
    resume: bool,
    on_metrics: Callable[[dict[str, Any]], None] | None,
    on_step: Callable[[int, GPT], None] | None,
) -> TrainResult:
    """What `train` does."""
    if settings.shard and on_step is not None:
        raise UserError("who watches a training needs all of the model in one process: train without shard")
    train_file, validation_file = open_data(config, train_tokens, validation_tokens)
    length = settings.length or config.n_ctx
    bos_id = train_file.tokenizer.eot_token if settings.bos else None
    windows = Windows(train_file, length, bos_id=bos_id)
    validation = Windows(validation_file, length, stride=length, bos_id=bos_id)

    accelerator = make_accelerator(settings, output_dir)
    torch.manual_seed(settings.seed)
    bare = GPT(config).to(accelerator.device)
    sharded = settings.shard and accelerator.num_processes > 1
    if sharded:
        shard(bare, accelerator.num_processes)
    optimizer = make_optimizer(bare, settings.lr, settings.weight_decay)
    model = bare if sharded else accelerator.prepare(bare)
    optimizer = accelerator.prepare(optimizer)
    torch.manual_seed(settings.seed + accelerator.process_index)  # each process drops out its own units
    result = TrainResult(bare)
    run = RunFolder(output_dir, accelerator, settings, windows)
    run.start(result, optimizer, resume)
    data = micro_batches(windows, settings, accelerator, result.windows_read)
    windows_per_step = settings.batch_size * settings.grad_accumulation * accelerator.num_processes

    def look() -> None:
        if on_step is not None and accelerator.is_main_process:
            bare.eval()
            on_step(result.step, bare)
            bare.train()

    look()
    model.train()
    threads = threads_for(settings.batch_size * length * config.n_embd)
    with threads, progress_bar(result.step, settings, accelerator) as bar, StopRequest() as stop:
        for step in range(result.step + 1, settings.steps + 1):
            started = time.perf_counter()
            lr = learning_rate(step, settings.steps, settings.lr, settings.warmup_steps)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses = []
            for inputs, targets in itertools.islice(data, settings.grad_accumulation):  # (B, T) each
                with accelerator.accumulate(model):  # gradients add up; the last micro-batch takes the step
                    with accelerator.autocast(), sliced_head(bare):
                        loss = model(inputs, targets).loss
                    accelerator.backward(loss)
                    if accelerator.sync_gradients:
                        norm = accelerator.clip_grad_norm_(model.parameters(), settings.clip or math.inf)
                        norm = whole(norm)
                    optimizer.step()
                    optimizer.zero_grad()
                losses.append(loss.detach())
            loss = accelerator.reduce(torch.stack(losses).mean(), "mean").item()
            duration = time.perf_counter() - started

            check_finite(step, loss, float(norm), accelerator, run)
            result.step, result.seconds = step, result.seconds + duration
            result.windows_read += windows_per_step
            metrics = {"step": step, "loss": loss, "lr": lr, "grad_norm": float(norm)}
            metrics |= {"tokens_per_second": windows_per_step * length / duration, "seconds": result.seconds}
            if (s := mean_s(bare)) is not None:
                metrics["mean_s"] = s
            is_best = False
            if due(step, settings.validate_every) or step == settings.steps:
                metrics["validation_loss"] = validation_loss(bare, validation, settings, accelerator)
                is_best = metrics["validation_loss"] < result.best_loss
                result.best_loss = min(metrics["validation_loss"], result.best_loss)
                bar.set_postfix_str(f"validation loss {metrics['validation_loss']:.3f}", refresh=False)
            if due(step, settings.sample_every):
                metrics["sample"] = sample(bare, train_file, settings)
            bar.set_description(f"loss {loss:.3f}", refresh=False)
            bar.update()
            result.metrics.append(metrics)
            run.log(metrics)
            if on_metrics is not None and accelerator.is_main_process:
                on_metrics(metrics)
            look()

            if stop.requested:
                accelerator.set_trigger()
            result.interrupted = accelerator.check_trigger()  # the same answer in every process
            last = result.interrupted or step == settings.steps
            if is_best or last or due(step, settings.save_every):
                run.save(result, optimizer, is_best)
            if last:
                break
    result.model = gathered(accelerator.unwrap_model(model, keep_fp32_wrapper=False)).eval()
    accelerator.end_training()
    return result


def due(step: int, every: int) -> bool:
    """Whether something that happens `every` so many steps (0: never) happens at `step`."""
    return every > 0 and step % every == 0


def open_data(
    config: GPTConfig, train_tokens: TokenFile | str | Path, validation_tokens: TokenFile | str | Path
) -> tuple[TokenFile, TokenFile]:
    """Both token files, checked against their hashes, each other and the model's vocabulary."""
    files = [
        tokens if isinstance(tokens, TokenFile) else TokenFile(tokens)
        for tokens in (train_tokens, validation_tokens)
    ]
    for file in files:
        file.check_vocabulary(config.vocab_size)
        file.verify()
    if files[0].manifest["tokenizer"] != files[1].manifest["tokenizer"]:
        raise UserError(
            f"{files[0].path} and {files[1].path} were written with different tokenizers: "
            "make both in one run of `supertf data`"
        )
    return files[0], files[1]


def make_accelerator(settings: TrainSettings, output_dir: str | Path | None) -> Accelerator:
    """An `Accelerator` for the device and precision asked for; fp16 brings its gradient scaler."""
    device, dtype, _ = pick_device_dtype(settings.device, settings.precision)
    if settings.tracker is not None and settings.tracker not in get_available_trackers():
        raise UserError(
            f"tracker {settings.tracker} is not installed: `pip install {settings.tracker}`, or do without"
        )
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        # accelerate keeps device and precision for the life of a process; a notebook trains more than once
        AcceleratorState._reset_state(reset_partial_state=True)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision={torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype],
        gradient_accumulation_steps=settings.grad_accumulation,
        log_with=settings.tracker,
        project_dir=output_dir or ".",
    )
    if settings.tracker is not None:
        start_tracker(accelerator, settings.tracker, settings)
    return accelerator


def start_tracker(accelerator: Accelerator, name: str, settings: TrainSettings) -> None:
    """Begin logging to the tracker; `UserError` when it does not start, without a login or network say."""
    try:
        accelerator.init_trackers("supertf", config=dataclasses.asdict(settings))
    except (OSError, RuntimeError, ValueError, getattr(sys.modules.get(name), "Error", OSError)) as error:
        raise UserError(
            f"tracker {name} did not start ({type(error).__name__}: {error}): log in to it or go online "
            "(wandb: `wandb login`, or WANDB_MODE=offline), or train without"
        ) from error


def progress_bar(step: int, settings: TrainSettings, accelerator: Accelerator) -> tqdm:
    """One bar over all steps, on the main process."""
    hidden = not (settings.progress and accelerator.is_main_process)
    return tqdm(total=settings.steps, initial=step, unit="step", disable=hidden)


def micro_batches(
    windows: Windows, settings: TrainSettings, accelerator: Accelerator, windows_read: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets) for this process after `windows_read` windows of all processes.

    Micro-batches are dealt to the processes in turn, so two processes see in one step what one process
    sees with twice the accumulation.
    """
    start = windows_read + accelerator.process_index * settings.batch_size
    every = batches(windows, settings.batch_size, settings.seed, start)
    for inputs, targets in itertools.islice(every, 0, None, accelerator.num_processes):
        yield inputs.to(accelerator.device), targets.to(accelerator.device)


@torch.no_grad()
def validation_loss(model: GPT, windows: Windows, settings: TrainSettings, accelerator: Accelerator) -> float:
    """Plain cross-entropy in nats per token on a fixed set of windows, which the processes share out."""
    count = min(settings.validation_windows, len(windows))
    chosen = [i * len(windows) // count for i in range(count)]
    rank, processes = accelerator.process_index, accelerator.num_processes
    total = torch.zeros((), device=accelerator.device)
    model.eval()
    for start in range(0, count, settings.batch_size * processes):
        several = chosen[start : start + settings.batch_size * processes]
        mine = several[rank::processes]
        # every process takes part, also one for which nothing is left: a split model's parts meet
        rows = torch.stack([windows[i] for i in mine or several[:1]]).to(accelerator.device)  # (B, T + 1)
        loss = model(rows[:, :-1], rows[:, 1:]).loss
        total += loss * len(mine)
    model.train()
    return accelerator.reduce(total, "sum").item() / count


def sample(model: GPT, file: TokenFile, settings: TrainSettings) -> str:
    """Text that the model writes after an end-of-text token, at temperature 0.8."""
    model.eval()
    new = min(settings.sample_tokens, model.config.n_ctx)
    unused = unused_ids(file.tokenizer, model.config.vocab_size)
    start = [file.tokenizer.eot_token]
    tokens = generate(model, start, new, temperature=0.8, seed=settings.seed, exclude=unused)
    model.train()
    return file.tokenizer.decode(tokens)


def check_finite(step: int, loss: float, norm: float, accelerator: Accelerator, run: RunFolder) -> None:
    """Stop on a loss or gradient that is no number; infinite fp16 gradients the scaler skips by itself."""
    if not math.isfinite(loss) or not (math.isfinite(norm) or accelerator.scaler is not None):
        raise UserError(
            f"training stopped at step {step}: the loss is {loss} and the gradient norm {norm}; "
            f"{run.what_is_kept()}; try a smaller lr, a longer warm-up or fp32"
        )
