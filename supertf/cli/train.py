"""`supertf train`: a decoder from two token files, or by a recipe; with the original project's flags."""

import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option, Typer

from supertf.cli.options import SEEDS, Bool, Device, Json, boolean, one_of
from supertf.cli.parsing import Command
from supertf.cli.printing import print_result
from supertf.errors import UserError
from supertf.model import ATTENTIONS, POSITIONS, PRESETS

if TYPE_CHECKING:
    from supertf.data import TokenFile
    from supertf.model import GPT, GPTConfig
    from supertf.training import Recipe, TrainResult, TrainSettings

SETTINGS = {  # options that are settings of the same or another name
    **{
        name: name
        for name in ("batch_size", "grad_accumulation", "bos", "lr", "warmup", "weight_decay", "clip", "seed")
    },
    "steps": "steps",
    "validation_step": "validate_every",
    "generating_step": "sample_every",
    "save_model": "save_every",
}
OF_A_RECIPE = ("size", "ssmax", "use_pos_enc", "attention", "position", "max_len", "vocab_size", "epoch")

app = Typer()


@app.command(cls=Command)
def train(
    context: Context,
    # the original project's options
    train_data: Annotated[str, Option(help="token file of `supertf data`")] = "train.bin",
    test_data: Annotated[str, Option(help="token file for the validation loss")] = "validation.bin",
    size: Annotated[str, Option("--size", "--preset", **one_of(PRESETS), help="shape of the model")] = "lab",
    ssmax: Annotated[
        Bool, Option(parser=boolean, metavar="BOOL", help="True: --attention ssmax; False: softmax")
    ] = None,
    use_pos_enc: Annotated[
        Bool, Option(parser=boolean, metavar="BOOL", help="True: --position sinusoidal; False: none")
    ] = None,
    wandb: Annotated[
        Bool, Option(parser=boolean, metavar="BOOL", help="also log to Weights & Biases")
    ] = False,
    batch_size: Annotated[int, Option(min=1, help="windows per micro-batch and process")] = 16,
    generating_step: Annotated[int, Option(help="steps between samples of text; 0: none")] = 0,
    validation_step: Annotated[int, Option(help="steps between validations; 0: only at the end")] = 100,
    save_model: Annotated[int, Option(help="steps between checkpoints; 0: best and end only")] = 100,
    max_len: Annotated[
        int | None, Option(min=1, help="tokens per window, and the model's context (default: preset's)")
    ] = None,
    epoch: Annotated[int, Option(min=1, help="passes over the training windows")] = 1,
    lr: Annotated[
        float | None,
        Option(help="peak learning rate (default: 1e-3 for lab, the original's 5e-5 for others)"),
    ] = None,
    vocab_size: Annotated[int | None, Option(min=1, help="of the model (default: the token file's)")] = None,
    # ours
    recipe: Annotated[
        str | None, Option(help="train by this recipe, see supertf plan; other options change its settings")
    ] = None,
    variant: Annotated[str | None, Option(help="of the recipe (default: its first)")] = None,
    scale: Annotated[float, Option(help="of the recipe: about this share of its weights and tokens")] = 1.0,
    data: Annotated[
        str | None, Option(help="text in the place of the recipe's, as in supertf data: library-docs, say")
    ] = None,
    attention: Annotated[
        str | None,
        Option(**one_of(ATTENTIONS), help="how logits scale with the visible keys (default: preset's)"),
    ] = None,
    position: Annotated[
        str | None, Option(**one_of(POSITIONS), help="position encoding (default: preset's)")
    ] = None,
    steps: Annotated[int | None, Option(min=1, help="optimizer steps, instead of epochs")] = None,
    warmup: Annotated[
        int | None, Option(help="steps to the peak (default: a twentieth of all, at most 1000)")
    ] = None,
    weight_decay: Annotated[float, Option(help="of matrices; vectors never decay")] = 0.1,
    clip: Annotated[float, Option(help="largest gradient norm; 0: no clipping")] = 1.0,
    grad_accumulation: Annotated[int, Option(min=1, help="micro-batches per step")] = 1,
    bos: Annotated[
        Bool, Option(parser=boolean, metavar="BOOL", help="begin windows with the end-of-text token")
    ] = True,
    seed: Annotated[int, Option(**SEEDS, help="of weights, order and dropout")] = 0,
    output_dir: Annotated[str, Option(help="folder for metrics and checkpoints")] = "runs/train",
    resume: Annotated[
        bool, Option("--resume", help="go on from the last checkpoint in --output_dir")
    ] = False,
    device: Device = None,
    precision: Annotated[
        str | None, Option(help="fp32, bf16 or fp16 (default: what suits the device)")
    ] = None,
    shard: Annotated[
        bool, Option("--shard", help="several processes share one model, split over them (FSDP2)")
    ] = False,
    json: Json = False,
) -> int:
    """Train a decoder on token files, or by a recipe. Ctrl-C ends it early, with everything saved."""
    from accelerate import PartialState
    from tqdm.auto import tqdm

    from supertf.data import TokenFile
    from supertf.device import pick_device_dtype
    from supertf.model import preset
    from supertf.training import TrainSettings, open_data
    from supertf.training import recipe as named
    from supertf.training import train as train_model

    options = context.params
    given = {name for name in options if "COMMANDLINE" in str(context.get_parameter_source(name))}
    chosen: dict[str, Any] = {
        "shard": shard,
        "device": device,
        "precision": precision,
        "tracker": "wandb" if wandb else None,
    }
    found = None
    if recipe is not None:
        found = named(recipe, scale)
        if taken := [name for name in OF_A_RECIPE if name in given]:
            raise UserError(f"--{taken[0]} is what the recipe {recipe} says: leave it out")
        config = found.of(variant)
        chosen |= {field: options[name] for name, field in SETTINGS.items() if name in given}
        settings = dataclasses.replace(found.for_processes(world_size()), **chosen)
        paths = (train_data, test_data) if "train_data" in given else recipe_files(found, output_dir, data)
        config = dataclasses.replace(config, vocab_size=TokenFile(paths[0]).vocab_size)
        train_file, validation_file = open_data(config, *paths)
    else:
        if taken := [name for name in ("variant", "scale", "data") if name in given]:
            raise UserError(f"--{taken[0]} is for a recipe: name one with --recipe")
        train_file = TokenFile(train_data)
        shape: dict[str, Any] = {
            "attention": choose("--attention", attention, "--ssmax", ssmax, "ssmax", "softmax"),
            "position": choose("--position", position, "--use_pos_enc", use_pos_enc, "sinusoidal", "none"),
            "n_ctx": max_len,
        }
        shape = {name: value for name, value in shape.items() if value is not None}
        config = preset(size, vocab_size=vocab_size or train_file.vocab_size, **shape)
        train_file, validation_file = open_data(config, train_file, test_data)
        chosen |= {field: options[name] for name, field in SETTINGS.items()}
        chosen |= {"lr": lr if lr is not None else (1e-3 if size == "lab" else 5e-5), "steps": steps or 1}
        settings = TrainSettings(**chosen)
        if steps is None:
            done = output_dir if resume else None
            settings = dataclasses.replace(
                settings, steps=steps_of_epochs(epoch, train_file, config, settings, done)
            )
    print(f"training on {pick_device_dtype(device, precision)[2]}", file=sys.stderr)

    def show(metrics: dict[str, Any]) -> None:
        if "sample" in metrics:
            tqdm.write(f"step {metrics['step']}: {metrics['sample']!r}", file=sys.stderr)

    watch = None if found is None or not found.looks else looks(found, settings, validation_file, output_dir)
    result = train_model(
        config,
        train_file,
        validation_file,
        settings,
        output_dir,
        resume=resume,
        on_metrics=show,
        on_step=watch,
    )
    state = PartialState()
    if state.is_main_process:
        report(result, output_dir, json)
    code = 130 if result.interrupted else 0
    if state.num_processes > 1:
        leave(code)
    return code


def world_size() -> int:
    """Processes that train together, as `torchrun` and `accelerate launch` say it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def recipe_files(recipe: "Recipe", output_dir: str, data: str | None) -> tuple[Path, Path]:
    """The paths of a recipe's token files, beside the run; the first process makes them if need be.

    The others wait for as long as it takes; where the first one fails, who started them ends them.
    """
    from supertf.training import token_files, tokens_are_made

    folder = Path(output_dir) / "data"
    if int(os.environ.get("RANK", 0)) > 0 and not tokens_are_made(folder):
        print(f"waiting for the first process's text in {folder}, which all must share", file=sys.stderr)
        while not tokens_are_made(folder):
            time.sleep(0.2)
    try:
        train, validation = token_files(recipe, folder, data)
    except UserError as error:
        hint = "" if data else f"; offline, --data {recipe.offline} trains on a text that is here"
        raise UserError(f"{error}{hint}") from error
    return train.path, validation.path


def looks(
    recipe: "Recipe", settings: "TrainSettings", validation: "TokenFile", output_dir: str
) -> "Callable[[int, GPT], None]":
    """What looks at the model at moments evenly spaced in log steps, and appends to looks.jsonl what it sees:
    the loss, spikes, what removing weights costs, sinks."""
    import json as encoder

    from supertf.experiments import held_out, log_spaced, look
    from supertf.training import cut_metrics

    due = log_spaced(settings.steps, recipe.looks)
    bos_id = validation.tokenizer.eot_token if settings.bos else None
    rows = held_out(validation, recipe.config.n_ctx + 1, 16, bos_id)
    path = Path(output_dir) / "looks.jsonl"

    def watch(step: int, model: "GPT") -> None:
        if step in due:
            path.parent.mkdir(parents=True, exist_ok=True)
            cut_metrics(path, step - 1)  # a resumed run sees some moments again
            with open(path, "a", encoding="utf-8") as file:
                file.write(encoder.dumps({"step": step, **look(model, rows, settings.seed)}) + "\n")

    return watch


def choose(name: str, named: str | None, switch: str, on: bool | None, true: str, false: str) -> str | None:
    """What a named option and the original's switch for it say together; None when neither is given.

    true, false: what the switch means. Raises `UserError` when they contradict each other.
    """
    if on is None:
        return named
    meant = true if on else false
    agrees = named is None or named == meant or (on and named.startswith(f"{true}_"))  # ssmax_bias, say
    if not agrees:
        raise UserError(f"{switch} {on} means {name} {meant}, but {name} is {named}: give one of them")
    return named or meant


def steps_of_epochs(
    epochs: int, file: "TokenFile", config: "GPTConfig", settings: "TrainSettings", run: str | None
) -> int:
    """Optimizer steps of passes over a token file's windows, those done by a run to resume included."""
    from supertf.data import Windows
    from supertf.model import checkpoint
    from supertf.training import data_position, window_order

    windows = Windows(file, config.n_ctx, bos_id=file.tokenizer.eot_token if settings.bos else None)
    step = windows_read = 0
    if run is not None and checkpoint.is_run(run):
        state = checkpoint.verify(checkpoint.locate(run, prefer="last"), ("config.json",))
        step, (windows_read, _) = state["step"], data_position(state, window_order(windows, settings))
    per_step = settings.batch_size * settings.grad_accumulation * world_size()
    return step + math.ceil(max(0, epochs * len(windows) - windows_read) / per_step)


def report(result: "TrainResult", run: str, json: bool) -> None:
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
        "run": run,
    }
    print_result(figures, json)
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
