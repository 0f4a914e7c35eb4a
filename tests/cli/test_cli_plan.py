"""`supertf plan`, and `supertf train --recipe`: what is said before a training, and what is trained."""

import json

import pytest

from supertf.model.pretrained import read_checkpoint
from supertf.training.recipes.catalogue import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = "train --recipe {} --scale 1e-5 --steps 4 --batch_size 2 --grad_accumulation 1 --device cpu --json"


def test_a_recipe_is_priced_by_part(supertf):
    found = supertf("plan --recipe gpt2-small --variant 'ssmax none' --device t4 --json").json
    parts = ("weights_gb", "gradients_gb", "optimizer_gb", "activations_gb", "temporary_gb", "reserved_gb")
    assert found["memory_gb"] == pytest.approx(sum(found[part] for part in parts))
    assert found["weights_gb"] == pytest.approx(4 * found["parameters"] / 1e9, rel=0.01)
    assert found["optimizer_gb"] == pytest.approx(2 * found["weights_gb"], rel=0.01)
    assert found["precision"] == "fp16" and found["fits"] and found["tokens"] == 4578 * 2**19
    assert found["hours"] == found["device_hours"] > 20


def test_what_does_not_fit_comes_with_the_setting_to_change(supertf):
    found = supertf("plan --recipe gpt2-small --batch_size 64 --device t4 --json").json
    assert not found["fits"] and "take batch_size" in found["advice"]


def test_all_recipes_are_listed_with_what_they_need(supertf, monkeypatch):
    parts = {"weights": 1e9, "gradients": 1e9, "optimizer": 2e9, "temporary": 1e9}

    def memory(config, batch_size, *how):
        return {**parts, "activations": 1e9 * batch_size}

    monkeypatch.setattr("supertf.training.plan.step_memory", memory)
    said = supertf("plan --device h100 --scale 0.01")
    assert said.out.startswith("NVIDIA H100, bf16, at 30% of its matrix products (assumed)")
    assert all(f"{name}, scaled by 0.01" in said.out for name in RECIPES) and " yes " in said.out


def test_this_machine_is_measured(supertf, monkeypatch):
    monkeypatch.setattr("supertf.bench.plan.matmul_gflops", lambda dtype, device: 50.0)
    found = supertf("plan --recipe original-small --scale 1e-4 --device cpu --utilisation 0.5 --json").json
    assert found["tokens_per_second"] == pytest.approx(0.5 * 50e9 / found["flops_per_token"])


def test_a_recipe_trains_on_another_text_and_options_change_its_settings(supertf, lab, tmp_path):
    run = tmp_path / "run"
    files = ("--train_data", lab / "train.bin", "--test_data", lab / "validation.bin")
    figures = supertf(
        f"{SMALL.format('gpt2-small')} --variant", "ssmax none", *files, "--output_dir", run
    ).json
    assert figures["steps"] == 4
    config, _ = read_checkpoint(run)
    assert (config.attention, config.position, config.vocab_size) == ("ssmax", "none", 257)
    settings = json.loads(next(run.glob("*/state.json")).read_text())["settings"]
    assert (settings["batch_size"], settings["lr"], settings["warmup"]) == (2, 1e-3, 250)


def test_the_hunt_looks_at_the_model_along_the_way(supertf, lab, tmp_path):
    run = tmp_path / "run"
    files = ("--train_data", lab / "train.bin", "--test_data", lab / "validation.bin")
    supertf(SMALL.format("super-weight-hunt"), *files, "--output_dir", run)
    looks = [json.loads(line) for line in (run / "looks.jsonl").read_text().splitlines()]
    assert [one["step"] for one in looks] == [0, 1, 2, 3, 4]
    assert all({"sink", "most", "layers"} <= one.keys() for one in looks)
    supertf(f"{SMALL.format('super-weight-hunt')} --resume", *files, "--output_dir", run)
    again = [json.loads(line) for line in (run / "looks.jsonl").read_text().splitlines()]
    assert again == looks, "the last moment is seen again, and stands there once"
