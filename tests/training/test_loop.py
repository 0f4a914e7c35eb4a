"""Training: the loop, its schedule and groups, resume to the bit, and what stops it."""

import doctest
import itertools
import json
import math
import threading
import time

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from tiny import tiny_config, tiny_tokens
from tiny import tiny_settings as settings
from torch.nn import functional as F

from supertf.data.token_files import Windows, batches
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer
from supertf.errors import UserError
from supertf.model.checkpoint import is_run, locate
from supertf.model.gpt import GPT
from supertf.model.hf_tokenizer import load_tokenizer_of
from supertf.model.pretrained import load_model
from supertf.model.scalings import SCALINGS
from supertf.training import checkpoint, loop
from supertf.training.loop import train
from supertf.training.optimizer import learning_rate, make_optimizer, mean_s, parameter_groups
from supertf.training.sliced_loss import SlicedHeadGPT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    return tiny_tokens(tmp_path_factory.mktemp("tokens"))


def weights(model: GPT) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(a: GPT, b: GPT) -> None:
    for name, tensor in a.state_dict().items():
        assert torch.equal(tensor, b.state_dict()[name]), name


def without_times(metrics: list[dict]) -> list[dict]:
    return [{k: v for k, v in m.items() if k not in ("seconds", "tokens_per_second")} for m in metrics]


def test_it_learns_and_says_so(tokens):
    result = train(tiny_config(attention="ssmax"), *tokens, settings(steps=60))
    assert result.metrics[0]["loss"] == pytest.approx(math.log(257), abs=0.2)  # knows nothing yet
    assert result.best_loss < 3.5
    assert result.step == len(result.metrics) == 60
    assert not result.model.training
    assert result.metrics[-1]["mean_s"] == mean_s(result.model)
    assert result.metrics[-1]["mean_s"] != result.metrics[0]["mean_s"]  # s is trained


def test_the_loop_is_adamw_on_the_mean_cross_entropy(tokens):
    """Against a loop without accelerate: same batches, clipping and schedule give the same weights."""
    config, chosen = tiny_config(), settings(steps=5)
    result = train(config, *tokens, chosen)
    torch.manual_seed(chosen.seed)
    model = GPT(config)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    windows = Windows(tokens[0], 16, bos_id=256)
    for step, (inputs, targets) in zip(range(1, 6), batches(windows, 4, chosen.seed), strict=False):
        loss = F.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten())
        assert result.metrics[step - 1]["loss"] == pytest.approx(loss.item(), rel=1e-5)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert result.metrics[step - 1]["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, 5, 1e-2, 0)
        optimizer.step()
        optimizer.zero_grad()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def test_accumulated_gradients_equal_the_larger_batch(tokens):
    large = train(tiny_config(), *tokens, settings(batch_size=8))
    accumulated = train(tiny_config(), *tokens, settings(batch_size=2, grad_accumulation=4))
    assert [m["loss"] for m in accumulated.metrics] == pytest.approx(
        [m["loss"] for m in large.metrics], rel=1e-4
    )
    for name, tensor in large.model.state_dict().items():
        torch.testing.assert_close(accumulated.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_validation_loss_is_plain_cross_entropy_on_fixed_windows(tokens):
    result = train(tiny_config(dropout=0.5), *tokens, settings(steps=4, validation_windows=3))
    windows = Windows(tokens[1], 16, stride=16, bos_id=256)
    rows = torch.stack([windows[i * len(windows) // 3] for i in range(3)])
    logits = result.model(rows[:, :-1]).logits  # in evaluation mode: no dropout
    expected = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
    assert result.metrics[-1]["validation_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert [m["step"] for m in result.metrics if "validation_loss" in m] == [4]


@pytest.mark.parametrize("attention", SCALINGS)
def test_only_matrices_decay(attention):
    model = GPT(tiny_config(attention=attention, norm="layernorm", bias=True, position="learned"))
    decaying, still = parameter_groups(model, 0.3)
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.3, 0.0)
    assert {p.dim() for p in decaying["params"]} == {2}
    assert {p.dim() for p in still["params"]} == {1}
    assert len(decaying["params"]) + len(still["params"]) == len(list(model.parameters()))
    kept = {id(p) for p in still["params"]}
    scales = [p for name, p in model.named_parameters() if ".scale." in name]
    assert all(id(p) in kept for p in scales)
    scaling = SCALINGS[attention]
    assert len(scales) == (2 * len(scaling.numbers) if scaling.learned else 0)


def test_decay_shrinks_a_matrix_without_gradient_and_leaves_s():
    model = GPT(tiny_config(attention="ssmax"))
    before = weights(model)
    optimizer = make_optimizer(model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    after = weights(model)
    torch.testing.assert_close(after["wte.weight"], before["wte.weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(after["h.0.attn.scale.s"], before["h.0.attn.scale.s"])
    assert torch.equal(after["ln_f.weight"], before["ln_f.weight"])


def test_learning_rate_values():
    rates = [learning_rate(step, 100, 2.0, 10) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == 2.0
    assert rates[54] == pytest.approx(2.0 * 0.55)  # half-way down the cosine, between 1 and 0.1
    assert rates[99] == pytest.approx(0.2)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), st.floats(1e-6, 1.0))
def test_learning_rate_rises_then_falls_and_stays_in_range(shape, peak):
    steps, warmup = shape
    rates = [learning_rate(step, steps, peak, warmup) for step in range(1, steps + 1)]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_resumed_run_ends_with_the_same_weights_and_metrics(tokens, tmp_path, dropout):
    config = tiny_config(attention="ssmax", dropout=dropout)
    whole = train(config, *tokens, settings(), tmp_path / "whole")
    stopped = TrainingStopped(after=6)
    with pytest.raises(KeyError):
        train(config, *tokens, settings(), tmp_path / "cut", on_metrics=stopped)
    torch.rand(100)  # whatever happens in between
    resumed = train(config, *tokens, settings(), tmp_path / "cut", resume=True)
    assert_same_weights(whole.model, resumed.model)
    assert without_times(resumed.metrics) == without_times(whole.metrics)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13))


class TrainingStopped:
    """A callback that breaks the run off between two checkpoints."""

    def __init__(self, after: int):
        self.after = after

    def __call__(self, metrics):
        if metrics["step"] == self.after:
            raise KeyError("stop")


def test_best_and_last_are_kept_and_load(tokens, tmp_path):
    worse = settings(steps=8, validate_every=2, save_every=1, lr=1.0, warmup=0)
    result = train(tiny_config(), *tokens, worse, tmp_path / "run")
    losses = {m["step"]: m["validation_loss"] for m in result.metrics if "validation_loss" in m}
    best = min(losses, key=losses.get)
    kept = {path.name for path in (tmp_path / "run").glob("step-*")}
    assert kept == {f"step-{best:08d}", "step-00000008"}
    assert locate(tmp_path / "run").name == f"step-{best:08d}"
    assert_same_weights(load_model(tmp_path / "run" / "last"), result.model)
    tokenizer = load_tokenizer_of(tmp_path / "run")
    assert tokenizer.encode("2 plus 2") == load_tokenizer("bytes").encode("2 plus 2")


def test_a_second_run_into_the_same_folder_is_refused(tokens, tmp_path):
    train(tiny_config(), *tokens, settings(steps=2), tmp_path)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match="already holds a run"):
        train(tiny_config(), *tokens, settings(steps=2), tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_resuming_a_finished_run_changes_nothing(tokens, tmp_path):
    first = train(tiny_config(), *tokens, settings(steps=3), tmp_path)
    again = train(tiny_config(), *tokens, settings(steps=3), tmp_path, resume=True)
    assert again.step == 3
    assert again.metrics == first.metrics
    assert_same_weights(first.model, again.model)


def test_a_checkpoint_of_another_model_or_other_data_is_refused(tokens, tmp_path):
    train(tiny_config(), *tokens, settings(steps=2), tmp_path / "run")
    with pytest.raises(UserError, match="attention is softmax there, ssmax here"):
        train(tiny_config(attention="ssmax"), *tokens, settings(), tmp_path / "run", resume=True)
    documents = [f"{n} is a number that nobody had seen before" for n in range(40)]
    other = prepare(
        documents, load_tokenizer("bytes"), tmp_path / "other", max_length=16, stride=16, progress=False
    )
    with pytest.raises(UserError, match="other tokens"):
        train(tiny_config(), *other, settings(), tmp_path / "run", resume=True)


def test_resuming_with_other_settings_says_which(tokens, tmp_path, capsys):
    train(tiny_config(), *tokens, settings(steps=2), tmp_path)
    train(tiny_config(), *tokens, settings(steps=4, seed=3), tmp_path, resume=True)
    assert (
        "resuming with other settings: steps 4 instead of 2, seed 3 instead of 0" in capsys.readouterr().err
    )


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tokens, tmp_path, monkeypatch):
    loss, calls = SlicedHeadGPT.loss, []

    def broken(self, x, targets):
        calls.append(self.training)
        return loss(self, x, targets) * (math.nan if len(calls) == 6 else 1.0)

    monkeypatch.setattr(SlicedHeadGPT, "loss", broken)
    with pytest.raises(UserError, match=r"stopped at step 6: the loss is nan .*step-00000004 is kept"):
        train(tiny_config(), *tokens, settings(), tmp_path)
    monkeypatch.setattr(SlicedHeadGPT, "loss", loss)
    assert all(tensor.isfinite().all() for tensor in load_model(tmp_path / "last").state_dict().values())
    assert train(tiny_config(), *tokens, settings(), tmp_path, resume=True).step == 12


def test_a_learning_rate_that_blows_the_model_up_is_reported(tokens):
    with pytest.raises(UserError, match=r"training stopped at step \d+: .*there is no checkpoint yet"):
        train(tiny_config(), *tokens, settings(lr=1e30, warmup=0))


def test_an_exploding_gradient_never_reaches_a_checkpoint(tokens, tmp_path, monkeypatch):
    """A finite loss whose gradient is not: the step is refused before its weights can be saved."""
    loss = SlicedHeadGPT.loss
    monkeypatch.setattr(SlicedHeadGPT, "loss", lambda *given: loss(*given) + Spike.apply(given[1]))
    with pytest.raises(UserError, match=r"step 1: .*gradient norm (nan|inf)"):
        train(tiny_config(), *tokens, settings(save_every=1), tmp_path)
    assert not is_run(tmp_path)


class Spike(torch.autograd.Function):
    """0 forward, infinite backward."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.new_zeros(())

    @staticmethod
    def backward(context, gradient):
        return torch.full_like(context.saved_tensors[0], math.inf)


def test_bf16_autocast_trains_and_keeps_float32_weights(tokens):
    full = train(tiny_config(), *tokens, settings(steps=20))
    half = train(tiny_config(), *tokens, settings(steps=20, precision="bf16"))
    assert {tensor.dtype for tensor in half.model.parameters()} == {torch.float32}
    assert half.metrics[-1]["loss"] == pytest.approx(full.metrics[-1]["loss"], rel=0.05)
    assert half.metrics[-1]["loss"] != full.metrics[-1]["loss"]  # bf16 was really used
    assert half.model(torch.zeros(1, 4, dtype=torch.int64)).logits.dtype == torch.float32  # unwrapped


def test_a_checkpoint_of_another_precision_goes_on_in_this_one(tokens, tmp_path, capsys):
    train(tiny_config(), *tokens, settings(steps=10, precision="bf16"), tmp_path)
    whole = train(tiny_config(), *tokens, settings(steps=20, precision="fp32"), tmp_path, resume=True)
    assert "resuming with other settings: steps 20 instead of 10, precision fp32" in capsys.readouterr().err
    assert {tensor.dtype for tensor in whole.model.parameters()} == {torch.float32}
    assert [metrics["step"] for metrics in whole.metrics] == list(range(1, 21))
    assert whole.metrics[-1]["validation_loss"] < whole.metrics[0]["loss"]


def test_a_clock_that_jumps_changes_nothing(tokens, tmp_path, monkeypatch):
    """The wall clock, as it is set by hand or over the network: durations come from one that only goes on."""
    steady = train(tiny_config(), *tokens, settings())
    jumps = itertools.cycle([2e9, 1e9, 3e9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    with pytest.raises(KeyError):
        train(tiny_config(), *tokens, settings(), tmp_path, on_metrics=TrainingStopped(after=6))
    jumped = train(tiny_config(), *tokens, settings(), tmp_path, resume=True)
    assert without_times(jumped.metrics) == without_times(steady.metrics)
    assert all(0 < metrics["seconds"] < 600 for metrics in jumped.metrics)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_on_a_gpu_and_resumes(tokens, tmp_path, precision):
    """With its gradient scaler fp16 skips the first steps until the scale is small enough."""
    chosen = {"device": "cuda", "precision": precision, "lr": 3e-3, "warmup": 0}
    config = tiny_config(attention="ssmax")
    whole = train(config, *tokens, settings(steps=40, **chosen), tmp_path / "whole")
    assert {tensor.dtype for tensor in whole.model.parameters()} == {torch.float32}
    assert all(math.isfinite(m["loss"]) for m in whole.metrics)
    assert whole.best_loss < whole.metrics[0]["loss"] - 0.5
    with pytest.raises(KeyError):
        stopped = TrainingStopped(after=22)
        train(config, *tokens, settings(steps=40, **chosen), tmp_path / "cut", on_metrics=stopped)
    scaler = checkpoint.load(tmp_path / "cut").state["scaler"]
    assert (scaler is not None) == (precision == "fp16")
    resumed = train(config, *tokens, settings(steps=40, **chosen), tmp_path / "cut", resume=True)
    assert resumed.step == 40
    # kernels on a GPU add up in no fixed order, so not to the bit
    assert resumed.metrics[-1]["loss"] == pytest.approx(whole.metrics[-1]["loss"], abs=0.05)


def test_samples_and_callbacks(tokens):
    seen = []
    result = train(
        tiny_config(position="learned"),
        *tokens,
        settings(steps=4, sample_every=2, sample_tokens=50),
        on_metrics=seen.append,
    )
    assert seen == result.metrics
    assert [m["step"] for m in seen if "sample" in m] == [2, 4]
    assert all(isinstance(m["sample"], str) for m in seen if "sample" in m)


def test_the_model_can_be_watched_and_trains_as_if_it_were_not(tokens):
    config, chosen = tiny_config(dropout=0.2), settings(steps=4)
    seen = {}

    def watch(step, model):
        assert not model.training
        model(torch.zeros(1, 4, dtype=torch.int64))  # would draw random numbers if dropout were on
        seen[step] = weights(model)

    watched = train(config, *tokens, chosen, on_step=watch)
    alone = train(config, *tokens, chosen)
    assert_same_weights(watched.model, alone.model)
    assert without_times(watched.metrics) == without_times(alone.metrics)
    assert list(seen) == [0, 1, 2, 3, 4]
    torch.manual_seed(chosen.seed)
    for name, tensor in GPT(config).state_dict().items():
        assert torch.equal(seen[0][name], tensor), name
        assert torch.equal(seen[4][name], watched.model.state_dict()[name]), name
    assert not torch.equal(seen[1]["wte.weight"], seen[2]["wte.weight"])


def test_the_seed_decides_everything(tokens):
    first, second = (train(tiny_config(dropout=0.1), *tokens, settings(seed=1)) for _ in range(2))
    other = train(tiny_config(dropout=0.1), *tokens, settings(seed=2))
    assert_same_weights(first.model, second.model)
    assert first.metrics[0]["loss"] != other.metrics[0]["loss"]


def test_training_works_outside_the_main_thread(tokens):
    """A widget's callback may run in another thread, where signals cannot be caught."""
    results = []
    thread = threading.Thread(target=lambda: results.append(train(tiny_config(), *tokens, settings(steps=2))))
    thread.start()
    thread.join()
    assert results[0].step == 2


def test_the_example_runs():
    failed, attempted = doctest.testmod(loop)
    assert attempted > 0 == failed
