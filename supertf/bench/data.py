"""Speed of tokenizing: `prepare` against `datasets.map` with a Hugging Face fast tokenizer.

Both start from the same documents in memory, use GPT-2's vocabulary, put `<|endoftext|>` after each
document, and end with token ids in files. The ids are compared before anything is timed.
"""

import functools
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tiktoken

from supertf.bench.timing import Seconds, machine, rounds
from supertf.data import is_present, iter_documents, load_tokenizer, places, prepare
from supertf.errors import UserError

CORES = ("1_core", "2_cores")


def run(megabytes: float = 10.0, repeats: int = 3) -> Iterator[dict[str, Any]]:
    """MB of text per second on one core and on two, and ratios.

    Args:
        megabytes: about how much of Python's documentation to tokenize. `datasets` starts processes for
            two cores, which takes it a second; a larger text shows it at its best.
        repeats: interleaved rounds, of which figures are medians.

    Yields:
        The result so far, after every round.

    Raises:
        UserError: GPT-2's vocabulary was not fetched, or there is less text than half of that.
    """
    peer, encoding = peer_tokenizer(), load_tokenizer("gpt2")
    documents = _documents(megabytes)
    size = sum(len(text.encode()) for text in documents) / 1e6
    for text in documents[:200]:
        if encoding.encode_ordinary(text) != peer.encode(text).ids:
            raise AssertionError(f"the tokenizers differ on a document that begins {text[:60]!r}")
    result = {
        "machine": machine("datasets", "tiktoken", "tokenizers"),
        "repeats": repeats,
        "tokenizer": encoding.name,
        "vocab_size": encoding.n_vocab,
        "documents": len(documents),
        "megabytes": size,
    }
    with tempfile.TemporaryDirectory(prefix="supertf-") as folder:
        work = functools.partial(_in_new_folder, Path(folder))
        tokenizers = {
            "supertf": functools.partial(_prepare, documents, encoding),
            "datasets_map": functools.partial(_map, documents, peer, encoding.eot_token),
        }
        rivals = {
            f"{name}_{cores}": functools.partial(work, tokenize, int(cores[0]))
            for cores in CORES
            for name, tokenize in tokenizers.items()
        }
        for seconds in rounds(rivals, repeats, title="data"):
            yield result | figures(seconds, size)


def figures(seconds: Seconds, size: float) -> dict[str, Any]:
    """MB per second of those that were timed, and the ratios between them."""
    found: dict[str, Any] = {
        f"{name}_mb_per_s": size / statistics.median(times) for name, times in seconds.items()
    }
    for cores in CORES:
        ours, theirs = (found.get(f"{name}_{cores}_mb_per_s") for name in ("supertf", "datasets_map"))
        if ours and theirs:
            found[f"ratio_{cores}"] = ours / theirs
    return {**found, "left_out": seconds.left_out} if seconds.left_out else found


def peer_tokenizer() -> Any:
    """GPT-2's vocabulary as a `tokenizers.Tokenizer`; `UserError` when it was not fetched."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if not is_present("gpt2-vocabulary"):
        raise UserError("GPT-2's vocabulary is not here: run `supertf fetch gpt2-vocabulary` once")
    merges, vocab = map(str, places("gpt2-vocabulary"))
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _documents(megabytes: float) -> list[str]:
    documents: list[str] = []
    size = 0.0
    for text in iter_documents("python-docs"):
        documents.append(text)
        size += len(text) / 1e6
        if size >= megabytes:
            return documents
    if size < megabytes / 2:
        raise UserError(f"python-docs holds {size:.1f} MB here; asked for {megabytes} MB")
    return documents


def _in_new_folder(parent: Path, work: Callable[[int, Path], None], cores: int) -> None:
    """Each call has a folder of its own; what it wrote there is deleted with the parent, after all timing."""
    work(cores, Path(tempfile.mkdtemp(dir=parent)))


def _prepare(documents: list[str], encoding: tiktoken.Encoding, cores: int, folder: Path) -> None:
    prepare(documents, encoding, folder, threads=cores, progress=False)


def _map(documents: list[str], peer: Any, eot_token: int, cores: int, folder: Path) -> None:
    import datasets

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [[*encoding.ids, eot_token] for encoding in peer.encode_batch(batch["text"])]}

    parallelism = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the cores are shared out by num_proc
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_dict({"text": documents}).map(
            tokenize,
            batched=True,
            remove_columns=["text"],
            num_proc=cores if cores > 1 else None,
            cache_file_name=str(folder / "ids.arrow"),
        )
    finally:
        datasets.enable_progress_bars()
        if parallelism is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = parallelism
