"""The benchmarks' arithmetic, that their rivals do the same work, and what their command prints."""

import importlib
import inspect
import json
import math

import pytest
import torch
from cut import WITH_SUPER_WEIGHT, as_llama, first_layers

from supertf.bench import generate as bench_generate
from supertf.bench import prune as bench_prune
from supertf.bench import timing as bench
from supertf.bench import train as bench_train
from supertf.cli.bench import BENCHMARKS
from supertf.cli.main import main
from supertf.compression.speed.packed import PACKINGS, missing_kernel
from supertf.errors import UserError
from supertf.model.config import GPTConfig
from supertf.model.gpt import GPT

pytestmark = pytest.mark.kernels

TINY = {"tiny": ({"vocab_size": 40, "n_ctx": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}, 2)}


def test_the_peer_has_the_same_number_of_parameters_and_the_same_loss():
    """Given the same weights, transformers' step computes what ours does."""
    transformers = pytest.importorskip("transformers")
    from supertf.model.hf_weights import from_gpt2
    from supertf.model.pretrained import build

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
    monkeypatch.setattr(bench_train, "SLICE", 30)  # so that 40 is a large vocabulary
    monkeypatch.setattr(bench_train, "limits", lambda: {"matmul_gflops_fp32": 1.0, "matmul_gflops_bf16": 2.0})
    assert main(["bench", "train", "--repeats", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "supertf bench train --repeats=1" and result["seed"] == 0
    assert result["machine"]["versions"]["transformers"] and result["machine"]["load_before"] >= 0
    assert result["tiny"]["config"]["n_embd"] == 8
    assert result["tiny"]["transformers GPT-2 fp32"]["speedup"] == 1.0
    cost = result["tiny"]["ssmax_cost_fp32"]
    assert cost["lower_quartile"] <= cost["median"] <= cost["upper_quartile"]
    assert result["tiny"]["lean_head_speedup_bf16"] > 0
    for name in ("softmax fp32", "softmax bf16", "ssmax fp32", "ssmax bf16", "plain head bf16"):
        figures = result["tiny"][name]
        limit = 1.0 if name.endswith("fp32") else 2.0
        assert figures["share_of_matmul_rate"] == pytest.approx(figures["gflops"] / limit)
    assert main(["bench", "train", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("tiny / softmax bf16 ") and "speedup" in line for line in lines)


NANO = """
import dataclasses, torch

@dataclasses.dataclass
class GPTConfig:
    block_size: int = 8
    vocab_size: int = 8
    n_layer: int = 1
    n_head: int = 1
    n_embd: int = 8
    dropout: float = 0.1

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        print("a small one")
        self.table = torch.nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, idx, targets=None):
        logits = self.table(idx)
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), learning_rate, betas)
"""


def test_a_copy_of_nanogpts_model_is_one_more_peer(monkeypatch, capsys, tmp_path):
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench_train, "SHAPES", TINY)
    monkeypatch.setattr(bench_train, "limits", lambda: {"matmul_gflops_fp32": 1.0, "matmul_gflops_bf16": 2.0})
    (tmp_path / "model.py").write_text(NANO)
    assert main(["bench", "train", "--repeats", "1", "--nanogpt", str(tmp_path / "model.py"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tiny"]
    ratio = found["softmax fp32"]["tokens_per_second"] / found["nanoGPT fp32"]["tokens_per_second"]
    assert found["times_nanogpt_fp32"] == pytest.approx(ratio)
    (tmp_path / "other.py").write_text("GPT = 1")
    for name, message in (("other.py", "is not nanoGPT's model.py"), ("none.py", "is no Python file")):
        assert main(["bench", "train", "--nanogpt", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err


def test_training_in_a_dtype_that_the_processor_emulates_is_left_out_and_said(monkeypatch, capsys):
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench_train, "SHAPES", TINY)
    rates = {"matmul_gflops_fp32": 100.0, "matmul_gflops_bf16": 1e-9}
    monkeypatch.setattr(bench_train, "limits", lambda: rates)
    assert main(["bench", "train", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tiny"]
    assert found["softmax fp32"]["speedup"] > 0 and found["ssmax_cost_fp32"]["rounds"] == 4
    names = ("transformers GPT-2", "softmax", "ssmax", "lab preset")
    assert set(found["left_out"]) == {f"{name} bf16" for name in names}
    assert "ssmax_cost_bf16" not in found and "softmax bf16" not in found


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (UserError("no disk"), 2)])
def test_what_was_measured_is_printed_also_when_the_rest_was_not(monkeypatch, capsys, error, code):
    def run(repeats):
        result = {"repeats": repeats}
        for name in ("first", "second", "third"):
            if name == "third":
                raise error
            result[name] = 1.5
            yield result

    monkeypatch.setattr(bench_train, "run", run)
    assert main(["bench", "train", "--repeats", "3", "--json"]) == code
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["first"], found["second"]) == (1.5, 1.5) and "third" not in found
    assert found.get("interrupted", False) == (code == 130)
    assert ("interrupted" if code == 130 else "no disk") in captured.err


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_takes_its_options_and_help_tells_its_defaults(name, capsys):
    options = BENCHMARKS[name]
    run = importlib.import_module(f"supertf.bench.{name}").run
    parameters = inspect.signature(run).parameters
    assert set(options) == set(parameters)
    assert inspect.isgeneratorfunction(run)  # so that what was measured is printed, whatever ends the rest
    main(["bench", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in options:
        if not isinstance(parameters[option].default, int | float):
            continue
        default = f"{parameters[option].default:g}"
        expected = f"{name} {default}" if option == "repeats" else f"(default: {default})"
        assert expected in text


def test_the_cost_of_ssmax_is_its_seconds_over_those_of_softmax_in_many_rounds(monkeypatch):
    pytest.importorskip("transformers")
    counts = []

    def rounds(rivals, repeats, **options):
        counts.append((len(rivals), repeats))
        seconds = bench.Seconds(rivals)
        seconds.update({name: [1.02 if "ssmax" in name else 1.0] * repeats for name in rivals})
        yield seconds

    monkeypatch.setattr(bench_train, "rounds", rounds)
    rates = {"matmul_gflops_fp32": 1.0, "matmul_gflops_bf16": 2.0}
    *_, found = bench_train.measure("tiny", *TINY["tiny"], repeats=2, rates=rates)
    assert counts == [(8, 2), (2, 8), (2, 8)]
    same = {"median": 1.02, "lower_quartile": 1.02, "upper_quartile": 1.02}
    assert found["ssmax_cost_fp32"] == pytest.approx({**same, "rounds": 8})
    assert "lean_head_speedup_fp32" not in found  # the vocabulary fits one slice


def test_both_losses_of_the_training_benchmark_are_the_same_number():
    torch.manual_seed(0)
    model = GPT(GPTConfig(**TINY["tiny"][0]))
    ids = torch.randint(0, 40, (2, 9))
    losses = [loss(model, ids[:, :-1], ids[:, 1:]) for loss in (bench_train.our_loss, bench_train.plain_loss)]
    torch.testing.assert_close(*losses)


def test_one_row_products_are_rated_by_the_bytes_of_all_matrices(monkeypatch):
    model = GPT(GPTConfig(**TINY["tiny"][0]))
    calls = []
    monkeypatch.setattr(bench_generate, "linear_one_row", lambda x, weight: calls.append(weight.shape))
    monkeypatch.setattr(
        bench_generate,
        "interleave",
        lambda rivals, repeats: {name: [call() or 0.5] for name, call in rivals.items()},
    )
    found = bench_generate.one_row_product(model, repeats=1)
    matrices = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert calls == [matrix.shape for matrix in matrices]
    rate = 4 * sum(matrix.numel() for matrix in matrices) / 0.5 / 1e9
    assert found == {"F.linear_gbps": rate, "linear_one_row_gbps": rate, "ratio": 1.0}


@pytest.mark.real_model
@pytest.mark.slow
def test_generation_is_measured_with_what_its_precision_costs(monkeypatch, smollm2):
    """On the layers up to the super weight's."""
    pytest.importorskip("transformers")
    model = first_layers(smollm2, WITH_SUPER_WEIGHT)
    cut = {"load_model": lambda _: model, "load_peer": lambda: as_llama(model)}
    for name, value in {**cut, "TEXT_TOKENS": 64, "limits": lambda: {"read_gbps": 1.0}}.items():
        monkeypatch.setattr(bench_generate, name, value)
    *_, found = bench_generate.run(tokens=2, repeats=1)
    here = ["float32", *(packing for packing in PACKINGS if missing_kernel(packing) is None)]
    assert {*found.get("left_out", {})} == {*PACKINGS} - {*here}
    share = {"float32": (1, 1), "bfloat16": (2, 2), "int8": (3.9, 4), "int4": (6.1, 8)}  # of the bytes
    for weights in here:
        one, exact = found[weights], found["float32"]
        assert one["loss"] == pytest.approx(exact["loss"], rel=0.05 if weights == "int4" else 0.02)
        assert one["perplexity"] == pytest.approx(math.exp(one["loss"]))
        least, most = share[weights]
        assert least <= exact["weight_bytes"] / one["weight_bytes"] <= most
        assert one["ratio"] > 0 and one["supertf_tokens_per_s"] > 0
    assert len({found[weights]["loss"] for weights in here}) == len(here)


def test_the_best_point_is_the_fastest_of_those_that_cost_little():
    found = {
        "dense": {"perplexity": 15.0},
        "slow": {"perplexity_ratio": 1.0, "ratio": 1.1},
        "good": {"perplexity_ratio": bench_prune.WORST, "ratio": 1.3},
        "costly": {"perplexity_ratio": bench_prune.WORST + 0.01, "ratio": 2.0},
    }
    assert bench_prune.best(found) == {"point": "good", "ratio": 1.3}
    assert bench_prune.best({"dense": {}, "costly": found["costly"]}) == {"point": None, "ratio": None}


@pytest.mark.real_model
@pytest.mark.slow
def test_pruning_is_measured_with_what_it_costs(monkeypatch, smollm2):
    """On the layers up to the super weight's."""
    model = first_layers(smollm2, WITH_SUPER_WEIGHT)
    sizes = {"LENGTH": 16, "WINDOWS": 1, "CALIBRATION": (4, 2, 8), "SHARES": (0.2, 0.5), "BUDGET": 9.0}
    for name, value in {**sizes, "limits": dict, "load_model": lambda _: model}.items():
        monkeypatch.setattr(bench_prune, name, value)
    fitted = "10% of the channels, fitted anew"
    everything = f"{fitted}, {bench_prune.UNEVENLY}, and SVD-softmax"
    wanted = {
        "pruned_points": ("nothing dropped", bench_prune.HALF, fitted, everything),
        "packed_points": ("packed bfloat16", "packed int8"),
    }
    for function, names in wanted.items():
        points = getattr(bench_prune, function)
        monkeypatch.setattr(
            bench_prune,
            function,
            lambda *args, points=points, names=names: (one for one in points(*args) if one[0] in names),
        )
    *_, found = bench_prune.run(tokens=2, repeats=1)
    json.dumps(found)
    assert {*found.get("left_out", {})} == {f"packed {one}" for one in PACKINGS if missing_kernel(one)}
    pruned, packed = found["float32"], found["bfloat16"]
    for points in (pruned, packed):
        assert points["best"]["point"] in (*points, None)
        for name, point in points.items():
            if name not in ("dense", "best"):
                assert point["ratio"] > 0 and point["tokens_per_s"] > 0
                assert point["weight_bytes"] <= points["dense"]["weight_bytes"] * 1.001
    assert {*pruned} == {"dense", *wanted["pruned_points"], "best"}
    nothing, half = pruned["nothing dropped"], pruned[bench_prune.HALF]
    assert nothing["perplexity_ratio"] == pytest.approx(1, abs=1e-4) != half["perplexity_ratio"]
    assert nothing["weight_bytes"] == pruned["dense"]["weight_bytes"] > 1.07 * half["weight_bytes"]
    assert pruned[fitted]["super_weight_lost"] == 0 < pruned[everything]["super_weight_lost"]
    assert pruned[everything]["weight_bytes"] < 0.9 * pruned[fitted]["weight_bytes"]
    assert 2 * packed["dense"]["weight_bytes"] == pruned["dense"]["weight_bytes"]
    for name, share in (("bfloat16", 1), ("int8", 0.51)):
        if missing_kernel(name) is None:
            read = packed[f"packed {name}"]["weight_bytes"]
            assert read <= share * packed["dense"]["weight_bytes"]
