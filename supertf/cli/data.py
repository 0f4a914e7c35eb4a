"""`supertf data`: text in, `train.bin` and `validation.bin` out."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

from typer import Option, Typer

from supertf.cli.options import SEEDS, Json
from supertf.cli.parsing import Command, command_line
from supertf.cli.printing import print_result
from supertf.errors import UserError

if TYPE_CHECKING:
    import tiktoken

BPE_TRAINING_CHARS = 50_000_000  # a BPE is trained on this much text from the front of the corpus
OF_A_RUN = ("resume", "json")  # options that change nothing in the files

app = Typer()


@app.command(cls=Command)
def data(
    # the original project's options, then ours
    max_length: Annotated[int, Option(min=1, help="tokens in a window")] = 1024,
    sample_size: Annotated[int | None, Option(min=1, help="documents at most (default: all)")] = None,
    data_name: Annotated[
        str,
        Option(
            help="library-docs, readmes, prose, python-docs, python-docs:stdlib, a local file (txt, md, "
            "jsonl, ndjson, json, csv, tsv, parquet; also as gz, bz2, xz, zst), a folder, wikitext, c4, or a "
            "hub id (owner/name or owner/name:configuration); with a role behind it, as in prose:train"
        ),
    ] = "python-docs",
    stride: Annotated[
        int | None, Option(min=1, help="tokens from a window to the next (default: 256, at most max_length)")
    ] = None,
    split_ratio: Annotated[float, Option(help="share of documents for training")] = 0.9,
    batch_size: Annotated[int, Option(min=1, help="documents tokenized together")] = 1000,
    output_dir: Annotated[str, Option(help="folder for train.bin and validation.bin")] = ".",
    tokenizer: Annotated[
        str, Option(help="gpt2, bytes, smollm2-135m, bpe:SIZE (trained on the corpus), or a tokenizer file")
    ] = "gpt2",
    text_column: Annotated[
        str | None, Option(help="column with the text (default: text, else content)")
    ] = None,
    skip_damaged: Annotated[
        bool, Option("--skip_damaged", help="of a folder: name files that cannot be read, and go on")
    ] = False,
    seed: Annotated[int, Option(**SEEDS, help="chooses which documents are for validation")] = 0,
    resume: Annotated[
        bool, Option("--resume", help="go on with what the same command has left that ended early")
    ] = False,
    json: Json = False,
) -> int:
    """Turn text into token files."""
    options = locals()
    command = command_line("data", **{name: options[name] for name in options if name not in OF_A_RUN})
    from supertf.data import Place, iter_documents, origin, prepare

    start = time.perf_counter()
    documents = functools.partial(
        iter_documents, data_name, sample_size, text_column, skip_damaged=skip_damaged
    )
    encoding = load(tokenizer, documents)
    read_before = tokenizer.startswith("bpe:")  # and said then what is left out
    place = Place()
    train, validation = prepare(
        documents(progress=not read_before, place=place),
        encoding,
        output_dir,
        split_ratio,
        seed=seed,
        max_length=max_length,
        stride=stride or min(256, max_length),
        batch_size=batch_size,
        command=command,
        place=place,
        resume=resume,
        **origin(data_name),
    )
    seconds = time.perf_counter() - start
    megabytes = (train.manifest["text_bytes"] + validation.manifest["text_bytes"]) / 1e6
    result = {
        "train": str(train.path),
        "validation": str(validation.path),
        "train_tokens": len(train),
        "validation_tokens": len(validation),
        "documents": train.manifest["documents"] + validation.manifest["documents"],
        "empty_documents": train.manifest["empty_documents"],
        "vocab_size": train.vocab_size,
        "bytes_per_token": megabytes * 1e6 / (len(train) + len(validation)),
        "source": train.manifest["source"],
        "license": train.manifest["license"],
        "megabytes": megabytes,
        "seconds": seconds,
    }
    print_result(result, json)
    return 0


def load(name: str, documents: Callable[[], Iterator[str]]) -> "tiktoken.Encoding":
    """The tokenizer of that name, trained on the front of the documents if it is `bpe:SIZE`."""
    from supertf.data import load_tokenizer, train_bpe

    kind, _, size = name.partition(":")
    if kind != "bpe":
        return load_tokenizer(name)
    if not size.isdecimal():
        raise UserError(f"tokenizer {name!r}: expected bpe:SIZE with a vocabulary size, as in bpe:2048")

    def front() -> Iterator[str]:
        chars = 0
        for text in documents():
            yield text
            chars += len(text)
            if chars >= BPE_TRAINING_CHARS:
                return

    return train_bpe(front(), int(size))
