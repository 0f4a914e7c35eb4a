"""The tokenizer of any model: the one beside its weights, read by this lab or by transformers."""

import contextlib
import warnings
from pathlib import Path
from typing import Any, TypeAlias

from supertf.data import BytePairEncoding, gguf_tokenizer, load_tokenizer, special_ids, valid_unicode
from supertf.errors import Note, UserError, first_line
from supertf.files import read_json
from supertf.model.checkpoint import locate
from supertf.model.hf_library import LOADING_ERRORS, check_split, quiet_transformers
from supertf.model.pretrained import may_be_hub_id

TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges*", "spiece*", "sentencepiece*", "tekken*", "*.tiktoken")
EXPECTED = "expected its files beside the weights, or one named with --tokenizer"


class HFTokenizer:
    """A transformers tokenizer with the methods that the lab uses of tiktoken's encodings.

    Half a surrogate pair is read as U+FFFD. bos_id: the token that it puts in front of a text, None where it
    puts none.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        first = tokenizer.encode("a")[:1]
        self.bos_id = first[0] if first and first != self.encode_ordinary("a")[:1] else None

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Token ids of a prompt, which may spell special tokens; bos: as the model expects a text, behind a
        BOS token for models that want one."""
        return self.tokenizer.encode(valid_unicode(text), add_special_tokens=bos)

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, which may spell special tokens, behind the BOS token if there is one."""
        ids = self.encode(text, bos=False)
        return ids if self.bos_id is None else [self.bos_id, *ids]

    def encode_ordinary(self, text: str) -> list[int]:
        """Token ids of the text alone; what looks like a special token is text like any other."""
        return self.tokenizer.encode(valid_unicode(text), add_special_tokens=False, split_special_tokens=True)

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
    def ids(self) -> set[int]:
        """Every id that stands for a token."""
        return set(self.tokenizer.get_vocab().values())

    @property
    def ends(self) -> set[int]:
        """The special tokens that end a text: all but the one for what is unknown."""
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return (special | set(self.tokenizer.all_special_ids)) - {self.tokenizer.unk_token_id}

    @property
    def eot_token(self) -> int:
        """The token that ends a text; `UserError` for a tokenizer without one."""
        if self.tokenizer.eos_token_id is None:
            raise UserError("this tokenizer has no end-of-text token")
        return self.tokenizer.eos_token_id


Tokenizer: TypeAlias = BytePairEncoding | HFTokenizer


def text_ends(tokenizer: Tokenizer) -> set[int]:
    """The tokens that end a text."""
    return tokenizer.ends if isinstance(tokenizer, HFTokenizer) else special_ids(tokenizer)


def load_tokenizer_of(name: str | Path) -> BytePairEncoding | None:
    """The tokenizer that a model carries, if it is one that this lab reads; else None.

    Checkpoints and saved copies have a file beside the weights, SmolLM2's GGUF files a vocabulary inside.
    """
    if str(name) == "smollm2-135m":
        return load_tokenizer("smollm2-135m")
    path = locate(name)
    if path.suffix == ".gguf":
        with contextlib.suppress(UserError):  # another kind of tokenizer
            return gguf_tokenizer(path)
    saved = path / "tokenizer.json"  # folders of Hugging Face have a file of that name, too
    return load_tokenizer(saved) if saved.is_file() and "format" in read_json(saved) else None


def guess_tokenizer(name: str | Path, vocab_size: int) -> BytePairEncoding | None:
    """The last resort for a model that carries no tokenizer, said in a `Note`.

    GPT-2's and SmolLM2's are those of models that have "gpt2" or "smollm2" in their name and a vocabulary
    of that size; None when there is no telling.
    """
    for part, size, tokenizer in (("gpt2", 50257, "gpt2"), ("smollm2", 49152, "smollm2-135m")):
        if part in Path(name).name.lower() and vocab_size == size:
            warnings.warn(
                f"there is no tokenizer beside the weights of {name}: taking {tokenizer}'s, as the name and "
                f"the vocabulary of {size} suggest; name another with --tokenizer",
                Note,
                stacklevel=2,
            )
            return load_tokenizer(tokenizer)
    return None


def tokenizer_of(name: str | Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a model, whose vocabulary has vocab_size tokens: the one beside its weights.

    Only where there is none the name may tell, see `guess_tokenizer`.
    """
    path = locate(name)
    own = load_tokenizer_of(name)
    if own is not None:
        return own
    error = UserError(f"no tokenizer for {name}: {EXPECTED}")
    if not path.is_dir() or any(any(path.glob(pattern)) for pattern in TOKENIZER_FILES):
        try:
            return hf_tokenizer(path if path.exists() else name)
        except UserError as found:
            if path.is_dir():  # it is there, and damaged
                raise
            error = found
    guess = guess_tokenizer(name, vocab_size)
    if guess is None:
        raise error
    return guess


def named_tokenizer(name: str | Path) -> Tokenizer:
    """One of `load_tokenizer`'s, or that of a Hugging Face folder, hub id or GGUF file."""
    path, hub_id = Path(name), "/" in str(name) and may_be_hub_id(str(name))
    if path.is_dir() or path.suffix == ".gguf" or (hub_id and not path.exists()):
        return load_tokenizer_of(name) or hf_tokenizer(name)
    return load_tokenizer(name)


def hf_tokenizer(name: str | Path) -> HFTokenizer:
    """The tokenizer of a Hugging Face folder, hub id or GGUF file; `UserError` when there is none."""
    path = Path(name)
    place, options = (
        (path.parent, {"gguf_file": str(path.resolve())}) if path.suffix == ".gguf" else (name, {})
    )
    with quiet_transformers() as transformers:
        if path.suffix == ".gguf" and path.is_file():
            check_split(path)
        try:
            tokenizer = HFTokenizer(transformers.AutoTokenizer.from_pretrained(place, **options))
        except LOADING_ERRORS as error:
            raise UserError(f"no tokenizer for {name}: {first_line(error)}; {EXPECTED}") from error
    if not tokenizer.encode_ordinary("a"):  # transformers makes an empty one where files are missing
        raise UserError(f"no tokenizer for {name}: {EXPECTED}")
    return tokenizer
