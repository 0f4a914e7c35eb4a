"""Any Hugging Face causal language model behind the interface of this lab's `GPT`.

What generates, measures, prunes or looks for super weights then works on it unchanged. A checkpoint larger
than the memory is read layer by layer while it runs (`stream=True`, by accelerate's offloading): slow, but
nothing is kept. `load` picks the loader that fits a model.
"""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from supertf.errors import Note, UserError, first_line
from supertf.files import read_json
from supertf.model.checkpoint import locate, trained_with_bos
from supertf.model.gguf_files import llama_config, read_header
from supertf.model.hf_library import LOADING_ERRORS, gguf_options, quiet_transformers
from supertf.model.hf_tokenizer import Tokenizer, named_tokenizer, tokenizer_of
from supertf.model.language_model import LanguageModel, Output
from supertf.model.pretrained import (
    CONFIG,
    MODEL_TYPE,
    fetch_from_hub,
    foreign_config,
    load_model,
    may_be_hub_id,
    own_folder,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENDLESS = 2**31  # the context of a model whose config names none


@dataclass(frozen=True)
class HFConfig:
    """What the lab's tools ask of a model's config, under this lab's names.

    length_limit is that of `GPTConfig`: n_ctx where the positions are a table, else None.
    """

    model_type: str  # transformers' name of the family
    vocab_size: int
    n_ctx: int
    n_layer: int
    n_embd: int
    length_limit: int | None


class HFModel(LanguageModel):
    """A transformers causal language model, called as `GPT` is: logits, losses, a cache."""

    def __init__(self, model: "PreTrainedModel"):
        super().__init__()
        self.model: PreTrainedModel = model.eval()
        values = model.config.get_text_config()
        lengths = (getattr(values, name, None) for name in ("max_position_embeddings", "max_seq_len"))
        n_ctx = next(filter(None, lengths), ENDLESS)  # none in models such as BLOOM and Mamba
        self.config = HFConfig(
            values.model_type,
            values.vocab_size,
            n_ctx,
            values.num_hidden_layers,
            values.hidden_size,
            n_ctx if has_position_table(model, n_ctx) else None,
        )
        # Whether the model uses the cache it is given; None: not tried yet, as that reads all weights from
        # disk. Else it is tried here, before anybody changes what the model computes.
        self.caches = None if self.on_disk else uses_cache(self)

    @property
    def device(self) -> torch.device:
        """Where inputs go; weights on disk are computed on the CPU."""
        return torch.device("cpu") if self.on_disk else next(self.model.parameters()).device

    @property
    def on_disk(self) -> bool:
        """Whether the weights are read layer by layer."""
        return next(self.model.parameters()).device.type == "meta"

    def forward(
        self, idx: Tensor, targets: Tensor | None = None, *, cache: Any = None, last_only: bool = False
    ) -> Output:
        """Run tokens through the model.

        Args:
            idx: token ids, (B, T) int64.
            targets: (B, T) int64, -100 where no loss is wanted.
            cache: of the tokens before these, from `new_cache`; extended in place.
            last_only: logits of the last token only, (B, 1, V).

        Returns:
            Logits (B, T, V), or with targets the mean loss in nats.

        Raises:
            UserError: more tokens than the model has positions for.
        """
        T = idx.shape[1] + (0 if cache is None else cache.get_seq_length())
        limit = self.config.length_limit
        if limit is not None and limit < T:
            raise UserError(
                f"the model has positions for {limit} tokens and was given {T}: shorten the input"
            )
        try:
            logits = self.model(
                input_ids=idx,
                past_key_values=cache,
                use_cache=cache is not None,
                logits_to_keep=1 if last_only else 0,
            ).logits
        except (IndexError, RuntimeError, ValueError) as error:  # tables of other kinds, in GPT-J or MPT
            if isinstance(error, UserError) or (self.config.n_ctx >= T and not isinstance(error, IndexError)):
                raise
            raise UserError(
                f"the model cannot read {T} tokens ({first_line(error)}): shorten the input"
            ) from error
        if targets is None:
            return Output(logits)
        return Output(
            None, F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100)
        )

    def new_cache(self) -> Any | None:
        """An empty cache for `forward`; None, said in a `Note`, for a model that does not use it.

        Some models (Mamba, RWKV) ignore it without a word, and would forget all that they have read.
        """
        from transformers import DynamicCache

        if self.caches is None:
            self.caches = uses_cache(self)
        if self.caches:
            return DynamicCache(config=self.model.config)
        warnings.warn(
            f"{self.config.model_type} models do not use transformers' usual cache: every new token reads "
            "the whole text again, which is slow but right",
            Note,
            stacklevel=2,
        )
        return None


def has_position_table(model: "PreTrainedModel", n_ctx: int) -> bool:
    """Whether a model looks positions up in a table: an embedding of n_ctx rows, or of a few more that are
    not used (two in OPT), beside that of the words."""
    words = model.get_input_embeddings()
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return any(n_ctx <= table.num_embeddings <= n_ctx + 8 for table in tables if table is not words)


def some_tokens(model: HFModel) -> list[int]:
    """Five different ids from the middle of the vocabulary, where no special ones are."""
    return [model.config.vocab_size * part // 7 for part in range(1, 6)]


def tolerance(logits: Tensor) -> float:
    """The share of a difference between logits that rounding may explain."""
    return max(1e-3, 4 * torch.finfo(logits.dtype).eps)


@torch.inference_mode()
def check_causal(model: HFModel, name: str | Path) -> None:
    """`UserError` when logits of earlier tokens move with the last one: no loss of such a model is one of
    predicting the next token.

    Two rows that differ in the last token go through the model together, so that all else is computed alike.
    """
    *text, first, second = some_tokens(model)
    logits = model(torch.tensor([[*text, first], [*text, second]], device=model.device)).logits  # (2, 4, V)
    moved = (logits[0] - logits[1]).float().abs().amax(-1)  # (4,)
    if moved[:-1].max() > tolerance(logits) * moved[-1]:
        raise UserError(
            f"{name} is not a causal language model: what it says of earlier tokens changes with the last "
            "one (as in BERT, or a model made for embeddings); expected one that predicts the next token"
        )


@torch.inference_mode()
def uses_cache(model: HFModel) -> bool:
    """Whether reading in pieces with a cache gives the logits of reading at once.

    Not when they are off by more than a little of what forgetting the first piece would do.
    """
    from transformers import DynamicCache

    idx = torch.tensor([some_tokens(model)], device=model.device)  # (1, 5)
    whole, alone = (model(part).logits[0, -3:] for part in (idx, idx[:, 2:]))
    try:
        cache = DynamicCache(config=model.model.config)
        pieces = [model(part, cache=cache).logits[0] for part in idx.split([2, 2, 1], dim=1)]
    except LOADING_ERRORS:  # MiniMax and others want a cache of their own
        return False
    off, forgotten = ((found - whole).float().abs().max() for found in (torch.cat(pieces)[-3:], alone))
    return bool(off <= tolerance(whole) * forgotten)


def load_hf_model(
    name: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    stream: bool = False,
) -> HFModel:
    """A Hugging Face causal language model, read by transformers, in evaluation mode.

    Args:
        name: a folder, hub id or GGUF file.
        device: where it computes.
        dtype: of the weights; None keeps the checkpoint's.
        stream: leave the weights in their safetensors files and read each layer when it runs, on the CPU.

    Raises:
        UserError: transformers is not installed, or the model is missing, damaged, incomplete or none that
            predicts the next token, which four tokens show.
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
    with quiet_transformers():
        try:
            found = HFModel(model if stream else model.to(device))
            check_causal(found, name)
        except UserError:
            raise
        except LOADING_ERRORS as error:
            raise UserError(f"{name} does not read plain text: {first_line(error)}") from error
    return found


def load(
    name: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    tokenizer: str | Path | None = None,
    stream: bool = False,
) -> tuple[LanguageModel, Tokenizer]:
    """A model in evaluation mode and its tokenizer, by this lab's loader where it can, else by transformers.

    The lab's own reads smollm2-135m, folders and runs of this lab, and GPT-2, Llama and Mistral checkpoints
    and Llama's GGUF files whose settings it supports; any other folder, hub id or GGUF file goes to
    transformers.

    Args:
        name: "smollm2-135m" (after `supertf fetch`), the folder of a model or a training run, a `.gguf` file,
            or a Hugging Face hub id.
        device: where it computes.
        dtype: of the weights; None is float32 for the lab's models, and the checkpoint's own for others.
        tokenizer: in place of the model's: "gpt2", "bytes", "smollm2-135m", a file, or another model.
        stream: read the layers from disk one by one while it runs, for checkpoints larger than the memory.

    Returns:
        A `GPT` or an `HFModel`, which are called alike, and the tokenizer, whose `bos_id` is the token that
        begins every text of this model, None where nothing does.

    Raises:
        UserError: the model or its tokenizer is missing, damaged, or none that predicts the next token.

    Example:
        >>> model, tokenizer = load("smollm2-135m")
        >>> model.num_parameters(), tokenizer.n_vocab
        (134515008, 49152)
    """
    given = named_tokenizer(tokenizer) if tokenizer else None
    if stream and (str(name) == "smollm2-135m" or is_gguf(name)):
        raise UserError(f"{name} is one GGUF file, which is read whole: leave out streaming")
    if not stream and lab_reads(name):
        if is_hub_id(name):
            name = own_folder(str(name)) or name
        model: LanguageModel = load_model(name, device, dtype or torch.float32)
    else:
        model = load_hf_model(name, device, dtype, stream)
    found = given or tokenizer_of(name, model.config.vocab_size)
    if trained_with_bos(name):
        found.bos_id = found.eot_token
    return model, found


def is_gguf(name: str | Path) -> bool:
    """Whether a name means a GGUF file; no hub id ends like one."""
    return str(name).endswith(".gguf")


def is_hub_id(name: str | Path) -> bool:
    """Whether a name can only mean a model on the hub."""
    return str(name) != "smollm2-135m" and not Path(name).exists() and may_be_hub_id(str(name))


def lab_reads(name: str | Path) -> bool:
    """Whether `load_model` reads this model, by its config or header. Of a hub id only the config is fetched.
    `UserError` when there is none, or it is damaged."""
    path = locate(name)  # `load_model` checks that it is whole
    if str(name) == "smollm2-135m":
        return True
    if is_gguf(path) and path.is_file():
        read = functools.partial(llama_config, read_header(path))
    elif path.is_dir() or (not path.exists() and may_be_hub_id(str(name))):
        folder = path if path.is_dir() else fetch_from_hub(str(name), (CONFIG,))
        described = read_json(folder / CONFIG)
        if described.get("model_type") == MODEL_TYPE:
            return True
        read = functools.partial(foreign_config, described)
    else:
        return True  # no model: it says what was expected
    try:
        read()
    except UserError:  # a feature that the lab's decoder lacks
        return False
    return True
