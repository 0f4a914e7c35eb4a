"""The script for a GPU, rehearsed on a processor: every part runs, fails alone, or is left out."""

import json

import pytest
import torch

from supertf.bench import gpu
from supertf.cli.main import main
from supertf.errors import UserError

pytestmark = pytest.mark.kernels
REAL = ("superweights", "generation", "entropy")  # of SmolLM2


@pytest.fixture(scope="module")
def rehearsal():
    """The last result of all parts that need no model and start no tests."""
    *_, result = gpu.run("cpu", skip=(*REAL, "tests"))
    return result


def test_precisions_are_held_against_float32_on_the_processor(rehearsal):
    for position in gpu.POSITIONS:
        for attention in ("softmax", "ssmax"):
            assert rehearsal["parity"][f"{attention} {position} float32"] == 0
            assert 0 < rehearsal["parity"][f"{attention} {position} bfloat16"] < 0.2


def test_steps_are_timed_beside_ssmax_and_the_peer(rehearsal):
    for length in (32, 64):
        for name in ("softmax", "ssmax", "transformers GPT-2"):
            assert rehearsal["speed"][f"{name}, {length} tokens"]["tokens_per_second"] > 0
        assert rehearsal["speed"][f"ssmax cost, {length} tokens"] > 0


def test_two_trainings_are_as_long_as_their_time(rehearsal):
    for variant in ("softmax rope", "ssmax rope"):
        one = rehearsal["training"][variant]
        assert one["steps"] >= 10 and len(one["losses"]) >= 10 and one["validation_loss"] < 12


@pytest.mark.slow
def test_the_real_model_is_found_continued_and_looked_at(smollm2):
    *_, result = gpu.run("cpu", skip=[name for name in gpu.PARTS if name not in REAL])
    assert result["superweights"]["first"] == [11, 507, 1229]
    assert result["superweights"]["verdict"] == "super"
    assert 0 < result["entropy"]["mean"] < 1 and result["generation"]["tokens_per_second"] > 0


def test_a_part_that_fails_takes_no_other_with_it_and_what_was_measured_is_kept(monkeypatch):
    def broken(setting):
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(gpu, "PARTS", {"a": broken, "b": lambda setting: {"found": 1}})
    first, second, third = (dict(result) for result in gpu.run("cpu"))
    assert list(first) == ["machine", "minutes"]
    assert second["a"]["failed"] == "RuntimeError: no kernel for this"
    assert third["b"]["found"] == 1 and third["b"]["seconds"] >= 0


def test_what_was_found_is_written_and_drawn_after_every_part(tmp_path, monkeypatch, capsys):
    seen = []

    def look(setting):
        seen.append(json.loads((tmp_path / "gpu.json").read_text()).keys() & {"speed", "last"})
        return {}

    speed = {"softmax": {"tokens_per_second": 9.0}, "ssmax cost": 1.01}
    monkeypatch.setattr(gpu, "PARTS", {"speed": lambda setting: speed, "last": look})
    assert main(["bench", "gpu", "--device", "cpu", "--out", str(tmp_path), "--json"]) == 0
    assert seen == [{"speed"}], "written before the next part begins"
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(capsys.readouterr().out)
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")


def test_no_part_begins_when_the_time_is_up():
    *_, result = gpu.run("cpu", minutes=0)
    assert {result[name]["left_out"] for name in gpu.PARTS} == {"the time was up"}


def test_an_unknown_part_is_told():
    with pytest.raises(UserError, match="there is no part 'sped'; choose from parity, "):
        next(gpu.run("cpu", skip=["sped"]))


@pytest.mark.parametrize(
    ("name", "key"), [("Tesla T4", "t4"), ("NVIDIA H200", "h200"), ("NVIDIA L40", None), ("NVIDIA L4", "l4")]
)
def test_a_device_is_known_by_its_name(name, key):
    assert gpu.device_of(name) == key


@pytest.mark.gpu
def test_on_a_gpu_every_part_gives_figures():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    *_, result = gpu.run("cuda", skip=("tests", "training"))
    assert not [name for name in gpu.PARTS if "failed" in result.get(name, {})]
