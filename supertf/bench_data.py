"""Speed of tokenizing: `prepare` against `datasets.map` with a Hugging Face fast tokenizer.

Both start from the same documents in memory, use the same vocabulary, put `<|endoftext|>` after each
document, and end with token ids in files. The ids are compared before anything is timed.
"""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiktoken

from supertf.bench import machine
from supertf.corpus import iter_documents
from supertf.data import prepare
from supertf.errors import UserError
from supertf.fetch import is_present
from supertf.tokenizer import bytes_to_unicode, load_tokenizer, train_bpe


def run(megabytes: float = 10.0, repeats: int = 3) -> dict[str, Any]:
    """MB of text per second on one core and on two, medians of `repeats` interleaved rounds, and ratios.

    Args:
        megabytes: about how much of Python's documentation to tokenize. `datasets` starts processes for
            two cores, which takes it a second; a larger text shows it at its best.
    """
    documents = _documents(megabytes)
    size = sum(len(text.encode()) for text in documents) / 1e6
    encoding = load_tokenizer("gpt2") if is_present("gpt2-vocabulary") else train_bpe(documents, 4096)
    peer = to_hf(encoding)
    for text in documents[:200]:
        if encoding.encode_ordinary(text) != peer.encode(text).ids:
            raise AssertionError(f"the tokenizers differ on a document that begins {text[:60]!r}")
    seconds: dict[str, list[float]] = {}
    facts = machine("datasets", "tiktoken", "tokenizers")
    for _ in range(repeats):
        for cores in (1, 2):
            ours = _timed(lambda folder, n=cores: _prepare(documents, encoding, folder, n))
            theirs = _timed(lambda folder, n=cores: _map(documents, peer, encoding.eot_token, folder, n))
            seconds.setdefault(f"supertf_{cores}", []).append(ours)
            seconds.setdefault(f"datasets_{cores}", []).append(theirs)
    speed = {name: size / statistics.median(times) for name, times in seconds.items()}
    return {
        "machine": facts,
        "repeats": repeats,
        "tokenizer": encoding.name,
        "vocab_size": encoding.n_vocab,
        "documents": len(documents),
        "megabytes": size,
        "supertf_1_core_mb_per_s": speed["supertf_1"],
        "supertf_2_cores_mb_per_s": speed["supertf_2"],
        "datasets_map_1_core_mb_per_s": speed["datasets_1"],
        "datasets_map_2_cores_mb_per_s": speed["datasets_2"],
        "ratio_1_core": speed["supertf_1"] / speed["datasets_1"],
        "ratio_2_cores": speed["supertf_2"] / speed["datasets_2"],
    }


def to_hf(encoding: tiktoken.Encoding) -> Any:
    """A `tokenizers.Tokenizer` with GPT-2's text splitting that gives the ids of `encoding`.

    tiktoken keeps no merge list; the merge that made a token is what is left of its bytes when all
    earlier merges have been applied to them.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    spelling = bytes_to_unicode()
    ranks = encoding._mergeable_ranks

    def spell(token: bytes) -> str:
        return "".join(spelling[byte] for byte in token)

    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _parts(token, rank, ranks)
            merges.append((spell(left), spell(right)))
    vocab = {spell(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _parts(token: bytes, rank: int, ranks: dict[bytes, int]) -> list[bytes]:
    """The two parts that were merged into `token`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, rank) for left, right in itertools.pairwise(parts)]
        first = pairs.index(min(pairs))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts


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


def _timed(work: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        work(Path(folder))
        return time.perf_counter() - start


def _prepare(documents: list[str], encoding: tiktoken.Encoding, folder: Path, cores: int) -> None:
    prepare(documents, encoding, folder, threads=cores, progress=False)


def _map(documents: list[str], peer: Any, eot_token: int, folder: Path, cores: int) -> None:
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
