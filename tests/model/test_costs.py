"""Operations of a decoder, against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from supertf.model.config import GPTConfig
from supertf.model.costs import flops_per_token
from supertf.model.gpt import GPT

SHAPE = {"vocab_size": 96, "n_ctx": 24, "n_layer": 3, "n_head": 4, "n_embd": 32, "position": "rope"}
B, T = 2, 24


@pytest.mark.parametrize(
    "changes", [{}, {"mlp": "swiglu", "n_inner": 80}, {"n_kv_head": 2}, {"n_head_dim": 16, "n_kv_head": 1}]
)
def test_matrix_products_are_counted_as_pytorch_counts_them(changes):
    """Its counter leaves out attention on a processor: of that a window of one token has none but its own."""
    config = GPTConfig(**SHAPE | changes)
    model, idx = GPT(config), torch.randint(config.vocab_size, (B, T))
    with FlopCounterMode(display=False) as forward:
        loss = model(idx, idx).loss
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    attention = {training: flops_per_token(config, T, training=training) for training in (False, True)}
    for training, counted in ((False, forward), (True, backward)):
        products = attention[training] - 2 * config.n_layer * T * config.n_head * config.head_dim * (
            3 if training else 1
        )
        done = forward.get_total_flops() + (backward.get_total_flops() if training else 0)
        assert done == pytest.approx(products * B * T, rel=1e-6), counted


def test_attention_grows_with_the_window_and_is_what_a_masked_product_takes():
    config = GPTConfig(**SHAPE)
    short, long = (flops_per_token(config, length, training=False) for length in (10, 20))
    query_key_and_value = 2 * 2 * 10 * config.n_head * config.head_dim / 2  # of ten keys a query sees half
    assert long - short == config.n_layer * query_key_and_value
