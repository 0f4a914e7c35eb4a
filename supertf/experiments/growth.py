"""The growth experiment: does a small decoder grow a super weight while it learns to write?

At moments of training spaced evenly in log steps, `look` measures the model: the spikes of its MLPs' output
projections, what removing each spike's weight costs, and what removing other weights costs.
"""

from typing import Any

import torch
from torch import Tensor

from supertf.analysis import attention_stats, residual_stats, sink_rate
from supertf.data import lab_tokens
from supertf.errors import UserError
from supertf.experiments.language import held_out
from supertf.experiments.sweep.description import Experiment
from supertf.model import GPT, Coordinate, language_config, output_projections
from supertf.superweights import Spike, find_spikes, scaled_weights
from supertf.training import TrainSettings, train

SPIKE_WINDOWS = 8  # held-out windows in which spikes are looked for
RANDOM_WEIGHTS = 20

FOUR_LAYERS = {"n_layer": 4, "init_std": 0.02}
DEEP = {"mlp": "swiglu", "n_inner": 176, "n_layer": 16, "init_std": 0.02}  # the deepest in twenty minutes
ARMS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "ssmax": {"attention": "ssmax"},
    "zero key": {"zero_key": True},  # a head may attend to nothing: no sink is needed
}
EXPERIMENT = Experiment(
    name="growth",
    question="Does a small decoder grow sinks, spikes or a super weight while it learns documentation?",
    measure="growth:growth",
    settings={
        "vocab_size": 512,
        "context": 128,
        "bos": True,
        "steps": 2000,
        "batch_size": 4,
        "lr": 1e-2,
        "weight_decay": 0.3,
        "moments": 12,
        "windows": 16,
        "model": {},
    },
    variants={
        **{
            f"{mlp} {start} {attention}": {
                "bos": start == "bos",
                "model": {"mlp": mlp, "n_inner": inner, "attention": attention, **FOUR_LAYERS},
            }
            for mlp, inner in (("gelu", 256), ("swiglu", 176))  # a third matrix, about as many weights
            for start in ("bos", "no bos")
            for attention in ("softmax", "ssmax")
        },
        **{f"deep, {arm}": {"steps": 8000, "model": {**DEEP, **own}} for arm, own in ARMS.items()},
    },
    seeds=(0, 1, 2),
    quick={"steps": 8, "moments": 4, "windows": 4},
)


def growth(settings: dict[str, Any], seed: int, lengths: tuple[int, ...]) -> dict[str, Any]:
    """Train on text and `look` at the model along the way; `lengths` are not used.

    settings: `vocab_size`, `context`, `bos` (whether windows begin with BOS), `steps`, `batch_size`, `lr`,
    `weight_decay`, `moments` (how often to look), `windows` (held-out ones, on which losses are measured),
    `model` (changes to `language_config`).

    Result: `moments`, of every look its step, its loss and `most`, the largest of each kind of number; beside
    them the largest of each at any moment; `layers`, those of the last look; the losses at the end.
    """
    train_file, validation_file = lab_tokens(settings["vocab_size"])
    context, bos = settings["context"], settings["bos"]
    bos_id = train_file.tokenizer.eot_token if bos else None
    config = language_config(train_file.vocab_size, context, **{"position": "rope", **settings["model"]})
    rows = held_out(validation_file, context + 1, settings["windows"], bos_id)  # (windows, context + 1)
    training = TrainSettings(
        steps=settings["steps"],
        batch_size=settings["batch_size"],
        bos=bos,
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        seed=seed,
        validate_every=0,
        validation_windows=128,
        precision="fp32",
        progress=False,
    )
    due = log_spaced(training.steps, settings["moments"])
    moments = []

    def watch(step: int, model: GPT) -> None:
        if step in due:
            moments.append({"step": step, **look(model, rows, seed)})

    result = train(config, train_file, validation_file, training, on_step=watch)
    if result.interrupted:
        raise KeyboardInterrupt  # a part of a training is no result
    return {
        "validation_loss": result.metrics[-1]["validation_loss"],
        "training_loss": sum(m["loss"] for m in result.metrics[-100:]) / len(result.metrics[-100:]),
        **{name: max(moment["most"][name] for moment in moments) for name in moments[0]["most"]},
        "moments": [{name: moment[name] for name in ("step", "loss", "most")} for moment in moments],
        "layers": moments[-1]["layers"],
        "training_seconds": result.seconds,
    }


def log_spaced(steps: int, moments: int) -> list[int]:
    """Step 0, then at most `moments - 1` different ones up to `steps`, evenly spaced in their logarithm."""
    if moments < 3:
        raise UserError(f"moments is {moments}, expected at least 3: the start, the first step and the end")
    return sorted({0, steps, *(round(steps ** (i / (moments - 2))) for i in range(moments - 1))})


def look(model: GPT, rows: Tensor, seed: int) -> dict[str, Any]:
    """Spikes of one model and what removing weights does to it, as JSON values.

    rows: (N, T + 1) int64 held-out windows; the loss is over all of them, spikes are looked for in the first
    `SPIKE_WINDOWS`. Everything called a harm is perplexity without one weight over perplexity with it, 1 for
    a weight that does nothing.

    Per layer, first layer first: the strongest spike (the window with the largest `Spike.ratio`) with its
    coordinate, peaks and token, the harm of the weight there, and the harm of the largest weight of the same
    matrix. Then the harms of random weights of the matrix with the strongest spike; the harm of the weight of
    any output projection whose removal should cost most by the gradient, -w dL/dw, which needs no spike to
    be found (but is a guess: a straight line drawn from one point). Then largest over median of the residual
    stream, embeddings first, with its largest entry; and the mean attention to the first token, of the head
    that attends to it most and of all heads.
    """
    inputs, base = rows[:, :-1], loss(model, rows)

    def harm(coordinate: Coordinate) -> float:
        with scaled_weights(model, [coordinate]):
            return float((loss(model, rows) - base).exp())

    spikes = strongest_spikes(model, inputs[:SPIKE_WINDOWS])
    matrices = [projection.weight.detach() for projection in output_projections(model)]
    layers: list[dict[str, Any]] = []
    for spike, matrix in zip(spikes, matrices, strict=True):
        largest = (spike.layer, *divmod(int(matrix.abs().argmax()), matrix.shape[1]))
        layers.append(
            {
                "coordinate": spike.coordinate,
                "weight": spike.weight,
                "share": spike.share,
                "input": abs(spike.input.value),
                "output": abs(spike.output.value),
                "input_ratio": spike.input.ratio,
                "output_ratio": spike.output.ratio,
                "same_channel": spike.into == spike.input.channel,
                "token": spike.output.token,
                "harm": harm(spike.coordinate),
                "largest": {"coordinate": largest, "harm": harm(largest)},
            }
        )
    top = max(spikes, key=lambda spike: spike.ratio)
    controls = [harm(coordinate) for coordinate in random_weights(matrices, top.layer, seed)]
    steepest = steepest_weight(model, rows)
    stream = residual_stats(model, inputs[:SPIKE_WINDOWS])
    massive = max(stream, key=lambda state: state.max_over_median)
    sinks = sink_rate(attention_stats(model, inputs[:SPIKE_WINDOWS]))
    found: dict[str, Any] = {
        "loss": float(base),
        "strongest": top.layer,
        "layers": layers,
        "random": controls,
        "steepest": {"coordinate": steepest, "harm": harm(steepest)},
        "max_over_median": [state.max_over_median for state in stream],
        "massive": {
            "layer": massive.layer,
            "token": massive.largest.token,
            "channel": massive.largest.channel,
            "value": massive.largest.value,
        },
        "sink": float(sinks.by_head.max()),
        "mean_sink": sinks.mean,
    }
    found["most"] = {
        "spike_ratio": top.ratio,
        "spike_harm": max(layer["harm"] for layer in layers),
        "largest_harm": max(layer["largest"]["harm"] for layer in layers),
        "random_harm": max(controls),
        "steepest_harm": found["steepest"]["harm"],
        "max_over_median": massive.max_over_median,
        "sink": found["sink"],
        "mean_sink": found["mean_sink"],
    }
    return found


@torch.inference_mode()
def loss(model: GPT, rows: Tensor) -> Tensor:
    """Mean loss in nats per token of predicting each row (T + 1 tokens) from its beginning, a scalar."""
    rows = rows.to(model.device)
    return model(rows[:, :-1], rows[:, 1:]).loss.cpu().double()


def strongest_spikes(model: GPT, windows: Tensor) -> list[Spike]:
    """For each layer the spike with the largest ratio in any of the windows (N, T)."""
    found = [find_spikes(model, window) for window in windows.tolist()]
    return [max(spikes, key=lambda spike: spike.ratio) for spikes in zip(*found, strict=True)]


def random_weights(matrices: list[Tensor], layer: int, seed: int) -> list[Coordinate]:
    """Different entries of one layer's matrix; always the same for a seed and layer."""
    columns, entries = matrices[layer].shape[1], matrices[layer].numel()
    order = torch.randperm(entries, generator=torch.Generator().manual_seed(seed))
    return [(layer, *divmod(int(entry), columns)) for entry in order[:RANDOM_WEIGHTS]]


def steepest_weight(model: GPT, rows: Tensor) -> Coordinate:
    """Where -w dL/dw, the first-order cost of removing w, is largest of all output projections' entries."""
    weights = [projection.weight for projection in output_projections(model)]
    rows = rows.to(model.device)
    gradients = torch.autograd.grad(model(rows[:, :-1], rows[:, 1:]).loss, weights)
    costs = [-(weight * gradient).detach() for weight, gradient in zip(weights, gradients, strict=True)]
    layer = max(range(len(costs)), key=lambda i: float(costs[i].max()))
    return (layer, *divmod(int(costs[layer].argmax()), costs[layer].shape[1]))
