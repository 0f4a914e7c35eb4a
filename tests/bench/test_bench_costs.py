"""How costs grow: exponents of what is known, and the memory of a long prompt."""

import json

import pytest
import torch

from supertf.bench import costs
from supertf.bench.costs import cache_bytes, exponent
from supertf.cli.main import main
from supertf.model.config import GPTConfig
from supertf.model.generation import generate
from supertf.model.gpt import GPT


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0])
def test_an_exponent_is_the_power_of_a_power_law(power):
    assert exponent([2, 4, 8, 16], [3.0 * n**power for n in (2, 4, 8, 16)]) == pytest.approx(power, abs=1e-9)


def test_all_axes_are_measured_kept_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(costs, "BASE", {**costs.BASE, "n_ctx": 16, "n_embd": 16, "vocab_size": 64})
    monkeypatch.setattr(costs, "AXES", {"windows": (1, 2), "n_ctx": (16, 32), "n_layer": (1, 2)})
    monkeypatch.setattr(costs, "PROMPTS", (64, 128))
    monkeypatch.setattr(costs, "HEAD", {**costs.HEAD, "n_ctx": 32, "n_embd": 12, "vocab_size": 5000})
    assert main(["bench", "costs", "--repeats", "1", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out/costs.json").read_text())
    assert (tmp_path / "out/costs.png").read_bytes().startswith(b"\x89PNG")
    for axis in costs.AXES:
        assert found[axis]["sizes"] == list(costs.AXES[axis])
        assert min(found[axis]["seconds"]) > 0 and found[axis]["bytes"][1] > found[axis]["bytes"][0]
    assert found["windows"]["operations_exponent"] == pytest.approx(1)
    assert 1 < found["n_ctx"]["operations_exponent"] < 2
    assert found["head"]["share_of_bytes"] < 0.7 and found["head"]["gradients_apart"] < 1e-5


def test_a_long_prompt_takes_keys_values_and_little_else(monkeypatch, one_thread):
    monkeypatch.setattr("supertf.model.generation.MASK", 2**18)
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=50, n_layer=2, n_head=2, n_embd=16, position="rope")).eval()
    held = {}
    for length in (2048, 8192):
        prompt = torch.randint(50, (length,)).tolist()
        most = costs.profiled_bytes(lambda prompt=prompt: generate(model, prompt, 1))
        held[length] = most - cache_bytes(model, length)
    assert held[8192] < 1.5 * held[2048]
