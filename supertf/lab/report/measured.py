"""What a report measures, part by part: plain data, kept as soon as it is there."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from supertf.analysis import attention_stats
from supertf.compression import (
    calibration_for,
    plan_pruning,
    plan_quantization,
    pruned,
    quantized,
)
from supertf.data import TEXTS, read_ids, unused_ids
from supertf.errors import UserError
from supertf.files import cache_dir, read_json, write_json
from supertf.lab.digest import package_digest
from supertf.model import GPT, LanguageModel, additions, generate, output_projections, parse, show
from supertf.superweights import (
    PROMPT,
    Loss,
    Removal,
    Spike,
    ablate,
    effects,
    measured,
    random_beside,
    removal,
    scaled_weights,
    scaling_curve,
    search,
    text_loss,
)

SCORED = tuple(f"{name}:evaluate:{part}" for name in TEXTS for part in range(4))
PROMPTS = (PROMPT, "The capital of France is", "def add(a, b):\n    return a + b")
FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
CONTROLS = 20
CALIBRATION = 1024  # tokens of each domain
CUTS: dict[str, dict[str, Any]] = {
    "magnitude, half": {"method": "magnitude"},
    "Wanda, half": {"method": "wanda"},
    "inputs of mlp.c_proj, half": {"method": "inputs", "matrices": ["mlp.c_proj"]},
}
SCHEMES = {"int4, blocks of 64": "int4 block=64", "int4, blocks of 64 x 64": "int4 block=64x64"}
REACHES = (16, 32, 64, 128, 256, 512, 1024)  # keys that a query sees, where entropy is read
SHORTEST = 48  # tokens of a text that a verdict is built on
NEAR = 8  # queries up to each of them, which are averaged


@dataclass(frozen=True)
class Asked:
    """A model, and on what it is measured.

    Attributes:
        name: of the model, for people.
        model, tokenizer: as `load` gives them.
        scored: names of the texts, as `read_ids` takes them; nothing is chosen or fitted on them.
        tokens: read of each.
        seed: of the random controls.
        progress: show bars.
    """

    name: str
    model: LanguageModel
    tokenizer: Any
    scored: tuple[str, ...] = SCORED
    tokens: int = 256
    seed: int = 0
    progress: bool = True

    def read(self, data: str, tokens: int) -> Tensor:
        """The first tokens of a text, (N,) int64."""
        return torch.from_numpy(read_ids(data, self.tokenizer, tokens))

    def losses(self) -> list[Loss]:
        """The loss on each text; `UserError` on one of fewer than `SHORTEST` tokens."""
        length = min(256, self.model.config.n_ctx)
        texts = {name: self.read(name, self.tokens) for name in self.scored}
        for name, ids in texts.items():
            if len(ids) < SHORTEST:
                raise UserError(
                    f"{name} has {len(ids)} tokens, too few for a verdict: give at least {SHORTEST}"
                )
        return [text_loss(ids, length, bos_id=self.tokenizer.bos_id) for ids in texts.values()]

    def weights(self, found: dict[str, Any]) -> list[tuple[int, int, int]]:
        """What `spikes` says is to be tried, the strongest first."""
        return [parse(one["weight"]) for one in found["spikes"]["tried"]]

    def identity(self) -> str:
        """Of all that decides what is measured: weights, vocabulary, texts, seed, and the package's code."""
        sums = hashlib.blake2b(digest_size=16)
        for name, parameter in self.model.named_parameters():
            sums.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            sums.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        for name in self.scored:
            sums.update(self.read(name, self.tokens).numpy().tobytes())
        sums.update(f"{self.seed} {self.tokenizer.bos_id} {package_digest()}".encode())
        return sums.hexdigest()


def measure(asked: Asked, folder: Path | None = None) -> dict[str, Any]:
    """Measure a model, part by part; what an earlier call has measured of it is not measured again.

    Args:
        asked: the model, and on what.
        folder: that parts are kept in; by default of this model, these texts and this code in the cache.

    Returns:
        By part, plain data that JSON can hold. A part that a model does not allow is {"left_out": why}.

    Raises:
        UserError: a model whose MLPs have no output projections that can be read and edited, or a text that
            cannot be read.
    """
    folder = folder or cache_dir() / "reports" / asked.identity()
    found: dict[str, Any] = {}
    bar = tqdm(PARTS.items(), disable=not asked.progress, leave=False, unit="part")
    for name, part in bar:
        bar.set_description(f"{asked.name}: {name}")
        kept = folder / f"{name}.json"
        with contextlib.suppress(UserError, OSError):  # not measured yet, or the file is damaged
            found[name] = read_json(kept)
            continue
        try:
            found[name] = part(asked, found)
        except UserError as error:
            if name in ("spikes", "verdict"):  # what all others stand on
                raise
            found[name] = {"left_out": str(error)}
        write_json(kept, found[name])
    return found


# --- the parts --------------------------------------------------------------------------------------------


def spikes(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """Candidates, and what each layer adds at each token of some prompts, with and without the strongest.

    Where no spike follows the paper's rule, the one that stands out most from its layer's median channel is
    tried in its place.
    """
    model = asked.model
    searched = search(model, asked.tokenizer.encode_prompt(PROMPT))
    strongest = max(searched.rounds[0].spikes, key=lambda spike: spike.ratio)
    tried = list(searched) or [strongest]
    prompts = {}
    for prompt in PROMPTS:
        ids = asked.tokenizer.encode_prompt(prompt)
        as_it_is = by_token(model, ids)
        with scaled_weights(model, [tried[0].coordinate]):
            without = by_token(model, ids)
        pieces = [asked.tokenizer.decode([token]) for token in ids]
        prompts[prompt] = {"tokens": pieces, "as it is": as_it_is, "without": without}
    return {
        "prompt": PROMPT,
        "passes": len(searched.rounds),
        "candidates": len(searched),
        "tried": list(map(spike_dict, tried)),
        "prompts": prompts,
    }


def spike_dict(spike: Spike) -> dict[str, Any]:
    """A spike as JSON."""
    return {
        "weight": show(spike.coordinate),
        "value": spike.weight,
        "input": spike.input.value,
        "added": spike.added.value,
        "share": spike.share,
        "ratio": spike.ratio,
    }


def by_token(model: LanguageModel, ids: Sequence[int]) -> list[list[float]]:
    """The largest magnitude that each layer's MLP adds to the stream at each token, (layers, T)."""
    rows: dict[int, list[float]] = {}

    def heard(projection: Any, x: Tensor, y: Tensor, added: Tensor | None) -> None:
        rows[projection.layer] = (y if added is None else added).abs().amax(-1).flatten().tolist()

    with torch.inference_mode(), additions(model, output_projections(model), heard):
        model(torch.tensor([list(ids)], device=model.device), last_only=True)
    return [rows[layer] for layer in sorted(rows)]


def verdict(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """The strongest candidate removed beside its controls, and further candidates by themselves."""
    first, *others = asked.weights(found)
    losses = asked.losses()
    tried = ablate(asked.model, first, losses, CONTROLS, asked.seed, progress=asked.progress)
    alone = [removal(asked.model, [one], losses, tried.candidate.bases) for one in others[:4]]
    controls = (tried.random, tried.largest, tried.row_largest, tried.row)
    return {
        "verdict": tried.verdict,
        "caption": tried.caption(),
        "bases": list(tried.candidate.bases),
        "perplexity": math.exp(tried.base),
        "rows": [times(one, role="candidate") for one in (tried.candidate, *alone)]
        + [times(one, role="control") for one in controls],
    }


def times(one: Removal, **more: Any) -> dict[str, Any]:
    """Times the perplexity, with its interval over texts, as JSON."""
    low, high = (one.interval.low, one.interval.high) if one.interval else (one.ratio, one.ratio)
    return {"name": one.label, "times": one.ratio, "low": low, "high": high, **more}


def dial(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """Times the perplexity while the weight is scaled, on up to five texts, spread over all."""
    some = asked.losses()[:: max(1, len(asked.scored) // 3)]
    curve = scaling_curve(
        asked.model,
        asked.weights(found)[:1],
        FACTORS,
        lambda model: fmean(loss(model) for loss in some),
        progress=asked.progress,
    )
    return {"texts": len(some), "factors": list(FACTORS), "times": [one.ratio for one in curve]}


def smaller_models(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """What pruning and rounding do, sparing nothing, the candidates, and as many random weights; on every
    second text."""
    model, weights = asked.model, asked.weights(found)
    spared = {
        "nothing": [],
        "the candidates": weights,
        "random weights": random_beside(model, weights, asked.seed),
    }
    losses, bases = asked.losses()[::2], tuple(found["verdict"]["bases"][::2])
    text = torch.cat([asked.read(f"{name}:calibrate", CALIBRATION) for name in TEXTS])
    rows = []
    ways = [*((name, "prune", options) for name, options in CUTS.items())]
    ways += [(name, "round", {"scheme": scheme}) for name, scheme in SCHEMES.items()]
    bar = tqdm(ways, desc="pruning and rounding", disable=not asked.progress, leave=False)
    for name, how, options in bar:
        try:
            known = calibration(asked, text, options) if how == "prune" else None
            for group, some in spared.items():
                with changed(model, how, options, known, some):
                    values = tuple(measured(model, loss, f"under {name}") for loss in losses)
                one = Removal(name, tuple(some), values, bases)
                rows.append(times(one, how=how, spared=group))
        except UserError as error:
            rows.append({"name": name, "how": how, "left_out": str(error)})
    return {"weights": list(map(show, weights)), "texts": len(losses), "rows": rows}


def calibration(asked: Asked, text: Tensor, options: dict[str, Any]) -> Any:
    """What a method must know of a text that is not scored."""
    matrices = options.get("matrices")
    return calibration_for(asked.model, options["method"], text, matrices=matrices)


@contextlib.contextmanager
def changed(
    model: LanguageModel, how: str, options: dict[str, Any], known: Any, spared: list[Any]
) -> Iterator[None]:
    """The model while half of it is left out, or its weights are rounded."""
    if how == "round":
        with quantized(model, plan_quantization(model, options["scheme"], protect=spared)):
            yield
        return
    plan = plan_pruning(model, **options, sparsity=0.5, calibration=known, protect=spared, progress=False)
    with pruned(model, plan):
        yield


def attention(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """Entropy of every head against the keys seen, and the first key's share, with and without the weight."""
    model = asked.model
    if not isinstance(model, GPT):
        raise UserError("attention weights are seen in GPT-2, Llama and Mistral checkpoints only")
    reaches = [n for n in REACHES if n <= model.config.n_ctx]
    ids = torch.stack([asked.read(f"{name}:evaluate", reaches[-1]) for name in TEXTS]).to(model.device)
    rows = [row for n in reaches for row in range(n - NEAR, n)]
    states: dict[str, Any] = {}
    for state, gone in (("as it is", []), ("without", asked.weights(found)[:1])):
        with scaled_weights(model, gone) if gone else contextlib.nullcontext():
            stats = attention_stats(model, ids, rows=rows)
            sinks = effects.attention_sinks(model, ids.flatten())
        share = torch.stack([one.normalized for one in stats])  # (L, B, H, R)
        share = share.unflatten(-1, (len(reaches), NEAR)).mean((1, 4))  # (L, H, lengths)
        states[state] = {"entropy": share.tolist(), "sinks": sinks.mean, "sink_heads": sinks.share}
    return {"lengths": reaches, "texts": len(ids), "states": states}


def words(asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    """How the model goes on, greedily: as it is, without the weight, and without a random one."""
    model, (weight, *_) = asked.model, asked.weights(found)
    (control,) = random_beside(model, [weight], asked.seed)
    unused = unused_ids(asked.tokenizer, model.config.vocab_size)
    said: dict[str, dict[str, str]] = {prompt: {} for prompt in PROMPTS}
    for state, gone in (("as it is", []), ("without", [weight]), ("control", [control])):
        with scaled_weights(model, gone) if gone else contextlib.nullcontext():
            for prompt in PROMPTS:
                ids = asked.tokenizer.encode_prompt(prompt)
                new = list(generate(model, ids, 20, exclude=unused))
                before = asked.tokenizer.decode(ids)
                said[prompt][state] = asked.tokenizer.decode([*ids, *new])[len(before) :]
    return {"control": show(control), "said": said}


PARTS: dict[str, Callable[[Asked, dict[str, Any]], dict[str, Any]]] = {
    "spikes": spikes,
    "verdict": verdict,
    "dial": dial,
    "smaller": smaller_models,
    "attention": attention,
    "words": words,
}
