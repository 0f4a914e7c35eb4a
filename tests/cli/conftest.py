"""A folder with a small model and a text, and `supertf` as it is typed there."""

import dataclasses
import json
import shlex
from dataclasses import dataclass

import pytest
from planted import CONFIG, planted_model
from tiny import tiny_tokens

from supertf.cli.main import main
from supertf.data.byte_pairs import train_bpe
from supertf.data.token_writer import prepare
from supertf.data.tokenizer import load_tokenizer, save_tokenizer
from supertf.model.pretrained import save_model


@dataclass(frozen=True)
class Said:
    """What a command ended with and printed; line: the last of `err`, which progress bars come before."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=pytest.fail)

    @property
    def line(self):
        return self.err.rstrip().rpartition("\n")[2].rpartition("\r")[2]


@pytest.fixture
def supertf(capsys):
    """`supertf(...)` with a command line, and more words that may have spaces in them."""

    def run(line, *words):
        capsys.readouterr()
        code = main([*shlex.split(line), *map(str, words)])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A planted model that reads bytes, a text, and token files: whole, of another tokenizer, and damaged."""
    folder = tmp_path_factory.mktemp("lab")
    save_model(
        planted_model(config=dataclasses.replace(CONFIG, vocab_size=257, n_ctx=64)), folder / "planted"
    )
    save_tokenizer(load_tokenizer("bytes"), folder / "planted/tokenizer.json")
    (folder / "book.txt").write_text("It was a line of a book, and then another. Was it? " * 20)
    tiny_tokens(folder)
    words = ["one two three four five six seven eight nine ten " * 20] * 20
    prepare(words, train_bpe(words, 270), folder / "bpe", max_length=16, stride=16, progress=False)
    for file in tiny_tokens(folder / "flipped"):
        content = bytearray(file.path.read_bytes())
        content[-2] ^= 1  # another byte of text: still a token of the vocabulary
        file.path.write_bytes(content)
    return folder


@pytest.fixture
def here(lab, tmp_path, monkeypatch, one_thread):
    """A folder to work in with all of `lab`."""
    for path in lab.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
