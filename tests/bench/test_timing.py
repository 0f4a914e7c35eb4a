"""Timing: rivals take turns, slow ones are left out, ratios and rates are right; the machine is described."""

import importlib.metadata
import itertools
import platform
import sys
from pathlib import Path

import pytest
import torch

from supertf.bench import timing as bench
from supertf.bench.timing import interleave, matmul_gflops, read_gbps, rounds, speedup, spread

pytestmark = pytest.mark.kernels


def test_rivals_take_turns():
    order = []
    seconds = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, warmup=1
    )
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]  # the warm-up, then to and fro
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def clocked(monkeypatch, costs):
    """Rivals whose calls take the seconds of `costs`, one after another (the last of them from then on)."""
    clock, calls = [0.0], []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])

    def rival(name, own):
        def call():
            calls.append(name)
            clock[0] += next(own)

        return call

    rivals = {
        name: rival(name, itertools.chain(times, itertools.repeat(times[-1])))
        for name, times in costs.items()
    }
    return rivals, calls


def test_a_rival_whose_rounds_would_take_minutes_is_left_out_after_two_calls_and_named(monkeypatch):
    costs = {"fast": [2.0], "fair": [19.0], "slow": [30.0], "compiles": [40.0, 2.0]}
    rivals, calls = clocked(monkeypatch, costs)
    *_, seconds = rounds(rivals, repeats=3)
    assert seconds == {"fast": [2.0] * 3, "fair": [19.0] * 3, "compiles": [2.0] * 3}
    assert calls.count("slow") == 2
    said = "about 30 s a call, 15 times the fastest rival's, and 2 minutes for 3"
    assert seconds.left_out == {"slow": said}


@pytest.mark.parametrize("costs", [{"a": [100.0], "b": [900.0]}, {"a": [0.25], "b": [15.0]}])
def test_no_rival_is_left_out_where_all_are_slow_nor_where_all_calls_take_less_than_a_minute(
    monkeypatch, costs
):
    rivals, _ = clocked(monkeypatch, costs)
    assert interleave(rivals, repeats=3) == {name: times * 3 for name, times in costs.items()}


def test_a_rival_that_is_known_to_take_minutes_is_not_called_at_all(monkeypatch):
    rivals, calls = clocked(monkeypatch, {"fast": [1.0], "slow": [1.0]})
    *_, seconds = rounds(rivals, repeats=7, expected={"fast": 1.0, "slow": 460.0})
    assert seconds == {"fast": [1.0] * 7} and "slow" not in calls
    assert seconds.left_out["slow"].startswith("about 460 s a call, 460 times")


def test_what_was_measured_before_an_interrupt_are_whole_rounds():
    count = itertools.count()

    def interrupted():
        if next(count) == 3:
            raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        for seconds in rounds({"a": lambda: None, "b": interrupted}, repeats=5):
            seen.append({name: len(times) for name, times in seconds.items()})
    assert seen == [{"a": 1, "b": 1}, {"a": 2, "b": 2}]


def test_progress_is_shown_on_stderr_where_it_has_a_title(capsys):
    interleave({"a": lambda: None}, repeats=2)
    assert capsys.readouterr().err == ""
    list(rounds({"a": lambda: None}, repeats=2, title="bfloat16"))
    captured = capsys.readouterr()
    assert "bfloat16: a" in captured.err and captured.out == ""


def test_speedup_is_the_median_ratio_within_rounds():
    """A slow round slows both, and one freak value does not count."""
    seconds = {"ours": [1.0, 10.0, 1.0, 1.0], "peer": [2.0, 20.0, 2.0, 50.0]}
    assert speedup(seconds, "ours", "peer") == 2.0
    assert speedup(seconds, "ours", "ours") == 1.0


def test_a_ratio_is_shown_with_its_spread_over_rounds():
    assert spread([1.204, 0.95, 1.3]) == "1.20 (0.95 to 1.30)"
    assert spread([2.0]) == "2.00 (2.00 to 2.00)"


def test_rates_follow_from_the_time(monkeypatch):
    monkeypatch.setattr(bench, "interleave", lambda rivals, repeats: {name: [2.0, 0.5] for name in rivals})
    assert matmul_gflops(torch.float32, size=100) == pytest.approx(2 * 100**3 / 0.5 / 1e9)
    assert read_gbps(megabytes=1) == pytest.approx(1e6 / 0.5 / 1e9)


def test_the_rate_of_a_product_that_would_take_seconds_is_that_of_a_smaller_one(monkeypatch):
    """As in bfloat16 on a processor without units for it: 1e8 operations a second here."""
    sizes = []

    def mm(a, b, out):
        sizes.append(len(a))

    monkeypatch.setattr(torch, "mm", mm)
    rivals_seconds = lambda rivals, repeats: {"product": [rivals["product"]() or 2e-8 * sizes[-1] ** 3]}  # noqa: E731
    monkeypatch.setattr(bench, "interleave", rivals_seconds)
    assert matmul_gflops(torch.bfloat16) == pytest.approx(0.1)
    assert sizes == [128, 256, 256]  # the next would take 2.7 s


def test_the_machine_is_described():
    found = bench.machine("numpy")
    assert found["processor"] and found["threads"] >= 1
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(found["versions"]) == {"python", "supertf", "torch", "numpy"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/cpuinfo")
def test_the_processor_is_named_as_the_kernel_names_it():
    text = Path("/proc/cpuinfo").read_text()
    assert bench.processor() in (text if "model name" in text else (platform.processor(), platform.machine()))
