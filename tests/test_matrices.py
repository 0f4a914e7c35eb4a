"""The matrices that are pruned: all linear layers but the head, by kind."""

import pytest
import torch
from planted import planted_model

from supertf.errors import UserError
from supertf.matrices import marks, matrices

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
