"""A model beside what pruning or quantizing makes of it: what `supertf prune` and `quantize` share.

Both are measured on the same held-out text, a text apart from it is there to calibrate with, and the weights
that may be super weights are watched, protected or not.
"""

import contextlib
import math
import shlex
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tqdm.auto import tqdm

from supertf.cli.printing import print_table
from supertf.cli.subject import Subject
from supertf.compression import Comparison, Variant, compare
from supertf.data import Text, read_tokens, save_tokenizer
from supertf.errors import UserError
from supertf.model import (
    GPT,
    Coordinate,
    HFTokenizer,
    LanguageModel,
    check,
    check_coordinate,
    kind,
    output_projections,
    parse,
    save_model,
    show,
)
from supertf.superweights import PROMPT, Spike, candidates, find_spikes, published, recorded_checks
from supertf.tables import number


class SideBySide:
    """A model, its texts, and the weights that are watched, as the options of both commands say.

    held_out: what the models are measured on. calibration, refitting: other texts. protect: weights that are
    to keep their values. watch: those and every candidate for a super weight.
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
        prompt = self.subject.encode(args.prompt)
        check(self.model, prompt, args.max_new_tokens, 0.0, None, None)
        self.held_out, self.calibration, self.refitting = self.texts()
        self.spikes = self.spiking(self.model)
        self.protect = list(dict.fromkeys([*(self.spikes if every else ()), *named]))
        for coordinate in self.protect:
            check_coordinate(output_projections(self.model), coordinate)
        self.watch = list(dict.fromkeys([*self.spikes, *self.protect]))

    def spiking(self, model: LanguageModel) -> dict[Coordinate, Spike]:
        """The candidates for super weights that a model, as it is now, shows on the paper's prompt."""
        prompt = self.subject.encode(PROMPT)[: self.model.config.n_ctx]
        return {spike.coordinate: spike for spike in candidates(find_spikes(model, prompt))}

    def texts(self) -> tuple[Text, ...]:
        """The held-out text, and those to calibrate with and to refit to: see `read_tokens`.

        Raises `UserError` on a text that is too short for all.
        """
        args = self.args
        self.subject.check_data(args.data)
        counts = (args.windows, *self.windows)
        return read_tokens(args.data, self.subject.tokenizer, windows=counts, length=self.length)

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

    def compare(self, name: str, variant: Variant) -> Comparison:
        """The model and what it became; name: "pruned" or "quantized"."""
        self.bar.set_description("comparing")
        with contextlib.ExitStack() as failed:
            failed.callback(self.bar.close)  # or an error would be printed behind it
            found = compare(
                self.model,
                {name: variant},
                self.held_out,
                watch=self.watch,
                tokenizer=self.subject.tokenizer,
                prompt=self.args.prompt,
                max_new_tokens=self.args.max_new_tokens,
            )
            failed.pop_all()
        for row in found:
            self.seconds |= {
                f"perplexity, {row.name}": row.seconds["loss"],
                f"text, {row.name}": row.seconds["text"],
            }
        self.bar.update(4)
        return found

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

    def result(self, name: str, settings: dict[str, Any], found: Comparison) -> dict[str, Any]:
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
            "calibration_tokens": self.calibration.windows().numel(),
            "refit_tokens": self.refitting.windows().numel(),
            "prompt": args.prompt,
            "max_new_tokens": args.max_new_tokens,
        }
        return {
            **self.subject.config(**settings),
            "command": command({"pruned": "prune", "quantized": "quantize"}[name], args),
            "seconds": self.seconds,
            "perplexity": {**{row.name: row.perplexity for row in found}, "ratio": found[name].ratio},
            "loss": {row.name: row.loss for row in found},
            "parameters": self.model.num_parameters(),
            "text": {"prompt": args.prompt, **{row.name: row.text for row in found}},
            "saved": args.save,
        }

    def save(self, model: LanguageModel) -> None:
        """Write a model to the folder asked for, with its tokenizer: `load` then reads both."""
        folder, tokenizer = Path(self.args.save), self.subject.tokenizer
        assert isinstance(model, GPT)  # or it was refused when it was loaded
        with self.step("saving"):
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
    steps = (f"{step} {seconds:.1f}" for step, seconds in result["seconds"].items())
    print(f"\nseconds: {'; '.join(steps)}")
    if result["saved"]:
        print(f"saved in {result['saved']}" + ("; its texts begin with --bos True" if config["bos"] else ""))
