"""The MLPs' output projections are found by name in every family, or refused in one line."""

import pytest
import torch
from families import EVERY, INNER, LAYERS, SMALL, WIDTH, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supertf.errors import UserError
from supertf.model.hf_model import HFModel
from supertf.model.projections import check_coordinate, output_projections, parse, show

transformers = pytest.importorskip("transformers")


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


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["[", "", " "]))
def test_a_coordinate_reads_back_as_it_was_shown(layer, out, into, style):
    text = show((layer, out, into)) if style == "[" else f"{layer},{style}{out}, {into}"
    assert parse(text) == (layer, out, into)


@pytest.mark.parametrize(
    "text", ["", "11", "11[507]", "11[507,1229", "-1[0, 0]", "1[0, 0, 0]", "a[1, 2]", "1.5[2, 3]"]
)
def test_other_spellings_of_a_coordinate_are_refused(text):
    with pytest.raises(UserError, match=r"expected layer\[out, in\]"):
        parse(text)


def test_a_coordinate_outside_says_what_there_is():
    found = output_projections(tiny("GPT2"))
    check_coordinate(found, (2, 15, 39))
    with pytest.raises(UserError, match="layers 0 to 2"):
        check_coordinate(found, (3, 0, 0))
    with pytest.raises(UserError, match=r"no weight 0\[16, 0\]: .* 16 x 40"):
        check_coordinate(found, (0, 16, 0))
