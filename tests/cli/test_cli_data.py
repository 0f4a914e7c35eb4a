"""`supertf data`: the original project's flags, one line for each mistake."""

import gzip
import json
import shlex
from pathlib import Path

import pytest

from supertf.cli.main import main
from supertf.data.token_files import TokenFile
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer

ORIGINAL_FLAGS = shlex.split(
    "--max_length 1024 --sample_size 100000 --data_name eliplutchok/fineweb-small-sample --stride 256 "
    "--split_ratio 0.9 --batch_size 1000 --output_dir ."
)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A folder to work in with a text file of 4,000 short paragraphs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("It was a line of a book, and then another.\n\n" * 4000)
    (tmp_path / "mark.jsonl").write_bytes(b"\xef\xbb\xbf")  # a byte order mark and nothing else


def run(capsys, *options):
    """Exit code, standard output and the last line of standard error (before it come progress bars)."""
    code = main(["data", *options])
    out, err = capsys.readouterr()
    return code, out, err.rstrip().rpartition("\n")[2].rpartition("\r")[2]


def test_the_original_flags_work_verbatim(book, capsys, monkeypatch):
    """On the hub's text they need the hub; here its rows come from a local file through the same code."""
    import datasets

    asked = {}

    def load_dataset(name, configuration, **options):
        asked.update(name=name, configuration=configuration, **options)
        rows = [{"text": f"row {i} of the sample. " * 30} for i in range(100)]
        return datasets.IterableDatasetDict({"train": datasets.Dataset.from_list(rows).to_iterable_dataset()})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("supertf.data.corpus.hub_trouble", lambda: None)
    monkeypatch.setattr("supertf.data.corpus._hub_license", lambda name: "odc-by")
    code, out, _ = run(capsys, *ORIGINAL_FLAGS, "--tokenizer", "bytes", "--json")
    assert code == 0
    assert asked == {
        "name": "eliplutchok/fineweb-small-sample",
        "configuration": None,
        "streaming": True,
    }
    result = json.loads(out)
    manifest = TokenFile("train.bin").manifest
    assert (manifest["max_length"], manifest["stride"], manifest["split_ratio"]) == (1024, 256, 0.9)
    assert manifest["license"] == "odc-by"
    assert "huggingface.co/datasets/eliplutchok/fineweb-small-sample" in manifest["source"]
    assert result["documents"] == 100 and TokenFile("validation.bin").manifest["documents"] == 10


@pytest.mark.parametrize(("length", "stride"), [(128, 128), (1024, 256)])
def test_the_default_stride_is_never_longer_than_a_window(book, capsys, length, stride):
    options = ("--data_name", "book.txt", "--tokenizer", "bytes", "--max_length", str(length))
    assert run(capsys, *options)[0] == 0
    assert TokenFile("train.bin").manifest["stride"] == stride


def test_the_original_flags_without_network_are_one_line_and_exit_code_2(book, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, out, err = run(capsys, *ORIGINAL_FLAGS, "--tokenizer", "bytes")
    assert (code, out) == (2, "")
    assert err.startswith("supertf data: 'eliplutchok/fineweb-small-sample' is no local file or folder")


def test_a_trained_vocabulary_from_a_text_file(book, capsys):
    code, out, _ = run(
        capsys, "--data_name", "book.txt", "--tokenizer", "bpe:270", "--output_dir", "out", "--json"
    )
    assert code == 0
    result = json.loads(out)
    train, validation = TokenFile("out/train.bin"), TokenFile("out/validation.bin")
    assert (result["train_tokens"], result["validation_tokens"]) == (len(train), len(validation))
    assert result["vocab_size"] == train.tokenizer.n_vocab == 270
    assert train.tokenizer.decode(train.tokens[:40]).startswith("It was a line of a book")


def test_every_document_is_read_unless_a_sample_size_is_given(book, capsys):
    with open("rows.jsonl", "w") as file:
        file.writelines(f'{{"text": "{i}"}}\n' for i in range(100_010))  # the original's default is 100,000
    options = ["--data_name=rows.jsonl", "--tokenizer=bytes", "--max_length=8", "--stride=8", "--json"]
    _, out, _ = run(capsys, *options)
    assert json.loads(out)["documents"] == 100_010
    _, out, _ = run(capsys, *options, "--sample_size=100")
    assert json.loads(out)["documents"] == 100
    assert "--sample_size=100" in TokenFile("train.bin").manifest["command"]


def test_the_command_in_the_manifest_gives_the_same_files(book, capsys):
    run(capsys, "--data_name=book.txt", "--tokenizer=bytes", "--seed=3", "--max_length=64", "--stride=8")
    manifest = TokenFile("train.bin").manifest
    name, *options = manifest["command"].split()[1:]
    assert name == "data" and run(capsys, *options)[0] == 0
    assert TokenFile("train.bin").manifest == manifest


def test_rows_give_the_same_tokens_under_any_suffix(book, capsys):
    rows = [{"id": i, "text": f"Note {i}: the ferry leaves at dawn."} for i in range(60)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("rows.jsonl", "rows.ndjson"):
        Path(name).write_text(lines)
    Path("rows.json.gz").write_bytes(gzip.compress(lines.encode()))
    Path("rows.csv").write_text("id,text\n" + "".join(f'{row["id"]},"{row["text"]}"\n' for row in rows))
    hashes = set()
    for name in ("rows.jsonl", "rows.ndjson", "rows.json.gz", "rows.csv"):
        code, out, _ = run(
            capsys, "--data_name", name, "--tokenizer", "bytes", "--max_length", "16", "--json"
        )
        assert (code, json.loads(out)["documents"]) == (0, 60)
        hashes.add(TokenFile("train.bin").manifest["sha256"])
    assert len(hashes) == 1


def test_what_a_folder_leaves_out_is_said_once_and_kept_in_the_manifest(book, capsys):
    Path("scan.pdf").write_bytes(b"%PDF")
    code = main(["data", "--data_name", ".", "--tokenizer", "bpe:270", "--output_dir", "out"])
    assert code == 0 and capsys.readouterr().err.count("left out 1 .pdf\n") == 1
    assert TokenFile("out/train.bin").manifest["source"].endswith("(left out 1 .pdf)")


def test_a_folder_can_be_read_again_with_the_token_files_in_it(book, capsys):
    options = ["--data_name=.", "--tokenizer=bytes", "--max_length=64", "--stride=8"]
    assert run(capsys, *options)[0] == 0
    first = TokenFile("train.bin").manifest
    assert run(capsys, *options)[0] == 0
    assert TokenFile("train.bin").manifest["sha256"] == first["sha256"]
    note = "(left out 2 .bin, 1 train.bin.json, 1 validation.bin.json)"
    assert TokenFile("train.bin").manifest["source"] == f"local {Path.cwd().name} {note}"


def test_a_million_spaces_are_tokens_like_others(book, capsys):
    texts = ["A short note on ships."] * 20 + ["a table" + " " * 1_100_000 + "end"]
    Path("rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    options = ["--data_name=rows.jsonl", "--tokenizer=bpe:300", "--max_length=8", "--stride=8"]
    assert run(capsys, *options)[0] == 0
    files = [TokenFile("train.bin"), TokenFile("validation.bin")]
    text = "".join(file.tokenizer.decode(file.tokens) for file in files)
    assert sorted(text.split("<|endoftext|>")) == sorted(["", *texts])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data_name mark.jsonl", "no text in the corpus"),
        ("--data_name mark.jsonl --tokenizer bpe:270", "no text in the corpus"),
        ("--data_name missing.txt", "no file or folder 'missing.txt'"),
        ("--data_name book.txt --stride 2000", "stride 2000"),
        ("--data_name book.txt --split_ratio 1.5", "split_ratio is 1.5"),
        ("--data_name book.txt --max_length 1000000 --stride 1", "fewer than the 1000001 of one window"),
        ("--data_name book.txt --output_dir book.txt", "book.txt is a file"),
        ("--data_name book.txt --tokenizer bpe:many", "expected bpe:SIZE with a vocabulary size"),
        ("--data_name book.txt --tokenizer bpe:10", "10 is too small"),
        ("--data_name book.txt --tokenizer book.txt", "book.txt is not a readable JSON file"),
        ("--data_name book.txt --tokenizer nothing", "no tokenizer called 'nothing'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(book, capsys, options, message):
    if "--tokenizer" not in options:
        options += " --tokenizer bytes"
    code, out, err = run(capsys, *options.split())
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    "options", ["--max_length 0", "--stride -1", "--batch_size x", "--split_ratio half", "--seed x"]
)
def test_wrong_types_are_refused_by_the_parser(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["data", *options.split()])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"supertf data: argument {options.split()[0]}: ") and err.count("\n") == 1


def test_the_command_line_and_the_library_write_the_same(book, capsys, tmp_path):
    run(capsys, "--data_name", "book.txt", "--tokenizer", "bytes")
    from supertf.data.corpus import iter_documents

    train, _ = prepare(
        iter_documents("book.txt"), load_tokenizer("bytes"), tmp_path / "library", progress=False
    )
    assert train.manifest["sha256"] == TokenFile("train.bin").manifest["sha256"]
