"""Matrices with new weights for a while: what `pruned` and `quantized` share, with a change of their own."""

import pytest
import torch
from planted import planted_model

from supertf.compression.replaced_weights import Replacement, replaced_copy, replaced_weights
from supertf.errors import UserError
from supertf.model.weight_matrices import matrices

NAME = "h.1.mlp.c_proj"
WORDS = [("prune", "pruned", "pruning"), ("quantize", "quantized", "quantizing")]


def halved(model, verb="prune", names=None):
    """A replacement that halves matrices."""
    found = {name: matrix for name, matrix in matrices(model).items() if names is None or name in names}
    shapes = {name: tuple(matrix.weight.shape) for name, matrix in found.items()}
    return Replacement(verb, shapes, lambda _, weight: weight.mul_(0.5))


@pytest.mark.parametrize("verb, done, doing", WORDS)
def test_messages_name_what_was_done(verb, done, doing):
    model = planted_model()
    again = halved(model, verb)
    with replaced_weights(model, again), pytest.raises(UserError) as raised:
        replaced_copy(model, again)
    first = next(iter(matrices(model)))
    assert str(raised.value) == f"{first} is {done} already: leave that context before {doing} again"


def test_the_tensors_themselves_come_back_also_after_an_exception():
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    storages = [tensor.data_ptr() for tensor in model.state_dict().values()]
    with pytest.raises(KeyError), replaced_weights(model, halved(model)):
        for name, matrix in matrices(model).items():
            assert torch.equal(matrix.weight, 0.5 * before[f"{name}.weight"])
        raise KeyError("something went wrong inside")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert storages == [tensor.data_ptr() for tensor in model.state_dict().values()]


def test_a_copy_has_the_new_weights_and_shares_none():
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = replaced_copy(model, halved(model, names=[NAME]))
    state = copy.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() != state[name].data_ptr()
        expected = 0.5 * tensor if name == f"{NAME}.weight" else tensor
        assert torch.equal(state[name], expected)


@pytest.mark.parametrize(
    "outer, inner, done", [("prune", "quantize", "pruned"), ("quantize", "prune", "quantized")]
)
def test_one_inside_the_other_is_refused_but_a_copy_takes_both(outer, inner, done):
    model = planted_model()
    first, second = halved(model, outer), halved(model, inner)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with replaced_weights(model, first):
        for again in (replaced_copy, lambda *both: replaced_weights(*both).__enter__()):
            with pytest.raises(UserError, match=f"is {done} already") as raised:
                again(model, second)
            assert "or work on a copy" in str(raised.value) and "\n" not in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    both = replaced_copy(replaced_copy(model, first), second)
    assert torch.equal(both.h[1].mlp.c_proj.weight, 0.25 * model.h[1].mlp.c_proj.weight)


def test_matrices_that_share_none_may_nest():
    model = planted_model()
    one, other = halved(model, names=[NAME]), halved(model, "quantize", ["h.2.mlp.c_proj"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with replaced_weights(model, one), replaced_weights(model, other):
        assert torch.equal(model.h[2].mlp.c_proj.weight, 0.5 * before["h.2.mlp.c_proj.weight"])
        assert torch.equal(model.h[1].mlp.c_proj.weight, 0.5 * before[f"{NAME}.weight"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_error_while_installing_leaves_the_model_as_it_was():
    model = planted_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def write(name, weight):
        weight.zero_()
        if name == NAME:
            raise KeyError("the third matrix cannot be made")

    shapes = halved(model).shapes
    with pytest.raises(KeyError), replaced_weights(model, Replacement("prune", shapes, write)):
        pass
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with replaced_weights(model, halved(model)):  # and nothing is held
        pass


@pytest.mark.parametrize("verb, done", [("prune", "pruned"), ("quantize", "quantized")])
def test_weights_changed_meanwhile_are_not_thrown_away(verb, done):
    model = planted_model()
    message = rf"{NAME} was changed while it was {done}.*train a copy"
    with pytest.raises(UserError, match=message), replaced_weights(model, halved(model, verb)):
        model.h[1].mlp.c_proj.weight.data[7, 21] += 1
    assert model.h[1].mlp.c_proj.weight[7, 21] == 2.5  # half of 3, and the change


def test_a_replacement_for_other_matrices_is_refused_in_one_line():
    model = planted_model()
    missing = Replacement("quantize", {"h.9.mlp.c_proj": (16, 40)}, lambda *_: None)
    with pytest.raises(UserError, match=r"the plan quantizes h\.9\.mlp\.c_proj, a matrix of 16 x 40.*none"):
        replaced_copy(model, missing)
    wider = Replacement("prune", {NAME: (16, 41)}, lambda *_: None)
    with pytest.raises(UserError, match=r"of 16 x 41, and the model has one of 16 x 40: plan for this model"):
        replaced_copy(model, wider)
