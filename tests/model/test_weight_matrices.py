"""Matrices of a model, and coordinates of weights: found by name in every family, or refused in one line."""

import pytest
import torch
from families import EVERY, INNER, LAYERS, SMALL, WIDTH, tiny
from hypothesis import given
from hypothesis import strategies as st
from planted import CONFIG, planted_model
from torch import nn

from supertf.compression.pruning.static import plan_static
from supertf.compression.verbs import pruned
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.hf_model import HFModel
from supertf.model.weight_matrices import (
    kind,
    marks,
    matrices,
    output_projections,
    parse,
    show,
)

transformers = pytest.importorskip("transformers")
KINDS = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def hf(config):
    return HFModel(transformers.AutoModelForCausalLM.from_config(config))


@pytest.mark.parametrize("family", EVERY)
def test_every_family_has_one_projection_per_layer_with_out_first(family):
    found = output_projections(tiny(family))
    assert [projection.layer for projection in found] == list(range(LAYERS))
    assert {tuple(projection.weight.shape) for projection in found} == {(WIDTH, INNER)}


@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT", "supertf GELU"])
def test_the_matrix_is_a_view_and_rows_and_biases_are_copies(family):
    model = tiny(family)
    projection = output_projections(model)[1]
    old = projection.weight[7, 21].item()
    projection.row(7)[21] = 5.0
    assert projection.weight[7, 21].item() == old
    with torch.no_grad():
        projection.weight[7, 21] = 5.0
    assert 5.0 in projection.module.weight
    assert torch.equal(projection.row(7), projection.weight[7])
    if family == "Llama":
        assert projection.bias(7) is None
    else:
        assert torch.equal(projection.bias(7), projection.module.bias[7:8])


def test_layers_are_ordered_by_number_not_by_name_or_by_creation():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Module()
            for layer in reversed(range(12)):
                block, block.mlp = nn.Module(), nn.Module()
                block.mlp.down_proj = nn.Linear(3, layer + 1)
                self.layers.add_module(str(layer), block)

    found = output_projections(Backwards())
    assert [(projection.layer, projection.weight.shape[0]) for projection in found] == [
        (layer, layer + 1) for layer in range(12)
    ]


@pytest.mark.parametrize(
    "config",
    [
        lambda: transformers.MixtralConfig(**SMALL, num_local_experts=2),
        lambda: transformers.Qwen2MoeConfig(**SMALL, num_experts=4, shared_expert_intermediate_size=8),
    ],
    ids=["Mixtral", "Qwen2-MoE, with a shared expert"],
)
def test_mixtures_of_experts_are_refused(config):
    with pytest.raises(UserError, match=r"mixture of experts.*dense models only"):
        output_projections(hf(config()))


def test_a_model_without_mlp_projections_is_refused_by_its_own_name():
    config = transformers.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    mamba = transformers.MambaForCausalLM(config)
    mamba.config.max_position_embeddings = 24
    with pytest.raises(UserError, match="MambaForCausalLM has 0 MLP output projections"):
        output_projections(HFModel(mamba))
    with pytest.raises(UserError, match="Linear has 0 MLP output projections"):
        output_projections(nn.Linear(2, 2))


def test_an_image_encoder_beside_the_language_model_does_not_count():
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config={**SMALL, "head_dim": 8}, vision_config={**vision, "image_size": 28, "patch_size": 14}
    )
    found = output_projections(HFModel(transformers.Gemma3ForConditionalGeneration(config)))
    assert [projection.weight.shape[1] for projection in found] == [INNER] * LAYERS


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_a_quantized_matrix_is_one_clear_line(dtype):
    model = tiny("Llama")
    projection = output_projections(model)[1]
    projection.module.weight = nn.Parameter(projection.module.weight.to(dtype), requires_grad=False)
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj holds .*8.*without quantization"):
        output_projections(model)


def test_a_matrix_packed_away_by_a_quantizer_is_one_clear_line():
    model = tiny("Llama")
    packed = nn.Module()
    packed.register_buffer("qweight", torch.zeros(5, 16, dtype=torch.int32))
    output_projections(model)
    model.model.model.layers[1].mlp.down_proj = packed
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.down_proj holds .*without quantization"):
        output_projections(model)


def test_every_linear_layer_but_the_head_is_found_in_order():
    model = planted_model()
    found = matrices(model)
    assert list(found) == [f"h.{layer}.{kind}" for layer in range(3) for kind in KINDS]
    inside = sum(module.weight.numel() for module in model.h.modules() if isinstance(module, nn.Linear))
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
    model.lm_head = nn.Sequential(nn.Linear(16, 50))
    assert list(matrices(model, ["mlp.c_proj"])) == [f"h.{layer}.mlp.c_proj" for layer in range(3)]
    with pytest.raises(UserError, match="choose one or more of"):
        matrices(model, ["lm_head"])


def test_a_head_of_its_own_is_pruned_and_a_tied_one_refused():
    model = GPT(CONFIG.__class__(**{**CONFIG.to_dict(), "tie_head": False})).eval()
    sparse = plan_static(model, "magnitude", 0.5, matrices=["lm_head"], progress=False)
    before = model.lm_head.weight.detach().clone()
    with pruned(model, sparse):
        assert int((model.lm_head.weight == 0).sum()) == 400
    assert torch.equal(model.lm_head.weight, before)
    with pytest.raises(UserError, match=r"lm_head is tied to wte"):
        plan_static(planted_model(), "magnitude", 0.5, matrices=["lm_head"], progress=False)


def test_a_coordinate_is_marked_in_its_layers_output_projection():
    masks = marks(planted_model(), [(1, 7, 21), (1, 0, 0)])
    assert list(masks) == ["h.1.mlp.c_proj"]
    assert masks["h.1.mlp.c_proj"].nonzero().tolist() == [[0, 0], [7, 21]]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["[", "", " "]))
def test_a_coordinate_reads_back_as_it_was_shown(layer, out, into, style):
    text = show((layer, out, into)) if style == "[" else f"{layer},{style}{out}, {into}"
    assert parse(text) == (layer, out, into)
