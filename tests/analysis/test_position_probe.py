"""The position probe: exact where position is written plainly, blind where there is none, like lstsq."""

import dataclasses

import pytest
import torch

from supertf.analysis.position_probe import probe_positions, read_positions
from supertf.analysis.residual_stream import hidden_states
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT

TINY = GPTConfig(vocab_size=40, n_ctx=32, n_layer=3, n_head=4, n_embd=32, norm="rmsnorm", bias=False)
T = 32
pytestmark = pytest.mark.usefixtures("one_thread")


def tiny_model(**changes):
    torch.manual_seed(0)
    return GPT(dataclasses.replace(TINY, **changes)).eval()


def sequences(N, bos=True, seed=0):
    idx = torch.randint(1, 40, (N, T), generator=torch.Generator().manual_seed(seed))
    if bos:
        idx[:, 0] = 0
    return idx


def test_a_position_written_into_one_channel_is_read_exactly():
    model = tiny_model(position="learned")
    with torch.no_grad():
        model.wpe.weight.zero_()
        model.wpe.weight[:, 3] = torch.arange(T) / 10
        model.wte.weight[:, 3] = 0.0
    probe = probe_positions(model, sequences(20), sequences(10, seed=1))[0]
    assert probe.r2 > 0.99999 and probe.error < 0.05 and probe.relative < 0.01


def test_the_causal_mask_writes_position_layer_by_layer_and_the_shuffled_control_reads_none():
    model = tiny_model(position="none")
    train, test = sequences(200), sequences(100, seed=1)
    probes = probe_positions(model, train, test)
    assert [probe.layer for probe in probes] == [0, 1, 2, 3]
    r2 = [probe.r2 for probe in probes]
    assert r2[0] < 0.1 < r2[1] < r2[2] < r2[3]  # the embeddings tell BOS from the rest, no more
    for probe in probe_positions(model, train, test, shuffled=True):
        assert abs(probe.r2) < 0.03
        assert 0.74 < probe.relative < 0.77  # answering the middle: 3/4 of a random guess


def test_identical_tokens_without_bos_carry_no_position_at_any_depth():
    model = tiny_model(position="none")
    same = torch.full((40, T), 7)
    for probe in probe_positions(model, same, same):
        assert abs(probe.r2) < 1e-6
    same[:, 0] = 0
    assert probe_positions(model, same, same)[2].r2 > 0.9  # with BOS the first layer sees 1/n of it


def test_the_probe_agrees_with_least_squares_of_torch():
    model = tiny_model(position="sinusoidal").double()
    train, test = sequences(100), sequences(50, seed=1)
    probes = probe_positions(model, train, test, batch_size=7)
    states = zip(hidden_states(model, train), hidden_states(model, test), strict=True)
    for probe, (seen, unseen) in zip(probes, states, strict=True):
        ones = [torch.ones(len(x) * T, 1, dtype=torch.float64) for x in (seen, unseen)]
        X, Y = (torch.cat([x.flatten(0, 1), one], 1) for x, one in zip((seen, unseen), ones, strict=True))
        wanted = torch.arange(T).double()[:, None]
        found = torch.linalg.lstsq(X, wanted.repeat(100, 1)).solution
        missed = Y @ found - wanted.repeat(50, 1)
        assert probe.r2 == pytest.approx(
            1 - float(missed.square().mean() / wanted.var(correction=0)), abs=2e-3
        )
        assert probe.error == pytest.approx(float(missed.abs().mean()), abs=0.02)


def test_chance_is_the_error_of_a_random_guess():
    probe = probe_positions(tiny_model(), sequences(20), sequences(5))[0]
    i = torch.arange(T).double()
    assert probe.chance == pytest.approx(float((i[:, None] - i).abs().mean()))


def test_what_is_read_is_what_the_probes_were_judged_by():
    model, train, test = tiny_model(position="none"), sequences(100), sequences(50, seed=1)
    read = read_positions(model, train, test)
    for probe, positions in zip(probe_positions(model, train, test), read, strict=True):
        assert positions.shape == (50, T)
        assert probe.error == pytest.approx(float((positions - torch.arange(T)).abs().mean()))
