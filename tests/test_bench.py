"""The benchmarks' arithmetic, and that their rivals do the same work."""

import json

import pytest
import torch

from supertf import bench, bench_train, cli_bench
from supertf.bench import interleave, matmul_gflops, read_gbps, speedup
from supertf.bench_train import SHAPES, flops_per_token
from supertf.cli import main
from supertf.config import GPTConfig
from supertf.model import GPT

TINY = {"tiny": ({"vocab_size": 40, "n_ctx": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}, 2)}


def test_rivals_take_turns():
    order = []
    seconds = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warmup=1
    )
    assert order == ["a", "b"] * 4
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_speedup_is_the_median_ratio_within_rounds():
    """A slow round slows both, and one freak value does not count."""
    seconds = {"ours": [1.0, 10.0, 1.0, 1.0], "peer": [2.0, 20.0, 2.0, 50.0]}
    assert speedup(seconds, "ours", "peer") == 2.0
    assert speedup(seconds, "ours", "ours") == 1.0


def test_rates_follow_from_the_time(monkeypatch):
    monkeypatch.setattr(bench, "interleave", lambda rivals, repeats: {name: [2.0, 0.5] for name in rivals})
    assert matmul_gflops(torch.float32, size=100) == pytest.approx(2 * 100**3 / 0.5 / 1e9)
    assert read_gbps(megabytes=1) == pytest.approx(1e6 / 0.5 / 1e9)


@pytest.mark.parametrize("shape", [shape for shape, _ in SHAPES.values()])
def test_operations_are_six_per_matrix_weight_and_causal_attention(shape):
    config = GPTConfig(**shape)
    with torch.device("meta"):
        model = GPT(config)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "wpe" not in name)
    attention = 6 * config.n_layer * config.n_ctx * config.n_embd
    assert flops_per_token(config) == 6 * matrices + attention


def test_the_peer_has_the_same_number_of_parameters_and_the_same_loss():
    """Given the same weights, transformers' step computes what ours does."""
    transformers = pytest.importorskip("transformers")
    from supertf.hf_weights import from_gpt2
    from supertf.pretrained import build

    shape, _ = TINY["tiny"]
    torch.manual_seed(0)
    peer = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=40, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
        )
    ).eval()
    ours = build(GPTConfig(**shape), from_gpt2(dict(peer.state_dict())))
    assert ours.num_parameters() == sum(p.numel() for p in peer.parameters())
    ids = torch.randint(0, 40, (2, 8))
    expected = peer(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(ours(ids[:, :-1], ids[:, 1:]).loss, expected, rtol=1e-4, atol=1e-5)


def test_the_command_reports_every_rival(monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench_train, "SHAPES", TINY)
    monkeypatch.setattr(
        bench_train, "machine", lambda: {"matmul_gflops_fp32": 1.0, "matmul_gflops_bf16": 2.0}
    )
    assert main(["bench", "train", "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["tiny"]["transformers GPT-2 fp32"]["speedup"] == 1.0
    for name in ("softmax fp32", "softmax bf16", "ssmax fp32", "ssmax bf16", "lab preset fp32"):
        figures = result["tiny"][name]
        limit = 1.0 if name.endswith("fp32") else 2.0
        assert figures["share_of_matmul_rate"] == pytest.approx(figures["gflops"] / limit)
    assert main(["bench", "train", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tiny / softmax bf16 ") and "speedup" in line for line in lines)


def test_every_benchmark_has_a_module_with_its_option():
    import importlib
    import inspect

    for module, option in cli_bench.BENCHMARKS.values():
        run = importlib.import_module(f"supertf.{module}").run
        assert option in inspect.signature(run).parameters
