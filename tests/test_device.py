"""The device and the number type that the lab computes with, and the reason for both."""

import sys
from pathlib import Path

import pytest
import torch

from supertf.device import cpu_has_bf16, pick_device_dtype
from supertf.errors import UserError


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No overrides."""
    for name in ("SUPERTF_DEVICE", "SUPERTF_DTYPE"):
        monkeypatch.delenv(name, raising=False)


def pretend_cuda(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Pretend GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)  # true on a T4, which emulates it


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_gpu_dtype_follows_compute_capability_not_emulated_support(monkeypatch, capability, dtype):
    pretend_cuda(monkeypatch, capability)
    device, chosen, reason = pick_device_dtype()
    assert (device.type, chosen) == ("cuda", dtype)
    assert f"compute capability {capability[0]}.{capability[1]}" in reason and "Pretend GPU" in reason


@pytest.mark.parametrize("units", [True, False])
def test_cpu_computes_in_float32_and_mentions_bf16_only_where_the_cpu_has_it(monkeypatch, units):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": units}, raising=False)
    device, dtype, reason = pick_device_dtype()
    assert (device.type, dtype) == ("cpu", torch.float32)
    assert ("bf16 autocast is an option" in reason) == units


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/cpuinfo")
def test_bf16_units_agree_with_the_kernel():
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert cpu_has_bf16() == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def test_arguments_outrank_the_environment(monkeypatch):
    monkeypatch.setenv("SUPERTF_DEVICE", "cpu")
    monkeypatch.setenv("SUPERTF_DTYPE", "bf16")
    device, dtype, reason = pick_device_dtype()
    assert (device.type, dtype) == ("cpu", torch.bfloat16)
    assert "SUPERTF_DEVICE" in reason and "SUPERTF_DTYPE" in reason
    assert pick_device_dtype(dtype="float32")[1] == torch.float32


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("gpu", None, "unknown device 'gpu'"),
        ("meta", None, "unknown device 'meta'"),
        ("cuda:99", None, "torch sees"),
        ("cpu", "float17", "unknown dtype 'float17'"),
        ("cpu", "fp16", "not for CPUs"),
    ],
)
def test_wrong_choices_are_refused_in_one_line(device, dtype, message):
    with pytest.raises(UserError, match=message) as caught:
        pick_device_dtype(device, dtype)
    assert "\n" not in str(caught.value)
