"""transformers as the lab uses it: without its warnings, its errors in one line, its GGUF reading checked.

Of a GGUF file, transformers takes some fields and tensors and overlooks the rest. Here its config is held
against every field, and its parameters against the tensors, before any weight is expanded.
"""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError

from supertf.errors import UserError
from supertf.files import readable_gguf
from supertf.model.gguf_files import read_header

# What transformers and what it reads with raise on a model that is missing, damaged or of no known kind.
LOADING_ERRORS: tuple[type[Exception], ...]
LOADING_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
LOADING_ERRORS += (SafetensorError,)

# Architectures that transformers reads as they were written: held against the logits of models of each.
ARCHITECTURES = (
    "llama",
    "bloom",
    "gemma2",
    "gemma3",
    "gpt2",
    "nemotron",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "stablelm",
    "starcoder2",
)

LIKE_GPT2 = ("gpt-2", "phi-2", "olmo")  # tokenizers whose texts are split as GPT-2's


@contextlib.contextmanager
def quiet_transformers() -> Iterator[ModuleType]:
    """transformers without warnings and bars of its own; downloads keep theirs. `UserError` without it."""
    try:
        import transformers
    except ImportError as error:
        raise UserError("models of this kind are read by transformers: `pip install transformers`") from error
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    loggers = {logger: logger.level for logger in map(logging.getLogger, ("transformers", "accelerate"))}
    bars = is_progress_bar_enabled()
    disable_progress_bar()
    enable_progress_bars()  # the hub's, which transformers switches off with its own
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield transformers
    finally:
        for logger, level in loggers.items():
            logger.setLevel(level)
        if bars:
            enable_progress_bar()


def gguf_options(transformers: ModuleType, path: Path) -> dict[str, Any]:
    """What `from_pretrained` needs beside a GGUF file's folder to read it in full precision.

    `UserError` when transformers does not read the file, or would compute something else than it says.
    """
    header = read_header(path)
    if header.architecture not in ARCHITECTURES:
        raise UserError(
            f"{path} holds architecture {header.architecture!r}; of GGUF files these are read: "
            + ", ".join(ARCHITECTURES)
        )
    # absolute: a name alone is looked for in the working folder first
    options = {"gguf_file": str(path.resolve())}
    config = transformers.AutoConfig.from_pretrained(path.parent, **options)
    with readable_gguf(path):
        header.check(computed_by(config))
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    expected = sum(parameter.numel() for parameter in model.parameters())
    found = sum(int(tensor.n_elements) for tensor in header.tensors)
    if found != expected:  # transformers leaves out what it has no place for, without a word
        raise UserError(
            f"{path} holds {found:,} numbers in {len(header.tensors)} tensors, where transformers' model of "
            f"this architecture has {expected:,}: it would compute something else"
        )
    return {**options, "quantization_config": transformers.GgufConfig(dequantize=True)}


def computed_by(config: Any) -> dict[str, Any]:
    """What a transformers config stands for, under the names of GGUF's fields; None: no such thing."""

    def first(*names: str) -> Any:
        return next((value for name in names if (value := getattr(config, name, None)) is not None), None)

    head_dim = first("head_dim") or config.hidden_size // config.num_attention_heads
    found = {
        "vocab_size": config.vocab_size,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": first("intermediate_size", "n_inner") or 4 * config.hidden_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": first("num_key_value_heads") or config.num_attention_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.scale": (first("query_pre_attn_scalar") or head_dim) ** -0.5,
        "attention.sliding_window": first("sliding_window"),
        "attn_logit_softcapping": first("attn_logit_softcapping"),
        "final_logit_softcapping": first("final_logit_softcapping"),
        "use_parallel_residual": first("use_parallel_residual"),
        "expert_count": first("num_experts"),
        "expert_used_count": first("num_experts_per_tok"),
        "expert_feed_forward_length": first("moe_intermediate_size"),
    }
    epsilon = first("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps")
    found |= dict.fromkeys(("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"), epsilon)
    if rope := first("rope_parameters"):
        full = rope.get("full_attention", rope)  # Gemma 3 has one rotation per kind of layer
        found["rope.freq_base"] = full["rope_theta"]
        found["rope.dimension_count"] = int(head_dim * full.get("partial_rotary_factor", 1))
        if "sliding_attention" in rope:
            found["rope.freq_base_swa"] = rope["sliding_attention"]["rope_theta"]
    return found


def check_split(path: Path) -> None:
    """`UserError` when transformers would split texts otherwise than a file's own tokenizer does.

    It takes GPT-2's way for every byte-level vocabulary whose way (`tokenizer.ggml.pre`) it does not know.
    """
    import gguf

    with readable_gguf(path):
        reader = gguf.GGUFReader(path)
        found = (reader.get_field(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
        kind, split = (field and field.contents() for field in found)
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:  # older ones know none
        GGUF_PRE_TOKENIZER_SPLITS = {}
    if kind == "gpt2" and split not in (None, *LIKE_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        raise UserError(
            f"{path} says that its tokenizer splits texts as {split!r}, which transformers does not know: "
            "name the model's original tokenizer with --tokenizer, a folder or a hub id"
        )
