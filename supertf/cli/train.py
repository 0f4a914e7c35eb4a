"""`supertf train`: a decoder from two token files, with the original project's flags and a few more."""

import argparse
import dataclasses
import math
import os
import statistics
import sys
from typing import TYPE_CHECKING, Any

from supertf.cli.main import boolean, positive_int, print_result, seed
from supertf.errors import UserError
from supertf.model import ATTENTIONS, POSITIONS, PRESETS, GPTConfig, preset

if TYPE_CHECKING:
    from supertf.training import TrainResult, TrainSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The original project's flags, then ours."""
    add = parser.add_argument
    add("--train_data", default="train.bin", help="token file of `supertf data`")
    add("--test_data", default="validation.bin", help="token file for the validation loss")
    add("--size", "--preset", dest="preset", choices=tuple(PRESETS), default="lab", help="shape of the model")
    add("--ssmax", type=boolean, metavar="BOOL", help="True: --attention ssmax; False: softmax")
    add("--use_pos_enc", type=boolean, metavar="BOOL", help="True: --position sinusoidal; False: none")
    add("--wandb", type=boolean, default=False, metavar="BOOL", help="also log to Weights & Biases")
    add("--batch_size", type=positive_int, default=16, help="windows per micro-batch and process")
    add("--generating_step", type=int, default=0, help="steps between samples of text; 0: none")
    add("--validation_step", type=int, default=100, help="steps between validations; 0: only at the end")
    add("--save_model", type=int, default=100, help="steps between checkpoints; 0: best and end only")
    add("--max_len", type=positive_int, help="tokens per window, and the model's context (default: preset's)")
    add("--epoch", type=positive_int, default=1, help="passes over the training windows")
    add("--lr", type=float, help="peak learning rate (default: 1e-3 for lab, the original's 5e-5 for others)")
    add("--vocab_size", type=positive_int, help="of the model (default: the token file's)")
    add("--attention", choices=ATTENTIONS, help="how logits scale with the visible keys (default: preset's)")
    add("--position", choices=POSITIONS, help="position encoding (default: preset's)")
    add("--steps", type=positive_int, help="optimizer steps, instead of epochs")
    add("--warmup", type=int, help="steps to the peak (default: a twentieth of all, at most 1000)")
    add("--weight_decay", type=float, default=0.1, help="of matrices; vectors never decay")
    add("--clip", type=float, default=1.0, help="largest gradient norm; 0: no clipping")
    add("--grad_accumulation", type=positive_int, default=1, help="micro-batches per step")
    add("--bos", type=boolean, default=True, metavar="BOOL", help="begin windows with the end-of-text token")
    add("--seed", type=seed, default=0, help="of weights, order and dropout")
    add("--output_dir", default="runs/train", help="folder for metrics and checkpoints")
    add("--resume", action="store_true", help="go on from the last checkpoint in --output_dir")
    add("--device", help="cpu, cuda, cuda:1 or mps (default: the best there is)")
    add("--precision", help="fp32, bf16 or fp16 (default: what suits the device)")
    add("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Train; 130 when Ctrl-C ended it early (everything is saved then)."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from supertf.data import TokenFile
    from supertf.device import pick_device_dtype
    from supertf.training import open_data, train

    train_file = TokenFile(args.train_data)
    config = model_config(args, train_file.vocab_size)
    train_file, validation_file = open_data(config, train_file, args.test_data)
    settings = train_settings(args, config, train_file)
    print(f"training on {pick_device_dtype(args.device, args.precision)[2]}", file=sys.stderr)

    def show(metrics: dict[str, Any]) -> None:
        if "sample" in metrics:
            tqdm.write(f"step {metrics['step']}: {metrics['sample']!r}", file=sys.stderr)

    result = train(
        config, train_file, validation_file, settings, args.output_dir, resume=args.resume, on_metrics=show
    )
    state = PartialState()
    if state.is_main_process:
        report(result, args)
    code = 130 if result.interrupted else 0
    if state.num_processes > 1:
        leave(code)
    return code


def report(result: "TrainResult", args: argparse.Namespace) -> None:
    """Print the run's figures."""
    speeds = [metrics["tokens_per_second"] for metrics in result.metrics]
    figures = {
        "steps": result.step,
        "parameters": result.model.num_parameters(),
        "loss": result.metrics[-1]["loss"] if result.metrics else None,  # a finished run may have lost them
        "best_validation_loss": result.best_loss if math.isfinite(result.best_loss) else None,
        "seconds": result.seconds,
        "tokens_per_second": statistics.median(speeds) if speeds else None,
        "interrupted": result.interrupted,
        "run": args.output_dir,
    }
    print_result(figures, args.json)
    if result.interrupted:
        print(f"interrupted after step {result.step}; --resume goes on from there", file=sys.stderr)


def leave(code: int) -> None:
    """End this process at once, its files written and its output flushed.

    DistributedDataParallel keeps gloo's threads alive after the process group is destroyed. One that
    drops a tensor while the interpreter shuts down aborts the process, and with it a finished run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def model_config(args: argparse.Namespace, data_vocab_size: int) -> GPTConfig:
    """The preset with what the flags change; `UserError` when two flags contradict each other."""
    changes: dict[str, Any] = {"vocab_size": args.vocab_size or data_vocab_size}
    attention = choose(args.attention, "--attention", args.ssmax, "--ssmax", "ssmax", "softmax")
    position = choose(args.position, "--position", args.use_pos_enc, "--use_pos_enc", "sinusoidal", "none")
    if attention is not None:
        changes["attention"] = attention
    if position is not None:
        changes["position"] = position
    if args.max_len is not None:
        changes["n_ctx"] = args.max_len
    return preset(args.preset, **changes)


def choose(
    named: str | None, name: str, switch: bool | None, switch_name: str, on: str, off: str
) -> str | None:
    """What a named option and the original's switch for it say together; None when neither is given."""
    if switch is None:
        return named
    meant = on if switch else off
    agrees = named is None or named == meant or (switch and named.startswith(f"{on}_"))  # ssmax_bias, say
    if not agrees:
        raise UserError(
            f"{switch_name} {switch} means {name} {meant}, but {name} is {named}: give one of them"
        )
    return named or meant


def train_settings(args: argparse.Namespace, config: GPTConfig, train_file: Any) -> "TrainSettings":
    """The settings that the flags describe; epochs become steps, those done by a run to resume included."""
    from supertf.data import Windows
    from supertf.model import checkpoint
    from supertf.training import TrainSettings, data_position, window_order

    settings = TrainSettings(
        steps=args.steps or 1,
        batch_size=args.batch_size,
        grad_accumulation=args.grad_accumulation,
        bos=args.bos,
        lr=args.lr if args.lr is not None else (1e-3 if args.preset == "lab" else 5e-5),
        warmup=args.warmup,
        weight_decay=args.weight_decay,
        clip=args.clip,
        seed=args.seed,
        validate_every=args.validation_step,
        sample_every=args.generating_step,
        save_every=args.save_model,
        device=args.device,
        precision=args.precision,
        tracker="wandb" if args.wandb else None,
    )
    if args.steps:
        return settings
    windows = Windows(train_file, config.n_ctx, bos_id=train_file.tokenizer.eot_token if args.bos else None)
    step = windows_read = 0
    if args.resume and checkpoint.is_run(args.output_dir):
        state = checkpoint.verify(checkpoint.locate(args.output_dir, prefer="last"), ("config.json",))
        step, (windows_read, _) = state["step"], data_position(state, window_order(windows, settings))
    per_step = args.batch_size * args.grad_accumulation * int(os.environ.get("WORLD_SIZE", 1))
    left = max(0, args.epoch * len(windows) - windows_read)
    return dataclasses.replace(settings, steps=step + math.ceil(left / per_step))
