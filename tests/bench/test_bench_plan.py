"""Plans are held against steps: what is compared, whatever the machine."""

import pytest

from supertf.bench import plan

pytestmark = pytest.mark.kernels


def test_every_shape_is_held_against_its_plan(monkeypatch, one_thread):
    small = {"vocab_size": 96, "n_ctx": 32, "n_layer": 1, "n_head": 2, "n_embd": 32}
    monkeypatch.setattr(plan, "BASE", small)
    monkeypatch.setattr(plan, "SHAPES", {"first": ({}, 4), "deeper": ({"n_layer": 3}, 4)})
    monkeypatch.setattr(plan, "matmul_gflops", lambda dtype, device: 1e6)
    *_, result = plan.run(repeats=1)
    assert result["first"]["times_the_planned_seconds"] == pytest.approx(1), "by which the share is learned"
    assert result["deeper"]["times_the_planned_seconds"] > 0
    for name in ("first", "deeper"):
        assert result[name]["times_the_planned_gb"] == pytest.approx(1, abs=0.25)
