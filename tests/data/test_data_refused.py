"""Texts and data: what cannot be read, written or fetched is refused in one line that names it."""

import pytest
import torch
from written import write

from supertf.data import (
    Task,
    TokenFile,
    batches,
    check_vocabulary,
    fetch,
    iter_documents,
    load_tokenizer,
    origin,
    read_tokens,
    train_bpe,
)
from supertf.data.byte_pairs import ENDOFTEXT, GPT2_PATTERN, bpe_encoding, bytes_to_unicode
from supertf.errors import UserError

ONE_ROW = '{"text": "one"}'
WIDE = ",".join(f"column {i}" for i in range(900))
FILES = [
    ("empty.txt", "", "is empty"),
    ("empty.jsonl", "", "is empty"),
    ("image.txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "not UTF-8"),
    ("zeros.txt", "text\0\0\0", "binary file"),
    ("latin.txt", "café au lait".encode("latin-1"), r"not UTF-8 text \(byte 0xe9"),
    ("wide.txt", "text".encode("utf-16"), "not UTF-8"),
    ("packed.jsonl", b"\x1f\x8b\x08\0", r"if it is compressed, end its name in \.gz, \.bz2, \.xz, \.zst"),
    ("rows.dat", f"\n{ONE_ROW}\n", r"first line of .* is a JSON object: rename the file to \.jsonl"),
    ("broken.jsonl", f'{ONE_ROW}\n{{"text": \n', "row 2 of .* is not JSON"),
    ("cut.json", '{\n "text": "one"', "is not JSON"),
    ("listed.json", f"[{ONE_ROW}, 2]", "row 2 of .* is not a JSON object"),
    ("null.jsonl", "null", "not a JSON object"),
    ("uneven.jsonl", f'{ONE_ROW}\n{{"other": ""}}', "row 2 of .* has no column 'text'"),
    ("story.jsonl", '{"story": "one"}', "no column 'text' or 'content', only story"),
    ("number.jsonl", '{"text": 1}', "row 1 of .* holds int, expected a string"),
    ("deep.json", '{\n "data": [{"text": "one"}]\n}', "no column 'text' or 'content', only data"),
    ("headless.csv", "Note 1: the ferry leaves.\n" * 3, "no column 'text' or 'content', only Note 1"),
    ("two.csv", "text,text\none,two\n", "2 columns called 'text'; expected one"),
    ("uneven.csv", "id,text\n1,one\n2,two, or three\n", "line 3 of .* a row of 3 fields.* names 2"),
    ("open.csv", 'id,text\n1,"one\n2,two\n', "could not read .*open.csv at line 3: .*a quote must end"),
    ("stray.tsv", 'id\ttext\n1\t"Go," she said.\n', "could not read .*stray.tsv at line 2"),
    ("wide.csv", f"{WIDE}\n", r"column 17, colu.*\.\.\.; name one"),
    ("broken.parquet", "PAR1 not really PAR1", "could not read"),
    ("number.parquet", {"text": [1, 2]}, "holds int64, expected strings"),
    ("rows.parquet.gz", "", "compressed Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "message"), FILES, ids=[name for name, *_ in FILES])
def test_a_file_that_cannot_be_read_right_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, dict):
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(content), path)
    elif name == "rows.parquet.gz":
        path.write_bytes(b"something")
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message) as caught:
        list(iter_documents(str(path)))
    assert name in str(caught.value) and "\n" not in str(caught.value)


PREPARED = [
    ({"split_ratio": 0.0}, "split_ratio is 0.0"),
    ({"split_ratio": 1.0}, "split_ratio is 1.0"),
    ({"split_ratio": float("nan")}, "split_ratio is nan"),
    ({"max_length": 0}, "length 0"),
    ({"stride": 0}, "stride 0"),
    ({"stride": 17}, "stride 17"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"max_length": 100_000}, r"has \d+ tokens, fewer than the 100001"),
    ({"documents": []}, "no text in the corpus"),
    ({"documents": ["", ""]}, "no text in the corpus"),
    ({"documents": ["only one document that is long enough"]}, "has 0 tokens, fewer than the 17"),
]


@pytest.mark.parametrize(("options", "message"), PREPARED)
def test_what_cannot_be_prepared_leaves_nothing(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def vocabulary(tokens, *merges):
    """An encoding of the 256 bytes and more tokens."""
    vocab = {character: byte for byte, character in bytes_to_unicode().items()} | tokens
    return bpe_encoding("bad", vocab, [tuple(merge) for merge in merges], GPT2_PATTERN, {ENDOFTEXT: 300})


def a_page(name="page.txt"):
    with open(name, "w") as file:
        file.write("page " * 20)
    return name


HUB = "eliplutchok/fineweb-small-sample"
CALLS = [
    (lambda: list(iter_documents(HUB)), f"'{HUB}' is no local file or folder, and .*HF_HUB_OFFLINE is set"),
    (lambda: origin(HUB), f"'{HUB}' is no local file or folder, and .*HF_HUB_OFFLINE is set"),
    (
        lambda: read_tokens(a_page(), load_tokenizer("bytes"), windows=(9, 2), length=16),
        "page.txt has 101 tokens, and 145 are to be held out and 32 others",
    ),
    (lambda: vocabulary({"bc": 256, "ab": 257}, "ab", "bc"), "ids must grow in merge order"),
    (lambda: vocabulary({"ab": 256}), "come from no merge"),
    (lambda: vocabulary({}, "ab"), "gives no token"),
    (lambda: vocabulary({"漢": 256}), "not in GPT-2's spelling"),
    (lambda: vocabulary({"ab": 97}, "ab"), "each used once"),
    (lambda: load_tokenizer("gpt5"), r"'gpt5'.*gpt2, bytes, smollm2-135m"),
    (lambda: load_tokenizer("smollm2-135m"), "`supertf fetch smollm2-135m`"),
    (lambda: train_bpe(["text"], 256), "256 is too small"),
    (lambda: TokenFile("absent.bin"), "no token file absent.bin; make one with `supertf data`"),
    (lambda: next(batches(torch.zeros(4, 9), 0, seed=0)), "batch_size is 0"),
    (lambda: check_vocabulary([], 9, "the prompt"), "the prompt is empty"),
    (lambda: check_vocabulary([3, 9], 9, "the prompt"), "from 3 to 9, but the model's vocabulary is 0 to 8"),
    (lambda: check_vocabulary([-1], 9, "the prompt"), "the prompt has token ids from -1 to -1"),
    (lambda: fetch("nonsense"), "choose from smollm2-135m, gpt2-vocabulary"),
    (lambda: Task("sorting"), "unknown task 'sorting'; choose from recall"),
    (lambda: Task(queries=64), "64 queries need at least one key more"),
    (lambda: Task(values=1), "values is 1"),
    (
        lambda: Task("majority").batch(1, 50, torch.Generator()),
        "8 queries with 7 items each do not fit into items 0 to 50 of 50",
    ),
    (
        lambda: Task().batch(1, 64, torch.Generator(), depth=(0, 0.1)),
        "do not fit into items 0 to 6 of 64",
    ),
]


@pytest.mark.parametrize(("call", "message"), CALLS)
def test_what_is_not_there_or_does_not_fit_is_one_line(tmp_path, monkeypatch, call, message):
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))  # nothing was fetched
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
