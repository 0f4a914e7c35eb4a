"""GGUF files: what a file says about itself, and the weights and config of Llama-architecture models.

Each field of a file's header is used, known to leave the computation as it is, or refused by name, before
any weight is expanded: a file that asks for more than its reader computes would give wrong numbers.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supertf.errors import UserError
from supertf.files import readable_gguf
from supertf.model.config import GPTConfig
from supertf.model.hf_weights import State, from_llama

# Fields about the file and how it was made; those of its text side, tokenizer.*, are not read here.
HARMLESS = ("general.", "split.", "quantize.", "imatrix.")
# Fields that ask for nothing with these values; the first one stands for an absent field.
FIXED: dict[str, tuple] = {
    "attention.causal": (True,),
    "rope.scaling.type": ("none", "linear"),  # linear by a factor of 1
    "rope.scaling.factor": (1, 0),
    "rope.scaling.attn_factor": (1,),
    "rope.scale_linear": (1, 0),
    "attention.sliding_window": (0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "tensor_data_layout": ("Meta AI original pth",),  # the order of rows that every converter writes
}
# The trained length, and how the rotation was scaled for it, which asks for nothing where it is not scaled.
WITHOUT_EFFECT = ("context_length", "rope.scaling.original_context_length", "rope.scaling.finetuned")

GGUF_NAMES = {
    "embedding": "token_embd.weight",
    "norm": "output_norm.weight",
    "head": "output.weight",
    "ln_1": "blk.{}.attn_norm.weight",
    "ln_2": "blk.{}.ffn_norm.weight",
    "q": "blk.{}.attn_q.weight",
    "k": "blk.{}.attn_k.weight",
    "v": "blk.{}.attn_v.weight",
    "o": "blk.{}.attn_output.weight",
    "gate": "blk.{}.ffn_gate.weight",
    "up": "blk.{}.ffn_up.weight",
    "down": "blk.{}.ffn_down.weight",
}


@dataclass(frozen=True)
class Header:
    """A file's own description.

    Attributes:
        path: the file.
        architecture: such as "llama".
        fields: that architecture's, without its name in front.
        tensors: gguf's, with name, shape and type; their data stay on disk.
    """

    path: Path
    architecture: str
    fields: dict[str, Any]
    tensors: list[Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The tensors' shapes in torch's order."""
        return {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in self.tensors}

    def field(self, name: str, default: Any = None) -> Any:
        """One of the architecture's fields; `UserError` when it is absent and has no default."""
        if name not in self.fields and default is None:
            raise UserError(
                f"{self.path} has no field {self.architecture}.{name}: it is no model in GGUF form, or a part"
            )
        return self.fields.get(name, default)

    def check(self, computed: dict[str, Any]) -> None:
        """Hold every field against what its reader will compute.

        Args:
            computed: what that is, under the names of the fields.

        Raises:
            UserError: a field has another value, or is not understood: neither among the computed ones nor in
                `FIXED` nor without effect.
        """
        absent = {name: value for name, value in self.defaults().items() if name in computed}
        for name, value in {**absent, **self.fields}.items():
            allowed = (computed[name],) if name in computed else FIXED.get(name, ())
            if name not in WITHOUT_EFFECT and not any(same(value, one) for one in allowed):
                wanted = f"supports only {' or '.join(map(repr, allowed))}" if allowed else "does not know it"
                raise UserError(f"{self.path}: {self.architecture}.{name} is {value!r}; its reader {wanted}")

    def defaults(self) -> dict[str, Any]:
        """What the format says of absent fields."""
        heads = self.field("attention.head_count")
        width = self.field("embedding_length") // heads
        keys = self.field("attention.key_length", width)
        return {
            "attention.head_count_kv": heads,
            "attention.key_length": width,
            "attention.value_length": width,
            "rope.dimension_count": keys,
            "attention.scale": keys**-0.5,
            "rope.freq_base": 10000.0,
            "rope.freq_base_swa": 10000.0,
            "attention.sliding_window": 0,
        }


def same(value: Any, expected: Any) -> bool:
    """Whether two values mean the same; the file's numbers are float32, and 0 stands for none."""
    if isinstance(value, float) and isinstance(expected, int | float):
        return math.isclose(value, expected, rel_tol=1e-5)
    return value == (0 if expected is None else expected)


def read_header(path: Path) -> Header:
    """Read a file's description; `UserError` when it is damaged, or no whole model."""
    import gguf

    with readable_gguf(path):
        reader = gguf.GGUFReader(path)
        names = [name for name in reader.fields if not name.startswith(("tokenizer.", "GGUF."))]
        values = {name: reader.fields[name].contents() for name in names}
        architecture = str(values["general.architecture"])
        if (kind := values.get("general.type", "model")) != "model":
            raise UserError(f"{path} holds no model but {kind!r}")
        if (parts := int(values.get("split.count", 1))) > 1:
            raise UserError(f"{path} is one part of {parts}: merge them first (llama-gguf-split --merge)")
    own = f"{architecture}."
    for name in names:
        if not name.startswith((own, *HARMLESS)):
            raise UserError(f"{path} has a field {name}, which is not known here and may change the model")
    fields = {name.removeprefix(own): value for name, value in values.items() if name.startswith(own)}
    return Header(path, architecture, fields, reader.tensors)


def read_gguf(path: Path) -> tuple[GPTConfig, State]:
    """Config and dequantised float32 weights of a Llama-architecture GGUF file.

    `UserError` before any weight is expanded when the file asks for something that this decoder lacks.
    """
    import gguf

    header = read_header(path)
    state: State = {}
    with readable_gguf(path):
        config = llama_config(header)
        for tensor in header.tensors:
            weights = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
            if re.fullmatch(r"blk\.\d+\.attn_[qk]\.weight", tensor.name):
                weights = pair_halves(weights, config.head_dim)
            state[tensor.name] = weights
        return config, from_llama(config, state, GGUF_NAMES)


def llama_config(header: Header) -> GPTConfig:
    """Our config for a Llama's GGUF file; `UserError` naming a field or tensor that this decoder lacks."""
    if header.architecture != "llama":
        raise UserError(
            f"{header.path} holds architecture {header.architecture!r}; this decoder reads 'llama'"
        )
    field, shapes = header.field, header.shapes
    config = GPTConfig(
        vocab_size=shapes.get("token_embd.weight", (0,))[0],
        n_ctx=field("context_length"),
        n_layer=field("block_count"),
        n_head=field("attention.head_count"),
        n_kv_head=field("attention.head_count_kv", field("attention.head_count")),
        n_embd=field("embedding_length"),
        n_inner=field("feed_forward_length"),
        position="rope",
        rope_base=float(field("rope.freq_base", 10000.0)),
        norm="rmsnorm",
        norm_eps=float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32
        mlp="swiglu",
        bias=False,
        tie_head="output.weight" not in shapes,
    )
    header.check(
        {
            "vocab_size": config.vocab_size,
            "block_count": config.n_layer,
            "embedding_length": config.n_embd,
            "feed_forward_length": config.n_inner,
            "attention.head_count": config.n_head,
            "attention.head_count_kv": config.n_kv_head,
            "attention.key_length": config.head_dim,
            "attention.value_length": config.head_dim,
            "attention.layer_norm_rms_epsilon": config.norm_eps,
            "rope.dimension_count": config.head_dim,
            "rope.freq_base": config.rope_base,
        }
    )
    layers = {
        name.format(layer)
        for layer in range(min(config.n_layer, len(shapes)))
        for name in GGUF_NAMES.values()
    }
    if surplus := shapes.keys() - layers:
        raise UserError(f"{header.path} has a tensor {min(surplus)}, which is not part of this decoder")
    return config


def pair_halves(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder a query or key matrix (H * D, C) from rotating neighbours (GGUF) to rotating halves."""
    rows, width = weight.shape
    if rows % head_dim:
        raise UserError(f"a query or key matrix has {rows} rows, which are no heads of {head_dim}")
    pairs = weight.view(rows // head_dim, head_dim // 2, 2, width)  # (H, D/2, 2, C)
    return pairs.transpose(1, 2).reshape(rows, width)  # (H * 2 * D/2, C)
