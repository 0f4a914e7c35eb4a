"""The text that the lab's own language models are trained on, as tokens: the same on every machine."""

import contextlib
import tempfile
from pathlib import Path

from supertf.data.byte_pairs import train_bpe
from supertf.data.corpus import iter_documents, origin
from supertf.data.texts import TEXTS
from supertf.data.token_files import TokenFile
from supertf.data.token_writer import prepare
from supertf.files import cache_dir

LAB_TEXT = "library-docs"


def lab_tokens(vocab_size: int) -> tuple[TokenFile, TokenFile]:
    """Training and validation tokens of `LAB_TEXT`, made once and kept in the cache.

    They are its roles "train" and "evaluate", which share no run of 20 tokens. Several processes may ask for
    them at the same time, as an experiment's do: what the first one has made is used by all.

    Args:
        vocab_size: of the BPE that is trained on the training text; 257 are the bytes and `<|endoftext|>`.
    """
    name = f"{LAB_TEXT}-{TEXTS[LAB_TEXT].sha256[:8]}-vocabulary-{vocab_size}"
    folder = cache_dir() / "lab-tokens" / name
    if not folder.exists():
        train, validation = (list(iter_documents(f"{LAB_TEXT}:{role}")) for role in ("train", "evaluate"))
        tokenizer = train_bpe(train, vocab_size)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as own:
            made = Path(own, folder.name)
            prepare(train, tokenizer, made, validation=validation, progress=False, **origin(LAB_TEXT))
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(folder)
    return TokenFile(folder / "train.bin"), TokenFile(folder / "validation.bin")
