"""The folder of one training run: metrics as JSON lines, checkpoints, and how a run goes on from them."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor

from supertf.data import Windows
from supertf.errors import UserError
from supertf.files import atomic_path
from supertf.model import is_run, locate
from supertf.training import checkpoint
from supertf.training.checkpoint import Checkpoint
from supertf.training.settings import TrainResult, TrainSettings
from supertf.training.sharding import gathered, load_weights

METRICS = "metrics.jsonl"


class RunFolder:
    """Where a run writes; with `path` None it writes nothing. Only the main process touches files."""

    def __init__(
        self,
        path: str | Path | None,
        accelerator: Accelerator,
        settings: TrainSettings,
        windows: Windows,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.accelerator = accelerator
        self.settings = {**dataclasses.asdict(settings), "processes": accelerator.num_processes}
        self.train_file = windows.file
        self.order = window_order(windows, settings)

    def start(self, result: TrainResult, optimizer: AcceleratedOptimizer, resume: bool) -> None:
        """Begin a new run, or put model, optimizer, random states and `result` back to the last checkpoint.

        A run killed before its first checkpoint starts again.

        Raises:
            UserError: a new run would overwrite another, or the checkpoint is damaged or of another model or
                other data.
        """
        if self.path is None:
            if resume:
                raise UserError("there is nothing to resume without an output_dir")
            return
        if not resume and (is_run(self.path) or (self.path / METRICS).exists()):
            raise UserError(f"{self.path} already holds a run: resume it, or choose another folder")
        if resume and is_run(self.path):
            saved = checkpoint.load(self.path)
            self._check(saved, result)
            self._restore(saved, result, optimizer)
            done = f"step {result.step} of {self.settings['steps']}"
            self._note(f"resuming {saved.folder} after {done}")
        elif resume:
            self._note(f"{self.path} has no checkpoint yet: starting from the beginning")
        self.accelerator.wait_for_everyone()  # every process has looked before the first file is written
        if self.accelerator.is_main_process:
            result.metrics = cut_metrics(self.path / METRICS, result.step)

    def log(self, metrics: dict[str, Any]) -> None:
        """Append one step's metrics to the file, and its numbers to the tracker."""
        if not self.accelerator.is_main_process:
            return
        if not math.isfinite(metrics["grad_norm"]):  # a step that the fp16 scaler skipped
            metrics = {**metrics, "grad_norm": None}  # JSON has no infinity
        if self.path is not None:
            try:
                with open(self.path / METRICS, "a", encoding="utf-8") as file:
                    file.write(json.dumps(metrics) + "\n")
            except OSError as error:
                raise UserError(
                    f"could not write {self.path / METRICS}: {error.strerror}; {self.what_is_kept()}"
                ) from error
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        self.accelerator.log(numbers, step=metrics["step"])

    def save(self, result: TrainResult, optimizer: AcceleratedOptimizer, best: bool) -> None:
        """Write a checkpoint of this moment, once for all processes."""
        if self.path is None:
            return
        random = gather_random_states(self.accelerator)
        model = gathered(result.model)
        moments = checkpoint.optimizer_tensors(result.model, optimizer.optimizer)
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            validated = math.isfinite(result.best_loss)
            state = {
                "step": result.step,
                "data": {"windows_read": result.windows_read, **self.order},
                "best_loss": result.best_loss if validated else None,  # JSON has no infinity
                "seconds": result.seconds,
                "scaler": None if scaler is None else scaler.state_dict(),
                "settings": self.settings,
                "train_sha256": self.train_file.manifest["sha256"],
            }
            tokenizer = self.train_file.tokenizer
            checkpoint.save(self.path, model, moments, random, state, tokenizer, best)
        self.accelerator.wait_for_everyone()

    def what_is_kept(self) -> str:
        """For messages: which checkpoint is there after a failure."""
        if self.path is None or not is_run(self.path):
            return "there is no checkpoint yet"
        return f"the checkpoint {locate(self.path, prefer='last')} is kept"

    def _check(self, saved: Checkpoint, result: TrainResult) -> None:
        """Refuse a checkpoint of another model or other data; say which settings are others."""
        wanted = result.model.config.to_dict()
        different = [
            f"{name} is {saved.config.get(name)} there, {value} here"
            for name, value in wanted.items()
            if saved.config.get(name) != value
        ]
        if different:
            raise UserError(
                f"{saved.folder} is a checkpoint of another model ({'; '.join(different)}): train with its "
                "settings, or choose another folder"
            )
        if saved.state["train_sha256"] != self.train_file.manifest["sha256"]:
            raise UserError(
                f"{saved.folder} was trained on other tokens than {self.train_file.path}: give the same "
                "file, or choose another folder"
            )
        before = saved.state["settings"]
        changed = [
            f"{name} {value} instead of {before.get(name)}"
            for name, value in self.settings.items()
            if value != before.get(name)
        ]
        if changed:
            self._note(f"resuming with other settings: {', '.join(changed)}")

    def _restore(self, saved: Checkpoint, result: TrainResult, optimizer: AcceleratedOptimizer) -> None:
        model, accelerator = result.model, self.accelerator
        if model.config.tie_head:
            saved.model["lm_head.weight"] = saved.model["wte.weight"]
        load_weights(model, saved.model)
        checkpoint.load_optimizer(model, optimizer.optimizer, saved.optimizer)
        if accelerator.scaler is not None and saved.state["scaler"] is not None:
            accelerator.scaler.load_state_dict(saved.state["scaler"])
        set_random_states(accelerator, saved.random)
        result.step = saved.state["step"]
        result.windows_read, new_epoch = data_position(saved.state, self.order)
        if new_epoch:
            self._note("the windows are cut or shuffled otherwise than before: a new epoch begins here")
        result.best_loss = math.inf if saved.state["best_loss"] is None else saved.state["best_loss"]
        result.seconds = saved.state["seconds"]

    def _note(self, text: str) -> None:
        if self.accelerator.is_main_process:
            print(text, file=sys.stderr)


def cut_metrics(path: Path, step: int) -> list[dict[str, Any]]:
    """Metrics up to `step`, also in the file: later lines are of steps that will be run again."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                metrics = json.loads(line)
            except json.JSONDecodeError:  # cut short by a kill
                continue
            if metrics["step"] <= step:
                kept.append(metrics)
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(metrics) + "\n" for metrics in kept), encoding="utf-8")
    return kept


def window_order(windows: Windows, settings: TrainSettings) -> dict[str, int]:
    """All that makes the windows what they are and orders them."""
    return {
        "windows": len(windows),
        "length": windows.length,
        "stride": windows.stride,
        "bos": int(settings.bos),
        "seed": settings.seed,
    }


def data_position(state: dict[str, Any], order: dict[str, int]) -> tuple[int, bool]:
    """Where a resumed run goes on in its data.

    Args:
        state: of the checkpoint.
        order: the present `window_order`.

    Returns:
        How many windows, in the present order, come before the next one; and whether they had another order
        before, of which an epoch begun is not finished: the next begins.
    """
    before = state.get("data")
    if before is None:  # a checkpoint from before this was kept
        then = state["settings"]
        read = state["step"] * then["batch_size"] * then["grad_accumulation"] * then["processes"]
        changes = {name: int(then[name]) for name in ("bos", "seed", "length") if then[name] is not None}
        before = {"windows_read": read, **order, **changes}
    if before == {"windows_read": before["windows_read"], **order}:
        return before["windows_read"], False
    return math.ceil(before["windows_read"] / before["windows"]) * order["windows"], True


def gather_random_states(accelerator: Accelerator) -> dict[str, Tensor]:
    """States of torch's generators, which initialise weights and drop units, a row per process, uint8."""
    device = accelerator.device
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states["device"] = torch.get_device_module(device).get_rng_state()
    return {name: accelerator.gather(state[None].to(device)).cpu() for name, state in states.items()}


def set_random_states(accelerator: Accelerator, states: dict[str, Tensor]) -> None:
    """Put this process's states back; a process or device that was not there before keeps its seed."""
    rank, device = accelerator.process_index, accelerator.device
    if rank < len(states["cpu"]):
        torch.set_rng_state(states["cpu"][rank].clone())  # of a row of others PyTorch crashes
    if device.type != "cpu" and rank < len(states.get("device", ())):
        torch.get_device_module(device).set_rng_state(states["device"][rank].clone())
