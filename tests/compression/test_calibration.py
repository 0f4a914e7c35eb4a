"""What calibration sums up is what goes into every matrix."""

import dataclasses

import torch
from planted import CONFIG, planted_model

from supertf.compression.calibration import calibrate, windows_of
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.weight_matrices import matrices

LENGTH = 8


def tokens(count=3 * LENGTH, seed=1):
    return torch.randint(0, 50, (count,), generator=torch.Generator().manual_seed(seed))


def inputs(model, name, ids, length=LENGTH):
    """What one matrix is given on each window, (tokens, in) float64, from the blocks called one by one."""
    kept = []
    module = dict(model.named_modules())[name]
    with module.register_forward_pre_hook(lambda _, args: kept.append(args[0][0].double())), torch.no_grad():
        for start in range(0, len(ids) - length + 1, length):
            model(ids[None, start : start + length])
    return torch.cat(kept)


def test_norms_and_products_are_those_of_the_inputs():
    model, ids = planted_model(), tokens()
    found = calibrate(model, ids, LENGTH, products=True)
    assert found.tokens == len(ids)
    assert list(found.squares) == list(found.products) == list(matrices(model))
    for name in matrices(model):
        x = inputs(model, name, ids)
        assert torch.allclose(found.norms(name).double(), x.norm(dim=0), rtol=1e-5)
        assert torch.allclose(
            found.products[name].double(), x.T @ x, rtol=1e-4, atol=1e-5 * float(x.max()) ** 2
        )


def test_the_first_matrix_sees_the_normed_embeddings():
    model, ids = planted_model(), tokens(LENGTH)
    with torch.no_grad():
        x = model.h[0].ln_1(model.wte(ids))  # written out, since this model has no positions
    found = calibrate(model, ids, LENGTH)
    assert torch.allclose(found.norms("h.0.attn.c_attn"), x.norm(dim=0), rtol=1e-5)
    assert not found.products


def test_leftover_tokens_do_not_count():
    model, ids = planted_model(), tokens()
    assert calibrate(model, ids[: 2 * LENGTH + 5], LENGTH).tokens == 2 * LENGTH
    longer, exact = (calibrate(model, ids[:n], LENGTH) for n in (2 * LENGTH + 5, 2 * LENGTH))
    assert torch.equal(longer.norms("h.2.mlp.c_proj"), exact.norms("h.2.mlp.c_proj"))


def test_windows_lie_side_by_side():
    ids = list(range(11))
    assert windows_of(planted_model(), ids, 4).tolist() == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


def test_the_head_is_observed_at_every_token():
    model, ids = planted_model(), tokens()
    found = calibrate(model, ids, LENGTH, matrices=["lm_head"])
    x = inputs(model, "lm_head", ids)
    assert len(x) == found.tokens == len(ids)
    assert torch.allclose(found.norms("lm_head").double(), x.norm(dim=0), rtol=1e-5)


def test_only_the_kinds_asked_for_are_observed():
    found = calibrate(planted_model(), tokens(), LENGTH, matrices=["mlp.c_proj"])
    assert list(found.squares) == [f"h.{layer}.mlp.c_proj" for layer in range(3)]


def test_the_model_is_left_without_hooks_also_when_a_pass_fails():
    model = GPT(dataclasses.replace(CONFIG, position="learned")).eval()
    for length in (LENGTH, 30):  # 30 is beyond the learned positions
        try:
            calibrate(model, tokens(60), length)
        except UserError:
            assert length == 30
    assert not any(module._forward_pre_hooks for module in model.modules())
