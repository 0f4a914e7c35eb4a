"""`supertf data`: text in, `train.bin` and `validation.bin` out."""

import argparse
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from supertf.cli.main import positive_int, print_result, seed
from supertf.errors import UserError

if TYPE_CHECKING:
    import tiktoken

BPE_TRAINING_CHARS = 50_000_000  # a BPE is trained on this much text from the front of the corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The original project's flags, then ours."""
    parser.add_argument("--max_length", type=positive_int, default=1024, help="tokens in a window")
    parser.add_argument("--sample_size", type=positive_int, help="documents at most (default: all)")
    parser.add_argument(
        "--data_name",
        default="python-docs",
        help="python-docs, python-docs:stdlib, a local file (txt, md, jsonl, ndjson, json, csv, tsv, "
        "parquet; also as gz, bz2, xz, zst), a folder, or a hub id (owner/name or owner/name:configuration)",
    )
    parser.add_argument(
        "--stride",
        type=positive_int,
        help="tokens from a window to the next (default: 256, at most max_length)",
    )
    parser.add_argument("--split_ratio", type=float, default=0.9, help="share of documents for training")
    parser.add_argument("--batch_size", type=positive_int, default=1000, help="documents tokenized together")
    parser.add_argument("--output_dir", default=".", help="folder for train.bin and validation.bin")
    parser.add_argument(
        "--tokenizer",
        default="gpt2",
        help="gpt2, bytes, smollm2-135m, bpe:SIZE (trained on the corpus), or a tokenizer file",
    )
    parser.add_argument("--text_column", help="column with the text (default: text, else content)")
    parser.add_argument("--seed", type=seed, default=0, help="chooses which documents are for validation")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Write the token files and print what they hold."""
    import time

    from supertf.data import describe, iter_documents, prepare

    start = time.perf_counter()
    tokenizer = _tokenizer(args)
    read_before = args.tokenizer.startswith("bpe:")  # and said then what is left out
    train, validation = prepare(
        iter_documents(args.data_name, args.sample_size, args.text_column, progress=not read_before),
        tokenizer,
        args.output_dir,
        args.split_ratio,
        seed=args.seed,
        max_length=args.max_length,
        stride=args.stride or min(256, args.max_length),
        batch_size=args.batch_size,
        command=_command(args),
        **describe(args.data_name),
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
    print_result(result, args.json)
    return 0


def _tokenizer(args: argparse.Namespace) -> "tiktoken.Encoding":
    """The tokenizer asked for, trained on the front of the corpus if it is `bpe:SIZE`."""
    from supertf.data import iter_documents, load_tokenizer, train_bpe

    kind, _, size = args.tokenizer.partition(":")
    if kind != "bpe":
        return load_tokenizer(args.tokenizer)
    if not size.isdecimal():
        raise UserError(
            f"tokenizer {args.tokenizer!r}: expected bpe:SIZE with a vocabulary size, as in bpe:2048"
        )

    def front() -> Iterator[str]:
        chars = 0
        for text in iter_documents(args.data_name, args.sample_size, args.text_column):
            yield text
            chars += len(text)
            if chars >= BPE_TRAINING_CHARS:
                return

    return train_bpe(front(), int(size))


def _command(args: argparse.Namespace) -> str:
    """The command that gives the same files, with every option spelled out."""
    options = {name: value for name, value in vars(args).items() if name != "json" and value is not None}
    return shlex.join(["supertf", "data", *(f"--{name}={value}" for name, value in options.items())])
