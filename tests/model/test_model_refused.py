"""What the model's room refuses: in one line, with what was given and what is expected."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import CONFIG, PROMPT, planted_model

from supertf.errors import UserError
from supertf.model.config import GPTConfig, preset
from supertf.model.generation import generate
from supertf.model.gpt import with_changes
from supertf.model.hf_weights import gpt2_config, llama_config
from supertf.model.pretrained import foreign_config
from supertf.model.weight_matrices import check_coordinate, marks, matrices, output_projections, parse

HEADS = GPTConfig(vocab_size=50, n_ctx=24, n_layer=2, n_head=4, n_kv_head=2, n_embd=32, n_inner=48)
KINDS = r"choose one or more of attn\.c_attn, attn\.c_proj, mlp\.c_fc"


def config(**changes):
    return lambda: dataclasses.replace(HEADS, **changes)


def llama(**values):
    return lambda: llama_config(values)


def write(prompt=PROMPT, **settings):
    return lambda: generate(planted_model(), prompt, **{"max_new_tokens": 3} | settings)


def kinds(*names):
    return lambda: matrices(planted_model(), names)


def outside(*coordinate):
    return lambda: check_coordinate(output_projections(planted_model()), coordinate)


REFUSED = [
    (config(n_head=5), "5 heads do not divide a width of 32"),
    (config(n_kv_head=3), "n_kv_head is 3"),
    (config(n_kv_head=0), "n_kv_head is 0, expected at least 1"),
    (config(n_inner=0), "n_inner is 0, expected at least 1"),
    (config(n_inner=-8), "n_inner is -8"),
    (config(n_ctx=10**400), "at most 100,000,000"),
    (config(n_layer="2"), "n_layer is '2', expected a value of type int"),
    (config(n_layer=0), "n_layer is 0"),
    (config(n_head=None), "n_head is None"),
    (config(tie_head="no"), "tie_head is 'no', expected a value of type bool"),
    (config(rope_base=0.0), "rope_base is 0.0, expected a positive number"),
    (config(rope_base=math.inf), "rope_base is inf"),
    (config(rope_fraction=0.0), "rope_fraction is 0.0"),
    (config(norm_eps=0.0), "norm_eps is 0.0"),
    (config(norm_eps=math.nan), "norm_eps is nan"),
    (config(norm_eps=10**400), "norm_eps is 1000"),
    (config(attention_constant=math.nan), "attention_constant is nan, expected a finite number"),
    (config(attention_constant=-math.inf), "attention_constant is -inf"),
    (config(attention="sparse"), "expected one of softmax, ssmax"),
    (config(position="rope", n_embd=12), "even"),
    (lambda: preset("huge"), "unknown preset 'huge'; choose from lab, "),
    (lambda: with_changes(planted_model(), n_inner=24), "needs other weights than the model has"),
    # another project's config
    (lambda: foreign_config({"model_type": "mamba"}), "model_type 'mamba'"),
    (llama(attention_bias=True), "attention_bias is True; this decoder supports only False"),
    (llama(head_dim=8), "head_dim is 8"),
    (llama(num_attention_heads=0), "n_head is 0"),
    (llama(num_attention_heads="six"), "n_head is 'six'"),
    (llama(num_attention_heads=None), "n_head is None"),
    (llama(num_key_value_heads=0), "n_kv_head is 0"),
    (llama(hidden_size=24.0), r"n_embd is 24\.0"),
    (llama(rms_norm_eps="small"), "norm_eps is 'small'"),
    (llama(rope_parameters={"rope_type": "default", "rope_theta": 0}), "rope_base is 0"),
    (llama(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}), "rope_type is 'yarn'"),
    (llama(rope_parameters="yarn"), "rotary settings are 'yarn'"),
    (llama(tie_word_embeddings="yes"), "tie_head is 'yes'"),
    (lambda: gpt2_config({"n_head": 5}), "5 heads do not divide a width of 768"),
    # generation
    (write([]), "prompt is empty"),
    (write([50]), "token ids from 50 to 50"),
    (write([-1, 3]), "token ids from -1"),
    (write(temperature=-1.0), "temperature is -1.0"),
    (write(temperature=math.nan), "temperature is nan"),
    (write(top_k=0), "top_k is 0"),
    (write(top_p=1.5), "top_p is 1.5"),
    (write(max_new_tokens=0), "max_new_tokens is 0"),
    # matrices and weights
    (kinds("mlp.down_proj"), KINDS),
    (kinds("mlp.c_proj", "head"), KINDS),
    (kinds(), KINDS),
    (lambda: matrices(planted_model(), "mlp.c_proj"), KINDS),
    (outside(3, 0, 0), r"no weight 3\[0, 0\]: the model has layers 0 to 2"),
    (outside(0, 16, 0), r"no weight 0\[16, 0\]: .* 16 x 40"),
    (lambda: marks(planted_model(), [(1, 16, 0)]), r"no weight 1\[16, 0\]"),
]
NO_COORDINATES = ["", "11", "11[507]", "11[507,1229", "-1[0, 0]", "1[0, 0, 0]", "a[1, 2]", "1.5[2, 3]"]
REFUSED += [(lambda text=text: parse(text), r"expected layer\[out, in\]") for text in NO_COORDINATES]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_mistake_is_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_last_weight_of_a_model_is_not_refused():
    check_coordinate(output_projections(planted_model()), (2, CONFIG.n_embd - 1, CONFIG.n_inner - 1))


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*HEADS.to_dict(), "heads"]),
        st.one_of(st.none(), st.integers(-3, 99), st.text(), st.floats(), st.booleans()),
    )
)
def test_a_config_from_a_file_is_valid_or_a_user_error(values):
    try:
        config = GPTConfig.from_dict(values)
    except UserError:
        return
    assert GPTConfig.from_dict(config.to_dict()) == config
