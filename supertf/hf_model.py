"""Any Hugging Face causal language model behind the interface of this lab's `GPT`, and its tokenizer.

`evaluate`, `generation`, `superweights` and `ablation` then work on it unchanged. transformers is needed, and
only here. A checkpoint larger than the memory is read layer by layer while it runs (`stream=True`, by
accelerate's offloading): slow, but nothing is kept. `load_any` picks the loader that fits a model.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import tiktoken
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from supertf.checkpoint import load_tokenizer_of, locate
from supertf.errors import UserError
from supertf.files import read_json
from supertf.gguf_header import read_header
from supertf.gguf_weights import llama_config
from supertf.hf_gguf import gguf_options
from supertf.model import GPT, Output
from supertf.pretrained import (
    CONFIG,
    MODEL_TYPE,
    fetch_from_hub,
    foreign_config,
    load_model,
    may_be_hub_id,
)
from supertf.tokenizer import load_tokenizer

# What transformers and what it reads with raise on a model that is missing, damaged or of no known kind.
LOADING_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError)
LOADING_ERRORS += (SafetensorError,)


@dataclass(frozen=True)
class HFConfig:
    """What the lab's tools ask of a model's config, under this lab's names."""

    model_type: str
    vocab_size: int
    n_ctx: int
    n_layer: int
    n_embd: int

    @property
    def length_limit(self) -> int:
        """Tokens at most, see `GPTConfig.length_limit`."""
        return self.n_ctx


class HFModel(nn.Module):
    """A transformers causal language model, called as `GPT` is: logits, losses, a cache."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval()
        values = model.config.get_text_config()
        limit = getattr(values, "max_position_embeddings", None)  # None: ALiBi, as in some Falcons
        self.config = HFConfig(
            values.model_type,
            values.vocab_size,
            limit or 2**31,
            values.num_hidden_layers,
            values.hidden_size,
        )

    @property
    def device(self) -> torch.device:
        """Where inputs go; weights on disk are computed on the CPU."""
        device = next(self.model.parameters()).device
        return torch.device("cpu") if device.type == "meta" else device

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, *, cache: Any = None, last_only: bool = False
    ) -> Output:
        """Logits (B, T, V), of the last token with last_only; with targets (B, T) the mean loss in nats."""
        logits = self.model(
            input_ids=idx,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=1 if last_only else 0,
        ).logits
        if targets is None:
            return Output(logits)
        return Output(
            None, F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)
        )

    def new_cache(self) -> Any:
        """An empty cache for `forward`."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def num_parameters(self) -> int:
        """Distinct parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_hf_model(
    name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    stream: bool = False,
) -> HFModel:
    """A folder, hub id or GGUF file of a Hugging Face causal language model, in evaluation mode.

    dtype: None keeps the checkpoint's. stream: leave the weights in their safetensors files and read each
    layer when it runs, on the CPU. Raises `UserError` without transformers, and when the model is missing,
    damaged, incomplete or none that predicts the next token.
    """
    place, options = name, {"device_map": {"": "disk"}, "use_safetensors": True} if stream else {}
    with quiet_transformers() as transformers:
        try:
            if is_gguf(name):
                place, options = Path(name).parent, gguf_options(transformers, Path(name))
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                place, dtype=dtype or "auto", output_loading_info=True, **options
            )
        except UserError:
            raise
        except LOADING_ERRORS as error:
            if "offload_folder" in str(error):  # where transformers would put them, rewritten
                raise UserError(
                    f"{name} cannot be read layer by layer: its weights are not stored as the model uses "
                    "them (most mixtures of experts, files other than safetensors)"
                ) from error
            raise UserError(
                f"could not load {name} as a causal language model: {first_line(error)}; expected a folder "
                "with config.json and safetensors, or a hub id and the network"
            ) from error
    if info["missing_keys"]:  # transformers fills them with random numbers
        missing = sorted(info["missing_keys"])
        raise UserError(
            f"{name} lacks {len(missing)} of the model's tensors, such as {missing[0]}: the checkpoint is "
            "incomplete or of another kind"
        )
    return HFModel(model if stream else model.to(device))


class HFTokenizer:
    """A transformers tokenizer with the methods that the lab uses of tiktoken's encodings."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Token ids as the model expects a text: behind a BOS token, for models that want one."""
        return self.tokenizer.encode(text)

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of the text alone."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included, not tidied."""
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """One token's text in UTF-8; of a part of a character only that there is one."""
        return self.decode([token]).encode()

    @property
    def n_vocab(self) -> int:
        """How many tokens there are, special ones included."""
        return len(self.tokenizer)

    @property
    def eot_token(self) -> int:
        """The token that ends a text; `UserError` for a tokenizer without one."""
        if self.tokenizer.eos_token_id is None:
            raise UserError("this tokenizer has no end-of-text token")
        return self.tokenizer.eos_token_id


Tokenizer = tiktoken.Encoding | HFTokenizer


def load_any(
    name: str | Path,
    stream: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> tuple[GPT | HFModel, Tokenizer]:
    """A model and its tokenizer, by this lab's loader where it can, else by transformers.

    The lab's `load_model` reads smollm2-135m, folders and runs of this lab, and GPT-2, Llama and Mistral
    checkpoints and Llama's GGUF files whose settings it supports; any other folder, hub id or GGUF file goes
    to `load_hf_model`, and with stream all of them. dtype: None is float32 for the lab's models and the
    checkpoint's own for others. tokenizer: one of `load_tokenizer`'s in place of the model's. Raises
    `UserError` as the loaders do, and on a model without a tokenizer.
    """
    given = load_tokenizer(tokenizer) if tokenizer else None
    if stream and (str(name) == "smollm2-135m" or is_gguf(name)):
        raise UserError(f"{name} is one GGUF file, which is read whole: leave out streaming")
    if not stream and lab_reads(name):
        model = load_model(name, device, dtype or torch.float32)
        return model, given or tokenizer_of(name, model.config.vocab_size)
    return load_hf_model(name, device, dtype, stream), given or hf_tokenizer(name)


def is_gguf(name: str | Path) -> bool:
    """Whether a name means a GGUF file; no hub id ends like one."""
    return str(name).endswith(".gguf")


def lab_reads(name: str | Path) -> bool:
    """Whether `load_model` reads this model, as its config or header tells. Of a hub id only the config is
    fetched. Raises `UserError` when there is none, or it is damaged."""
    path = locate(name)  # `load_model` checks that it is whole
    if str(name) == "smollm2-135m":
        return True
    if is_gguf(path) and path.is_file():
        supported, told = llama_config, read_header(path)
    elif path.is_dir() or (not path.exists() and may_be_hub_id(str(name))):
        folder = path if path.is_dir() else fetch_from_hub(str(name), (CONFIG,))
        supported, told = foreign_config, read_json(folder / CONFIG)
        if told.get("model_type") == MODEL_TYPE:
            return True
    else:
        return True  # no model: it says what was expected
    try:
        supported(told)
    except UserError:  # a feature that the lab's decoder lacks
        return False
    return True


def tokenizer_of(name: str | Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a model that `load_model` reads: the lab's, else the one beside the weights."""
    try:
        return load_tokenizer_of(name, vocab_size)
    except UserError:
        return hf_tokenizer(name)


def hf_tokenizer(name: str | Path) -> HFTokenizer:
    """The tokenizer of a Hugging Face folder, hub id or GGUF file; `UserError` when there is none."""
    path = Path(name)  # absolute: a file of that name in the working folder would go first
    place, options = (path.parent, {"gguf_file": str(path.resolve())}) if is_gguf(name) else (name, {})
    with quiet_transformers() as transformers:
        try:
            tokenizer = HFTokenizer(transformers.AutoTokenizer.from_pretrained(place, **options))
        except LOADING_ERRORS as error:
            raise UserError(
                f"no tokenizer for {name}: {first_line(error)}; expected its files beside the weights"
            ) from error
    if not tokenizer.encode_ordinary("a"):  # transformers makes an empty one where files are missing
        raise UserError(f"no tokenizer for {name}: expected its files beside the weights")
    return tokenizer


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


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its kind when it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".: ") if lines else type(error).__name__
