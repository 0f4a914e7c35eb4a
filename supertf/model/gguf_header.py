"""What a GGUF file says about itself before its weights are read, and whether all of it is understood.

Each field is used, known to leave the computation as it is, or refused by name: a file that asks for more
than its reader computes would give wrong numbers without a word.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supertf.errors import UserError
from supertf.files import readable_gguf

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


@dataclass(frozen=True)
class Header:
    """A file's own description.

    architecture: such as "llama". fields: that architecture's, without its name in front. tensors: gguf's,
    with name, shape and type; their data stay on disk.
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

    def check(self, said: dict[str, Any]) -> None:
        """`UserError` naming a field whose value is not what its reader will compute.

        said: what the reader computes, under the names of the fields. A field that is neither there nor in
        `FIXED` nor without effect is not understood, and refused, too.
        """
        asked = {**{name: value for name, value in self.defaults().items() if name in said}, **self.fields}
        for name, value in asked.items():
            allowed = (said[name],) if name in said else FIXED.get(name, ())
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
    return value == (expected or 0) if expected is None else value == expected


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
