"""`supertf data`: the original project's flags, and that the library does the same."""

import shlex
from pathlib import Path

import pytest

from supertf.data.token_files import TokenFile

ORIGINAL_FLAGS = (
    "--max_length 1024 --sample_size 100000 --data_name eliplutchok/fineweb-small-sample --stride 256 "
    "--split_ratio 0.9 --batch_size 1000 --output_dir ."
)


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    """A folder to work in with a text file of 4,000 short paragraphs."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("It was a line of a book, and then another.\n\n" * 4000)


def test_the_original_flags_work_verbatim(supertf, monkeypatch):
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
    found = supertf(f"data {ORIGINAL_FLAGS} --tokenizer bytes --json").json
    assert asked == {"name": "eliplutchok/fineweb-small-sample", "configuration": None, "streaming": True}
    manifest = TokenFile("train.bin").manifest
    assert (manifest["max_length"], manifest["stride"], manifest["split_ratio"]) == (1024, 256, 0.9)
    assert manifest["license"] == "odc-by"
    assert "huggingface.co/datasets/eliplutchok/fineweb-small-sample" in manifest["source"]
    assert found["documents"] == 100 and TokenFile("validation.bin").manifest["documents"] == 10


@pytest.mark.parametrize(("length", "stride"), [(128, 128), (1024, 256)])
def test_the_default_stride_is_never_longer_than_a_window(supertf, length, stride):
    assert supertf(f"data --data_name book.txt --tokenizer bytes --max_length {length}").code == 0
    assert TokenFile("train.bin").manifest["stride"] == stride


def test_a_trained_vocabulary_from_a_text_file(supertf):
    found = supertf("data --data_name book.txt --tokenizer bpe:270 --output_dir out --json").json
    train, validation = TokenFile("out/train.bin"), TokenFile("out/validation.bin")
    assert (found["train"], found["train_tokens"]) == ("out/train.bin", len(train))
    assert (found["validation"], found["validation_tokens"]) == ("out/validation.bin", len(validation))
    assert found["vocab_size"] == train.tokenizer.n_vocab == 270
    assert train.tokenizer.decode(train.tokens[:40]).startswith("It was a line of a book")
    assert set(found) == {
        *("train", "validation", "train_tokens", "validation_tokens", "documents", "empty_documents"),
        *("vocab_size", "bytes_per_token", "source", "license", "megabytes", "seconds"),
    }


def test_the_command_in_the_manifest_gives_the_same_files(supertf):
    line = "data --data_name=book.txt --tokenizer=bytes --seed=3 --max_length=64 --stride=8 --sample_size=9"
    line += " --skip_damaged"
    assert supertf(f"{line} --json").json["documents"] == 9
    manifest = TokenFile("train.bin").manifest
    assert manifest["command"] == (
        "supertf data --max_length=64 --sample_size=9 --data_name=book.txt --stride=8 --split_ratio=0.9 "
        "--batch_size=1000 --output_dir=. --tokenizer=bytes --skip_damaged --seed=3"
    )
    assert supertf(shlex.join(shlex.split(manifest["command"])[1:])).code == 0
    assert TokenFile("train.bin").manifest == manifest


def test_what_a_folder_leaves_out_is_said_once_and_kept_in_the_manifest(supertf):
    Path("scan.pdf").write_bytes(b"%PDF")
    said = supertf("data --data_name . --tokenizer bpe:270 --output_dir out")
    assert said.code == 0 and said.err.count("left out 1 .pdf\n") == 1
    assert TokenFile("out/train.bin").manifest["source"].endswith("(left out 1 .pdf)")


def test_a_folder_can_be_read_again_with_the_token_files_in_it(supertf):
    line = "data --data_name=. --tokenizer=bytes --max_length=64 --stride=8"
    assert supertf(line).code == 0
    first = TokenFile("train.bin").manifest
    assert supertf(line).code == 0
    assert TokenFile("train.bin").manifest["sha256"] == first["sha256"]
    note = "(left out 2 .bin, 1 train.bin.json, 1 validation.bin.json)"
    assert TokenFile("train.bin").manifest["source"] == f"local {Path.cwd().name} {note}"


def test_a_command_that_ended_early_goes_on_where_it_was(supertf):
    folder = Path("rows")
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.jsonl").write_text(
            "".join(f'{{"text": "{name} {i} of many"}}\n' for i in range(40))
        )
    line = "data --data_name rows --tokenizer bytes --max_length 16 --stride 16 --batch_size 10"
    assert supertf(f"{line} --output_dir whole").code == 0
    right = (folder / "b.jsonl").read_text()
    (folder / "b.jsonl").write_text(right.replace('"b 35', "b 35"))
    said = supertf(f"{line} --output_dir parts")
    assert said.code == 2 and "b.jsonl" in said.err and "the same with --resume goes on there" in said.err
    assert not Path("parts/train.bin").exists()
    (folder / "b.jsonl").write_text(right)
    assert supertf(f"{line} --output_dir parts --seed 1 --resume").err.count("has another command") == 1
    assert supertf(f"{line} --output_dir parts --resume").code == 0
    for split in ("train", "validation"):
        found, expected = TokenFile(f"parts/{split}.bin").manifest, TokenFile(f"whole/{split}.bin").manifest
        assert found["sha256"] == expected["sha256"]
    said = supertf(f"{line} --output_dir parts --resume")
    assert said.code == 2 and "nothing unfinished in parts to go on with" in said.err
