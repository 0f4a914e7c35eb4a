"""Apple's GPUs have no float64: everything runs there without, and gives what the CPU gives.

The device is a fake that refuses it, see `fake_gpu`: its numbers are the CPU's own, so they agree bit for bit
but for what is computed in another precision or order there.
"""

import dataclasses

import pytest
import torch
from fake_gpu import OnGPU, gpu
from planted import CONFIG, PROMPT, TEXT, planted_model

from supertf.analysis.attention_statistics import attention_stats, sink_rate
from supertf.analysis.losses import perplexity
from supertf.analysis.position_probe import probe_positions
from supertf.analysis.residual_stream import residual_stats
from supertf.compression.calibration import calibrate
from supertf.compression.pruning.dynamic import dynamically_pruned, plan_dynamic
from supertf.compression.pruning.input_quantiles import input_sizes, principal_axes
from supertf.compression.pruning.refitting import refit
from supertf.compression.pruning.static import plan_static
from supertf.compression.pruning.structured import plan_structured, smaller
from supertf.compression.quantization.activations import quantized_activations
from supertf.compression.quantization.plan import plan_quantization
from supertf.compression.verbs import prune, quantized
from supertf.data.tasks import Task
from supertf.experiments.growth import loss
from supertf.model.config import ATTENTIONS, POSITIONS
from supertf.model.generation import generate
from supertf.model.gpt import GPT
from supertf.superweights.ablation import ablate, text_loss
from supertf.superweights.effects import activation_path, next_tokens, restoration, unigram
from supertf.superweights.find import find_spikes
from supertf.training.optimizer import make_optimizer
from supertf.training.task_training import TaskSettings, score, train_on_task

IDS = TEXT[:160]
TASK = Task(keys=24, values=12, queries=3)
SEGMENTS = torch.tensor([[0, 1, 1, 2, 2]])


def model_of(**changes):
    torch.manual_seed(0)
    return GPT(dataclasses.replace(CONFIG, **changes)).eval()


def there_and_here(model, use):
    """What `use` gives on the fake GPU, brought back, and on the CPU."""
    with gpu(model) as twin:
        assert twin.device.type == "mps"
        found = use(twin)
        there = found.cpu() if isinstance(found, torch.Tensor) else found
    return there, use(model)


def same(model, use):
    there, here = there_and_here(model, use)
    assert torch.equal(there, here) if isinstance(here, torch.Tensor) else there == here


def test_the_fake_device_refuses_what_the_real_one_does():
    with gpu(planted_model()) as model:
        x = model.wte.weight
        refused = [
            lambda: x.double(),
            lambda: x.to(torch.float64),
            lambda: torch.arange(3, device=model.device, dtype=torch.float64),
            lambda: torch.zeros(3, dtype=torch.float64).to(model.device),
            lambda: x.sum(0, dtype=torch.float64),
            lambda: torch.linalg.eigh(x.T @ x),
            lambda: x + torch.zeros(x.shape),
            lambda: x.detach().numpy(),
        ]
        for attempt in refused:
            with pytest.raises((TypeError, RuntimeError), match=r"float64|MPS|same device|numpy"):
                attempt()
        assert isinstance(x + 1, OnGPU) and type(x.detach().cpu()) is torch.Tensor


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("position", POSITIONS)
def test_every_position_and_attention_runs(position, attention):
    model = model_of(position=position, attention=attention, n_layer=1)

    @torch.no_grad()
    def forward(one):
        ids = torch.tensor([PROMPT]).to(one.device)
        return torch.cat([one(ids).logits, one(ids, segments=SEGMENTS.to(one.device)).logits])

    same(model, forward)
    same(model, lambda one: generate(one, PROMPT, 3, temperature=0.0))


def test_training_steps_run():
    def trained(one):
        optimizer = make_optimizer(one, 1e-3, 0.1)
        ids = torch.tensor([PROMPT]).to(one.device)
        for _ in range(2):
            one(ids[:, :-1], ids[:, 1:]).loss.backward()
            optimizer.step()
        return one.h[0].mlp.c_proj.weight.detach()

    there, here = there_and_here(model_of(position="rope"), trained)
    assert torch.allclose(there, here, atol=1e-5)


@pytest.mark.parametrize("pattern", [None, "2:4"])
@pytest.mark.parametrize("method", ["magnitude", "random", "wanda", "sparsegpt"])
def test_models_are_calibrated_and_pruned(method, pattern):
    def removed(one):
        calibration = calibrate(one, IDS, 8, products=True)
        found = plan_static(
            one, method, 0.5, calibration, pattern=pattern, protect=[(1, 7, 21)], progress=False
        )
        return prune(one, found).h[1].mlp.c_proj.weight.detach()

    same(planted_model(), removed)


@pytest.mark.parametrize(
    "scheme", ["int4 block=8", "int4 block=8 clip=p99", "int4 block=8 clip=error", "int4 block=8 clip=output"]
)
def test_models_are_quantized(scheme):
    def rounded(one):
        found = plan_quantization(one, scheme, calibration=calibrate(one, IDS, 8), progress=False)
        with quantized(one, found), quantized_activations(one), torch.no_grad():
            return one(torch.tensor([PROMPT]).to(one.device)).logits

    same(planted_model(), rounded)


def test_channels_are_removed_and_projections_refitted():
    def refitted(one):
        found = plan_structured(one, "channels", 0.25, calibrate(one, IDS, 8), progress=False)
        fresh = refit(
            smaller(one, found), IDS, teacher=one, length=8, matrices=["mlp.c_proj"], progress=False
        )
        return fresh.h[1].mlp.c_proj.weight.detach()

    same(planted_model(), refitted)


@pytest.mark.parametrize("method", ["inputs", "gate", "top"])
def test_inputs_are_pruned_dynamically(method):
    def logits(one):
        axes = (
            principal_axes(calibrate(one, IDS, 8, products=True), ["attn.c_attn"])
            if method == "inputs"
            else {}
        )
        of = "gate" if method == "gate" else "inputs"
        sizes = None if method == "top" else input_sizes(one, IDS, 8, of=of, axes=axes)
        with dynamically_pruned(one, plan_dynamic(one, method, 0.5, sizes)), torch.no_grad():
            return one(torch.tensor([PROMPT]).to(one.device)).logits

    there, here = there_and_here(planted_model(), logits)
    assert torch.allclose(there, here, atol=1e-5)


def plain(result):
    """The fields of a result as numbers and lists."""
    return {
        name: getattr(value, "tolist", lambda value=value: value)() for name, value in vars(result).items()
    }


@torch.no_grad()
def measures(one):
    """What the lab measures of a model, as plain numbers."""
    ids = torch.tensor([PROMPT, PROMPT[::-1]]).to(one.device)
    stats = attention_stats(one, ids)
    heads = sink_rate(stats)
    expected = next_tokens(one, [PROMPT], unigram(TEXT, one.config.vocab_size), progress=False)
    text = text_loss(IDS, 8)
    return [
        [layer.entropy.tolist() for layer in stats],
        (heads.by_head.tolist(), heads.share),
        [plain(layer) for layer in residual_stats(one, ids)],
        [plain(probe) for probe in probe_positions(one, TEXT[:320].view(40, 8), TEXT[320:480].view(20, 8))],
        perplexity(one, IDS, 8).loss,
        loss(one, ids).item(),
        find_spikes(one, PROMPT),
        activation_path(one, PROMPT),
        [round(one, 6) for one in (expected.entropy, expected.kl, expected.js)],
        ablate(one, (1, 7, 21), text, 2, progress=False).candidate.loss,
        restoration(one, [(1, 7, 21)], text).restored,
        plain(score(one, TASK, 8, questions=16)),
    ]


def test_everything_that_is_measured_is_the_same():
    there, here = there_and_here(planted_model(), measures)
    for one, other in zip(there, here, strict=True):
        assert one == other


def test_models_learn_tasks():
    def trained(one):
        result = train_on_task(one.config, TASK, TaskSettings(steps=2, length=8, batch_size=2), model=one)
        return torch.tensor(result.losses)

    there, here = there_and_here(planted_model(), trained)
    assert torch.allclose(there, here, atol=1e-4)
