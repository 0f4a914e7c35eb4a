"""The matrices that are pruned: all linear layers but the head, by kind."""

import pytest
import torch
from families import tiny
from planted import CONFIG, planted_model

from supertf.compression.pruning_plan import plan_static
from supertf.compression.verbs import pruned
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.layer_matrices import kind, marks, matrices

KINDS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def test_every_linear_layer_but_the_head_is_found_in_order():
    model = planted_model()
    found = matrices(model)
    assert list(found) == [f"h.{layer}.{kind}" for layer in range(3) for kind in KINDS]
    inside = sum(module.weight.numel() for module in model.h.modules() if isinstance(module, torch.nn.Linear))
    assert sum(matrix.weight.numel() for matrix in found.values()) == inside


def test_kinds_choose_among_them():
    found = matrices(planted_model(), ["mlp.c_proj", "attn.c_attn"])
    assert list(found) == [
        f"h.{layer}.{kind}" for layer in range(3) for kind in ("attn.c_attn", "mlp.c_proj")
    ]


@pytest.mark.parametrize("family, mlp", [("supertf SwiGLU", "mlp.c_proj"), ("Llama", "mlp.down_proj")])
def test_the_head_is_a_kind_of_its_own_for_those_who_ask(family, mlp):
    model = tiny(family)
    found = matrices(model, ["lm_head"])
    ((name, head),) = found.items()
    assert kind(name) == "lm_head" and (head.layer, tuple(head.weight.shape)) == (3, (50, 16))
    assert name not in matrices(model)
    assert list(matrices(model, [mlp, "lm_head"]))[3:] == [name]


def test_a_head_that_is_no_plain_matrix_is_in_nobodys_way():
    model = planted_model()
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(16, 50))
    assert list(matrices(model, ["mlp.c_proj"])) == [f"h.{layer}.mlp.c_proj" for layer in range(3)]
    with pytest.raises(UserError, match="choose one or more of"):
        matrices(model, ["lm_head"])


def test_a_head_of_its_own_is_pruned_and_a_tied_one_refused():
    model = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "tie_head": False})).eval()
    sparse = plan_static(model, "magnitude", 0.5, kinds=["lm_head"], progress=False)
    before = model.lm_head.weight.detach().clone()
    with pruned(model, sparse):
        assert int((model.lm_head.weight == 0).sum()) == 400
    assert torch.equal(model.lm_head.weight, before)
    with pytest.raises(UserError, match=r"lm_head is tied to wte"):
        plan_static(planted_model(), "magnitude", 0.5, kinds=["lm_head"], progress=False)


@pytest.mark.parametrize("kinds", [["mlp.down_proj"], ["mlp.c_proj", "head"], [], "mlp.c_proj"])
def test_an_unknown_kind_is_refused_with_those_of_the_model(kinds):
    with pytest.raises(UserError, match=r"choose one or more of attn\.c_attn, attn\.c_proj, mlp\.c_fc"):
        matrices(planted_model(), kinds)


def test_a_coordinate_is_marked_in_its_layers_output_projection():
    masks = marks(planted_model(), [(1, 7, 21), (1, 0, 0)])
    assert list(masks) == ["h.1.mlp.c_proj"]
    assert masks["h.1.mlp.c_proj"].nonzero().tolist() == [[0, 0], [7, 21]]
    with pytest.raises(UserError, match="no weight"):
        marks(planted_model(), [(1, 16, 0)])
