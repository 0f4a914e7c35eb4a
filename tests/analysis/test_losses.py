"""Perplexity: every token once, with the context it should have; `supertf eval`."""

import json
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from tiny import tiny_config, tiny_tokens
from torch.nn import functional as F

from supertf.analysis.losses import loss_by_position, perplexity
from supertf.cli.main import main
from supertf.data.byte_pairs import train_bpe
from supertf.data.downloads import is_present
from supertf.data.token_writer import prepare
from supertf.errors import UserError
from supertf.model.gpt import GPT
from supertf.model.pretrained import save_model

V, BOS = 257, 256


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = GPT(tiny_config(position="rope", attention="ssmax")).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # an untrained model hardly looks at its context
    return model


def text(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n,), generator=torch.Generator().manual_seed(n))


def one_by_one(model, ids, contexts, bos) -> float:
    """Mean loss, each token alone: `contexts` gives how many tokens before token i are seen."""
    losses = []
    for i, context in contexts.items():
        seen = ids[i - context : i].tolist()
        logits = model(torch.tensor([[BOS, *seen] if bos else seen])).logits[0, -1]
        losses.append(F.cross_entropy(logits[None], ids[i : i + 1]).item())
    return sum(losses) / len(losses)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 90),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([None, BOS]),
    st.integers(1, 5),
)
def test_every_token_is_predicted_exactly_once(model, n, length, stride, bos_id, batch_size):
    stride = min(stride, length)
    found = perplexity(model, text(n), length, stride, batch_size, bos_id)
    assert found.tokens == n - (bos_id is None)
    assert found.perplexity == pytest.approx(math.exp(found.loss))


@pytest.mark.parametrize("bos", [False, True])
def test_windows_side_by_side_give_growing_contexts(model, bos):
    """Tokens 1 ... 20 (0 ... 19 with BOS) in windows of 8; the last window ends with the text."""
    ids = text(21 - bos)
    found = perplexity(model, ids, 8, bos_id=BOS if bos else None)
    first = 0 if bos else 1
    contexts = {first + i: i % 8 + (not bos) for i in range(16)}
    contexts |= {first + i: i - 12 + (not bos) for i in range(16, 20)}  # the window of tokens 12 ... 19
    assert found.loss == pytest.approx(one_by_one(model, ids, contexts, bos), rel=1e-4)


def test_a_stride_of_one_gives_every_token_the_full_context(model):
    ids = text(30)
    contexts = {i: min(i, 8) for i in range(1, 30)}
    found = perplexity(model, ids, 8, stride=1)
    assert found.loss == pytest.approx(one_by_one(model, ids, contexts, bos=False), rel=1e-4)


def test_batches_do_not_change_the_result(model):
    ids = text(100)
    losses = [perplexity(model, ids, 16, 8, batch_size).loss for batch_size in (1, 3, 50)]
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=1e-5)


def test_a_uniform_model_has_the_vocabularys_perplexity():
    model = GPT(tiny_config()).eval()
    model.wte.weight.data.zero_()
    assert perplexity(model, text(50), 16).perplexity == pytest.approx(V, rel=1e-4)


def test_a_long_window_is_read_in_pieces_to_the_same_losses(model, monkeypatch):
    whole = loss_by_position(model, text(33), 16)
    monkeypatch.setattr("supertf.analysis.losses.CHUNK", 5)
    assert torch.allclose(loss_by_position(model, text(33), 16), whole, atol=1e-5)


def test_loss_by_position_agrees_with_perplexity(model):
    ids = text(65)  # four whole windows of 16
    losses = loss_by_position(model, ids, 16, batch_size=3)
    assert losses.shape == (16,)
    assert losses.mean().item() == pytest.approx(perplexity(model, ids, 16).loss, rel=1e-5)
    first = {1 + 16 * i: 1 for i in range(4)}
    assert losses[0].item() == pytest.approx(one_by_one(model, ids, first, bos=False), rel=1e-4)


@pytest.mark.parametrize(
    ("ids", "length", "stride", "message"),
    [
        ([], 8, None, "0 tokens: too short"),
        ([1], 8, None, "1 tokens: too short"),
        ([1, 2, 300], 8, None, "vocabulary is 0 to 256"),
        ([1, -2, 3], 8, None, "vocabulary is 0 to 256"),
        ([1, 2, 3], 0, None, "window length is 0"),
        ([1, 2, 3], 8, 9, "stride is 9"),
        ([1, 2, 3], 8, 0, "stride is 0"),
    ],
)
def test_bad_input_is_named(model, ids, length, stride, message):
    with pytest.raises(UserError, match=message):
        perplexity(model, ids, length, stride)


def test_too_short_for_a_window_by_position(model):
    with pytest.raises(UserError, match="fewer than one window of 16"):
        loss_by_position(model, text(16), 16)


def test_beyond_learned_positions_is_refused():
    model = GPT(tiny_config(position="learned")).eval()
    with pytest.raises(UserError, match="learned positions for 16"):
        perplexity(model, text(60), 32)


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
