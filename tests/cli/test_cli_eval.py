"""`supertf eval`: texts and token files, of the model's own tokenizer; mistakes in a line."""

import json
import math

import pytest
import torch
from tiny import tiny_config, tiny_tokens

from supertf.cli.main import main
from supertf.data.byte_pairs import train_bpe
from supertf.data.downloads import is_present
from supertf.data.token_writer import prepare
from supertf.model.gpt import GPT
from supertf.model.pretrained import save_model

V = 257
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, token files and text."""
    folder = tmp_path_factory.mktemp("eval")
    tiny_tokens(folder)
    torch.manual_seed(0)
    save_model(GPT(tiny_config()), folder / "model")
    (folder / "text.txt").write_text("A text of no great length.\n\nAnd another paragraph, to have two.\n")
    return folder


def run(capsys, folder, *flags):
    code = main(["eval", "--model", str(folder / "model"), "--tokenizer", "bytes", "--device", "cpu", *flags])
    return code, capsys.readouterr()


def test_the_command_reads_text_and_token_files(capsys, folder):
    code, printed = run(capsys, folder, "--data", str(folder / "text.txt"), "--by_position", "--json")
    assert code == 0
    result = json.loads(printed.out)
    assert result["loss"] == pytest.approx(math.log(V), abs=0.3)
    assert len(result["loss_by_position"]) == result["length"] == 16
    data = ["--data", str(folder / "validation.bin"), "--max_tokens", "100", "--bos", "True"]
    code, printed = run(capsys, folder, *data, "--by_position")
    assert code == 0
    assert "perplexity" in printed.out
    assert "loss at 8-15" in printed.out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "absent.txt"], "absent.txt"),
        (["--data", "absent.bin"], "absent.bin"),
        (["--tokenizer", "absent"], "no tokenizer called"),
        (["--model", "absent/absent/absent"], "no model at"),
        (["--stride", "17"], "stride is 17"),
    ],
)
def test_mistakes_are_one_line(capsys, folder, flags, message):
    data = [] if "--data" in flags else ["--data", str(folder / "text.txt")]
    code, printed = run(capsys, folder, *data, *flags)
    assert code == 2
    (line,) = [line for line in printed.err.splitlines() if line.startswith("supertf eval:")]
    assert message in line


def test_another_tokenizers_token_file_is_refused(capsys, folder):

    words = ["one two three four five six seven eight nine ten " * 20] * 20
    prepare(words, train_bpe(words, 270), folder / "bpe", max_length=16, stride=16, progress=False)
    code, printed = run(capsys, folder, "--data", str(folder / "bpe" / "train.bin"))
    assert code == 2
    assert "another tokenizer" in printed.err


def test_a_flipped_bit_in_a_token_file_is_noticed(capsys, folder, tmp_path):
    tiny_tokens(tmp_path)
    path = tmp_path / "validation.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, printed = run(capsys, folder, "--data", str(path), "--max_tokens", "100")
    assert code == 2
    assert f"{path} was changed since it was written" in printed.err


@pytest.mark.real_model
@pytest.mark.skipif(not is_present("smollm2-135m"), reason="run `supertf fetch smollm2-135m` first")
def test_the_real_model_reads_english(capsys):
    """Python's documentation; measured 15.6 on 2,048 tokens, and a model that knows nothing has 49,152."""
    assert main(["eval", "--max_tokens", "512", "--json", "--device", "cpu"]) == 0
    assert 5 < json.loads(capsys.readouterr().out)["perplexity"] < 40
