"""What a decoder is made of: `GPTConfig` with one switch per design choice, and presets."""

import dataclasses
import sys
from dataclasses import dataclass
from typing import Any

from supertf.errors import UserError
from supertf.model.scalings import SCALINGS

ATTENTIONS = tuple(SCALINGS)
POSITIONS = ("none", "learned", "sinusoidal", "rope", "alibi")
NORMS = ("layernorm", "rmsnorm")
MLPS = ("gelu", "swiglu")
MAX_SIZE = 10**8  # of any one dimension; two of them still multiply to a tensor that can be described


@dataclass(frozen=True)
class GPTConfig:
    """Shape and switches of one decoder; the defaults are GPT-2 (124M).

    Attributes:
        vocab_size: tokens, V.
        n_ctx: trained context in tokens; SSMax starts its s from it.
        n_layer: blocks.
        n_head: query heads, H.
        n_kv_head: key and value heads; fewer than n_head: grouped-query attention; None: one per query head.
        n_head_dim: channels per head, D; None: n_embd / n_head.
        n_embd: width of the residual stream, C.
        n_inner: width of the MLP; None: 4 * n_embd as in GPT-2.
        attention: how logits scale with the number of visible keys, one of `SCALINGS`.
        attention_constant: the factor of attention="constant".
        zero_key: heads may attend to nothing: softmax-off-by-one, a model without sinks.
        position: one of `POSITIONS`.
        rope_base: of the rotation's frequencies.
        rope_fraction: share of each head's frequencies that rotate; below 1 is p-RoPE.
        norm: "layernorm" or "rmsnorm".
        norm_eps: added to the variance, or the mean square, under the root.
        mlp: "gelu" or "swiglu".
        qk_norm: RMSNorm without weights on every query and key head, before positions.
        bias: biases in linear layers and LayerNorm.
        tie_head: the output head shares the token embedding's matrix.
        dropout: share of units, in training.
        init_std: of fresh matrices; narrow models learn faster from 1 / sqrt(n_embd).

    Raises:
        UserError: a field has another type or is out of range, or two do not fit together.
    """

    vocab_size: int = 50257
    n_ctx: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_kv_head: int | None = None
    n_head_dim: int | None = None
    n_embd: int = 768
    n_inner: int | None = None
    attention: str = "softmax"
    attention_constant: float = 1.0
    zero_key: bool = False
    position: str = "learned"
    rope_base: float = 10000.0
    rope_fraction: float = 1.0
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    mlp: str = "gelu"
    qk_norm: bool = False
    bias: bool = True
    tie_head: bool = True
    dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self) -> None:
        self._check_types()
        sizes = ("vocab_size", "n_ctx", "n_layer", "n_head", "n_kv_head", "n_head_dim", "n_embd", "n_inner")
        for name in sizes:
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MAX_SIZE:
                raise UserError(f"{name} is {value}, expected at least 1 and at most {MAX_SIZE:,}")
        for name, lowest in (
            ("rope_base", 0),
            ("norm_eps", 0),
            ("init_std", 0),
            ("attention_constant", -sys.float_info.max),
        ):
            value = getattr(self, name)
            if not (lowest < value <= sys.float_info.max):  # an integer can be finite and yet no float
                expected = "a positive number" if lowest == 0 else "a finite number"
                raise UserError(f"{name} is {value}, expected {expected}")
        for name, allowed in (
            ("attention", ATTENTIONS),
            ("position", POSITIONS),
            ("norm", NORMS),
            ("mlp", MLPS),
        ):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(allowed)}")
        if self.n_head_dim is None and self.n_embd % self.n_head:
            raise UserError(
                f"{self.n_head} heads do not divide a width of {self.n_embd}: "
                "choose n_embd as a multiple of n_head, or give n_head_dim"
            )
        if self.n_head * self.head_dim > MAX_SIZE:
            raise UserError(
                f"{self.n_head} heads of {self.head_dim} channels, expected at most {MAX_SIZE:,} "
                "channels in all"
            )
        if self.n_head % self.kv_heads:
            raise UserError(f"n_kv_head is {self.kv_heads}, expected a divisor of n_head = {self.n_head}")
        if self.position == "rope" and self.head_dim % 2:
            raise UserError(
                f"RoPE rotates pairs, but each head has {self.head_dim} channels: make n_embd / n_head "
                "(or n_head_dim) even"
            )
        if not 0 < self.rope_fraction <= 1:
            raise UserError(f"rope_fraction is {self.rope_fraction}, expected more than 0 and at most 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout is {self.dropout}, expected at least 0 and less than 1")

    def _check_types(self) -> None:
        """`UserError` unless every field has the type of its default (an integer also counts as float)."""
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            if value is None and default is None:
                continue
            expected = int if default is None else type(default)
            if type(value) is not expected and (type(value), expected) != (int, float):
                raise UserError(
                    f"model setting {field.name} is {value!r}, expected a value of type {expected.__name__}"
                )

    @property
    def head_dim(self) -> int:
        """Channels per head, D."""
        return self.n_embd // self.n_head if self.n_head_dim is None else self.n_head_dim

    @property
    def kv_heads(self) -> int:
        """Key and value heads."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def inner(self) -> int:
        """Width of the MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner

    @property
    def length_limit(self) -> int | None:
        """Most tokens the model can read; None where nothing ends (learned tables of n_ctx rows do)."""
        tables = self.position == "learned" or "p" in SCALINGS[self.attention].numbers
        return self.n_ctx if tables else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GPTConfig":
        """The inverse of `to_dict`; `UserError` on unknown names and whatever `GPTConfig` refuses."""
        fields = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(fields))
        if unknown:
            raise UserError(f"unknown model settings {', '.join(unknown)}; known: {', '.join(fields)}")
        return cls(**values)


_SIZES = {  # the original project's three sizes: width, heads, layers, MLP width, context
    "small": (768, 8, 6, 2048, 1024),
    "default": (1024, 16, 24, 4096, 2048),
    "large": (1280, 20, 36, 5120, 4096),
}

PRESETS: dict[str, GPTConfig] = {
    "lab": GPTConfig(  # a million parameters: a step takes about a seventh of a second on two CPU cores
        vocab_size=2048,
        n_ctx=128,
        n_layer=4,
        n_head=4,
        n_embd=128,
        norm="rmsnorm",
        bias=False,
        position="rope",
    ),
    **{
        name: GPTConfig(n_embd=width, n_head=heads, n_layer=layers, n_inner=inner, n_ctx=context)
        for name, (width, heads, layers, inner, context) in _SIZES.items()
    },
    "gpt2": GPTConfig(),
    "smollm2-135m": GPTConfig(
        vocab_size=49152,
        n_ctx=8192,
        n_layer=30,
        n_head=9,
        n_kv_head=3,
        n_embd=576,
        n_inner=1536,
        position="rope",
        rope_base=100000.0,
        norm="rmsnorm",
        mlp="swiglu",
        bias=False,
    ),
}


def preset(name: str, **changes: Any) -> GPTConfig:
    """A known decoder's config.

    Args:
        name: one of `PRESETS`, such as "lab", "gpt2" or "smollm2-135m".
        **changes: fields to replace.

    Raises:
        UserError: an unknown name, or fields that `GPTConfig` refuses.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    return dataclasses.replace(PRESETS[name], **changes)


def language_config(vocab_size: int, context: int, **changes: Any) -> GPTConfig:
    """The small language models of the lab's experiments: three layers, four heads, width 64, no positions.

    Args:
        vocab_size: tokens.
        context: trained context in tokens.
        **changes: fields to replace.
    """
    small = {"n_layer": 3, "n_head": 4, "n_embd": 64, "norm": "rmsnorm", "bias": False, "init_std": 0.125}
    return GPTConfig(vocab_size=vocab_size, n_ctx=context, **{**small, "position": "none", **changes})
