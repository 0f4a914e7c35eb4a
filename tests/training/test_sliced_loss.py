"""The sliced head is the same function as `F.cross_entropy` of the logits, and has the same gradient."""

import copy

import pytest
import torch
from tiny import T, tiny_config, tiny_settings, tiny_tokens
from torch.nn import functional as F

from supertf.compression.pruning.recovery import recover
from supertf.model.config import preset
from supertf.model.gpt import GPT
from supertf.training import sliced_loss as module
from supertf.training.loop import train
from supertf.training.sliced_loss import linear_cross_entropy, sliced_head

pytestmark = pytest.mark.kernels


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    """So that a small vocabulary takes several, the last one shorter."""
    monkeypatch.setattr(module, "SLICE", 7)


def inputs(dtype=torch.float64, vocab=17):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 5, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(vocab, 5, generator=generator, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, vocab, (23,), generator=generator)
    targets[[2, 9]] = -100
    targets[:3] = torch.tensor([0, -100, vocab - 1])
    return x, weight, targets


@pytest.mark.parametrize("vocab", [1, 6, 7, 8, 17])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradients_equal_the_written_out_ones(vocab, dtype):
    x, weight, targets = inputs(dtype, vocab)
    ours = linear_cross_entropy(x, weight, targets) * 3.0
    plain = F.cross_entropy(x @ weight.T, targets) * 3.0
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, plain)
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight)), torch.autograd.grad(plain, (x, weight)), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("target", [-1, -99, 17, 10**6])
def test_a_target_outside_the_vocabulary_is_refused(target):
    """As `F.cross_entropy` does; taken for a token without logit it would only spoil the loss."""
    x, weight, targets = inputs()
    targets[4] = target
    with pytest.raises(RuntimeError, match="a target is outside 0 to 16 and not -100"):
        linear_cross_entropy(x, weight, targets)
    with pytest.raises(IndexError):
        F.cross_entropy(x @ weight.T, targets)


def test_gradients_by_finite_differences():
    x, weight, targets = inputs()
    assert torch.autograd.gradcheck(linear_cross_entropy, (x, weight, targets))


def test_large_logits_do_not_overflow():
    x, weight, targets = inputs(torch.float32)
    loss = linear_cross_entropy(x * 100, weight * 100, targets)
    torch.testing.assert_close(loss, F.cross_entropy((x * 100) @ (weight * 100).T, targets))


def test_autocast_computes_products_in_bfloat16_and_gradients_in_float32():
    x, weight, targets = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(x, weight, targets)
        plain = F.cross_entropy(F.linear(x, weight).float(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain)
    gradients = torch.autograd.grad(loss, (x, weight))
    for a, b in zip(gradients, torch.autograd.grad(plain, (x, weight)), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.002)
    full = F.cross_entropy(x @ weight.T, targets)
    assert not torch.equal(loss, full)


def test_a_second_backward_is_possible_and_a_second_derivative_is_refused():
    x, weight, targets = inputs()
    loss = linear_cross_entropy(x, weight, targets)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, x)[0], first)
    (gradient,) = torch.autograd.grad(linear_cross_entropy(x, weight, targets), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("tie_head", [True, False])
def test_a_model_takes_its_loss_in_slices_while_the_context_lasts_also_after_an_exception(tie_head):
    torch.manual_seed(0)
    model = GPT(preset("lab", vocab_size=40, n_ctx=8, n_layer=1, n_head=2, n_embd=8, tie_head=tie_head))
    ids, before = torch.randint(0, 40, (3, 9)), vars(model).copy()
    with pytest.raises(KeyError), sliced_head(model):
        sliced = model(ids[:, :-1], ids[:, 1:]).loss
        twin = copy.deepcopy(model)
        raise KeyError
    assert "LinearCrossEntropy" in str(sliced.grad_fn)
    assert type(model) is type(twin) is GPT and vars(model) == before
    plain = model(ids[:, :-1], ids[:, 1:]).loss
    assert "LinearCrossEntropy" not in str(plain.grad_fn)
    torch.testing.assert_close(sliced, plain)
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad(sliced, parameters), torch.autograd.grad(plain, parameters), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_training_and_recovery_use_it(tmp_path, monkeypatch):
    sizes = []

    def counting(x, weight, targets):
        sizes.append(len(x))
        return linear_cross_entropy(x, weight, targets)

    monkeypatch.setattr(module, "linear_cross_entropy", counting)
    result = train(tiny_config(), *tiny_tokens(tmp_path), tiny_settings(steps=3))
    assert sizes == 3 * [4 * T]  # not for the validation loss
    recover(result.model, torch.arange(200), steps=2, length=8, batch_size=2, progress=False)
    assert sizes[3:] == 2 * [2 * 8]
