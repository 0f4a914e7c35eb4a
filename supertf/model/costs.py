"""What a decoder computes, counted from its config."""

from supertf.model.config import GPTConfig


def flops_per_token(config: GPTConfig, length: int | None = None, *, training: bool = True) -> int:
    """Floating-point operations per token of a window: of its matrix products and of causal attention.

    A weight of a matrix product costs 2 in the forward pass, and a query that sees T / 2 keys on average
    2 T H D in each layer; the backward pass costs twice the forward one (Kaplan et al. 2020, section 2.1,
    with attention over what the causal mask leaves, and the output head). Norms, activations and the softmax
    are not counted.

    Args:
        config: of the decoder.
        length: T, tokens of the window; None: the context.
        training: with the backward pass.
    """
    C, heads = config.n_embd, config.n_head * config.head_dim
    attention = C * (heads + 2 * config.kv_heads * config.head_dim) + heads * C
    mlp = (3 if config.mlp == "swiglu" else 2) * C * config.inner
    weights = config.n_layer * (attention + mlp) + config.vocab_size * C
    forward = 2 * weights + 2 * config.n_layer * (length or config.n_ctx) * heads
    return (3 if training else 1) * forward
