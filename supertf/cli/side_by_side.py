"""A model beside what pruning or quantizing makes of it: what `supertf prune` and `quantize` share.

Both are measured on the same held-out text, a text apart from it is there to calibrate with, and the weights
that may be super weights are watched, protected or not.
"""

import contextlib
import math
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from supertf.analysis import perplexity
from supertf.cli.printing import number, print_table
from supertf.cli.subject import Subject
from supertf.data import save_tokenizer
from supertf.errors import UserError
from supertf.model import (
    GPT,
    Coordinate,
    HFTokenizer,
    check,
    check_coordinate,
    generate,
    kind,
    output_projections,
    parse,
    save_model,
    show,
)
from supertf.superweights import (
    PROMPT,
    Spike,
    candidates,
    find_spikes,
    measured,
    published,
    ratio,
    recorded_checks,
    text_loss,
)


class SideBySide:
    """A model, its texts, and the weights that are watched, as the options of both commands say.

    held_out: token ids that the models are measured on. calibration, refitting: windows of others, (tokens,)
    int64 each. protect: weights that are to keep their values. watch: those and every candidate for a super
    weight.
    """

    def __init__(self, args: SimpleNamespace, calibration_windows: int, refit_windows: int = 0):
        self.args, self.windows = args, (calibration_windows, refit_windows)
        self.seconds: dict[str, float] = {}
        every, named = parse_protect(args.protect)
        check_new(args.save)
        self.bar = tqdm(total=6 + sum(map(bool, (*self.windows, args.save))), leave=False)
        with self.step("loading"):
            self.load(every, named)

    def load(self, every: bool, named: list[Coordinate]) -> None:
        """Load the model, read the texts, and find candidates for super weights.

        every: protect all of these; named: protect these, too.
        """
        args = self.args
        self.subject = Subject(args.model, args.tokenizer, args.bos, args.device)
        self.model = self.subject.model
        if args.save and not isinstance(self.model, GPT):
            raise UserError(f"--save writes this lab's models, and {args.model} is read by transformers")
        self.length = self.subject.length(args.length, 512)
        self.prompt = self.subject.encode(args.prompt)
        check(self.model, self.prompt, args.max_new_tokens, 0.0, None, None)
        self.held_out, self.calibration, self.refitting = self.texts()
        self.loss = text_loss(self.held_out, self.length, batch_size=4, bos_id=self.subject.bos_id)
        self.spikes = self.spiking(self.model)
        self.protect = list(dict.fromkeys([*(self.spikes if every else ()), *named]))
        for coordinate in self.protect:
            check_coordinate(output_projections(self.model), coordinate)
        self.watch = list(dict.fromkeys([*self.spikes, *self.protect]))

    def spiking(self, model: nn.Module) -> dict[Coordinate, Spike]:
        """The candidates for super weights that a model, as it is now, shows on the paper's prompt."""
        prompt = self.subject.encode(PROMPT)[: self.model.config.n_ctx]
        return {spike.coordinate: spike for spike in candidates(find_spikes(model, prompt))}

    def texts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The held-out text and, from the tokens that follow it, the windows to calibrate with and refit to.

        A BOS token begins each of these if it begins the model's texts. Raises `UserError` on a text that is
        too short for all.
        """
        args, bos_id = self.args, self.subject.bos_id
        held_out = args.windows * self.length + (bos_id is None)
        room = self.length - (bos_id is not None)  # tokens of a window
        wanted = held_out + sum(self.windows) * room
        ids = torch.as_tensor(self.subject.read(args.data, wanted))
        if len(ids) < wanted:
            raise UserError(
                f"{args.data} has {len(ids)} tokens, and {held_out} are to be held out and "
                f"{wanted - held_out} others to calibrate with: give a longer text, or fewer or shorter "
                "windows"
            )
        windows = ids[held_out:].reshape(-1, room)
        if bos_id is not None:
            windows = torch.cat([windows.new_full((len(windows), 1), bos_id), windows], dim=1)
        calibration, refitting = windows.split(self.windows)
        return ids[:held_out], calibration.flatten(), refitting.flatten()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Show on the bar what is being done, and keep how long it took."""
        self.bar.set_description(name)
        started = time.perf_counter()
        with contextlib.ExitStack() as failed:
            failed.callback(self.bar.close)  # or an error would be printed behind it
            yield
            failed.pop_all()
        self.seconds[name] = time.perf_counter() - started
        self.bar.update()

    def measure(self, model: nn.Module, name: str) -> float:
        """The loss of a model on the held-out text, in nats per token; `UserError` when it is no number."""
        with self.step(f"perplexity, {name}"):
            return measured(model, self.loss, f"of the {name} model")

    def read_first_window(self, model: nn.Module) -> None:
        """Let a model read the beginning of the held-out text."""
        perplexity(model, self.held_out[: self.length + 1], self.length, bos_id=self.subject.bos_id)

    def text(self, model: nn.Module, name: str) -> str:
        """How a model continues the prompt, greedily."""
        with self.step(f"text, {name}"):
            tokens = generate(model, self.prompt, self.args.max_new_tokens, exclude=self.subject.unused)
            return "".join(self.subject.spoken(self.prompt, tokens))

    def compare(
        self, name: str, context: AbstractContextManager[None], model: GPT | None = None
    ) -> tuple[tuple[float, float], tuple[str, str]]:
        """Losses and texts of the model as it is, and then of it (or of another one) in a context."""
        dense, text = self.measure(self.model, "dense"), self.text(self.model, "dense")
        other = model or self.model
        with context:
            return (dense, self.measure(other, name)), (text, self.text(other, name))

    def weights(self) -> list[dict[str, Any]]:
        """What is known of each weight that is watched, as JSON.

        input, output: its spikes on the paper's prompt, None for a weight that is no candidate. recorded: the
        verdict on record for this very weight of this model, None where there is none.
        """
        projections, verdicts = output_projections(self.model), recorded_verdicts(self.args.model)
        known = []
        for coordinate in self.watch:
            layer, out, into = coordinate
            weight = projections[layer].weight[out, into].item()
            spike = self.spikes.get(coordinate)
            verdict, value = verdicts.get(show(coordinate), (None, math.nan))
            known.append(
                {
                    "coordinate": show(coordinate),
                    "weight": weight,
                    "input": spike and spike.input.value,
                    "output": spike and spike.output.value,
                    "added": spike and spike.added.value,
                    "recorded": verdict if math.isclose(value, weight, rel_tol=0.01) else None,
                    "protected": coordinate in self.protect,
                }
            )
        return known

    def result(
        self, name: str, settings: dict[str, Any], dense: float, changed: float, texts: tuple[str, str]
    ) -> dict[str, Any]:
        """How the JSON of a command begins; name: "pruned" or "quantized". The bar is closed."""
        self.bar.close()
        args = self.args
        settings = {
            **settings,
            "protect": [show(one) for one in self.protect],
            "data": args.data,
            "windows": args.windows,
            "length": self.length,
            "context": self.subject.context,
            "tokens": args.windows * self.length,
            "calibration_tokens": len(self.calibration),
            "refit_tokens": len(self.refitting),
            "prompt": args.prompt,
            "max_new_tokens": args.max_new_tokens,
        }
        return {
            **self.subject.config(**settings),
            "command": command({"pruned": "prune", "quantized": "quantize"}[name], args),
            "seconds": self.seconds,
            "perplexity": {
                "dense": ratio(dense, 0.0),
                name: ratio(changed, 0.0),
                "ratio": ratio(changed, dense),
            },
            "loss": {"dense": dense, name: changed},
            "parameters": self.model.num_parameters(),
            "text": {"prompt": args.prompt, "dense": texts[0], name: texts[1]},
            "saved": args.save,
        }

    def save(self, model: GPT) -> None:
        """Write a model to the folder asked for, with its tokenizer: `load_any` then reads both."""
        folder, tokenizer = Path(self.args.save), self.subject.tokenizer
        save_model(model, folder)
        if isinstance(tokenizer, HFTokenizer):
            tokenizer.tokenizer.save_pretrained(folder)
        else:
            save_tokenizer(tokenizer, folder / "tokenizer.json")


def parse_protect(texts: list[str]) -> tuple[bool, list[Coordinate]]:
    """Whether candidates for super weights are protected, and weights that are, found or not.

    Raises `UserError` on anything but super, none and coordinates.
    """
    if texts == ["none"]:
        return False, []
    try:
        return "super" in texts, [parse(text) for text in texts if text != "super"]
    except UserError as error:
        raise UserError(
            f"--protect {' '.join(texts)}; expected super, none or weights such as '11[507, 1229]'"
        ) from error


def check_new(folder: str | None) -> None:
    """`UserError` on a folder to save to that has something in it, such as another model."""
    path = Path(folder or ".")
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--save {folder}: there is something of that name already; name a new folder")


def recorded_verdicts(model: str) -> dict[str, tuple[str, float]]:
    """Verdicts that this lab has recorded for weights of a model, and the weights' values, by coordinate."""
    hub_ids, checks = {one.model for one in published(model)}, recorded_checks()
    return {
        one["coordinate"]: (one["verdict"], one["weight"])
        for hub_id in hub_ids & checks.keys()
        for one in checks[hub_id]["checks"]
        if one["inside"]
    }


def command(name: str, args: SimpleNamespace) -> str:
    """The command that gives the same result, with every option spelled out."""
    words = ["supertf", name]
    for option, value in vars(args).items():
        if value is None or value is False:
            continue
        values = [] if value is True and option != "bos" else value if isinstance(value, list) else [value]
        words += [f"--{option}", *map(str, values)]
    return shlex.join(words)


def by_kind(by_matrix: dict[str, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The values of matrices, grouped by their kind."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, values in by_matrix.items():
        kinds.setdefault(kind(name), []).append(values)
    return kinds


def print_head(result: dict[str, Any], what: str, name: str) -> None:
    """What was measured on what, and the perplexities."""
    config, found = result["config"], result["perplexity"]
    calibrated, refitted = config["calibration_tokens"], config["refit_tokens"]
    print(
        f"{config['model']}, {what}; {config['tokens']} tokens of {config['data']} held out, in windows of "
        f"{config['length']}"
        + (f"; {calibrated} others to calibrate with" if calibrated else "")
        + (f", {refitted} to refit to" if refitted else "")
    )
    print_table(
        ["", "perplexity", "ratio"],
        [["dense", number(found["dense"]), "1"], [name, number(found[name]), number(found["ratio"])]],
    )


def print_weights(weights: list[dict[str, Any]], columns: list[str], cells: Iterable[list[str]]) -> None:
    """The weights that were watched: what is known of them, and what became of them (columns and cells)."""
    print("\ncandidates for super weights, which spike in one pass, and weights that were named:")
    if not weights:
        print("  none")
        return
    print_table(
        ["weight", "value", "input", "output", "recorded", "protected", *columns],
        (
            [
                one["coordinate"],
                number(one["weight"]),
                "" if one["input"] is None else number(one["input"]),
                "" if one["output"] is None else number(one["output"]),
                one["recorded"] or "no verdict",
                "yes" if one["protected"] else "no",
                *more,
            ]
            for one, more in zip(weights, cells, strict=True)
        ),
    )
    print("a candidate is no verdict: supertf superweights ablate")


def print_tail(result: dict[str, Any], name: str) -> None:
    """The texts side by side, the seconds, and how to go on with what was saved."""
    text, config = result["text"], result["config"]
    print(f"\n{text['prompt']!r} goes on")
    print_table(["", "text"], [[one, repr(text[one])] for one in ("dense", name)])
    told = (f"{step} {seconds:.1f}" for step, seconds in result["seconds"].items())
    print(f"\nseconds: {'; '.join(told)}")
    if result["saved"]:
        print(f"saved in {result['saved']}" + ("; its texts begin with --bos True" if config["bos"] else ""))
