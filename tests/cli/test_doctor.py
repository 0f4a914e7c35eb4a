"""The device decision with its reason, and the doctor's report with the command for each missing thing."""

import importlib.metadata
import json
import sys
from pathlib import Path

import pytest
import torch

from supertf.cli.doctor import report
from supertf.cli.main import main
from supertf.data.downloads import WHEELS, places
from supertf.device import cpu_has_bf16, pick_device_dtype
from supertf.errors import UserError


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No overrides, and no question to the network."""
    for name in ("SUPERTF_DEVICE", "SUPERTF_DTYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """A machine on which nothing is missing."""
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path))
    for name in WHEELS:
        for place in places(name):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(b"x")
    real_requires = importlib.metadata.requires
    monkeypatch.setattr(
        importlib.metadata,
        "requires",
        lambda name: (
            ["torch>=2.11", 'ruff==0.0.1; extra == "dev"'] if name == "supertf" else real_requires(name)
        ),
    )


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


def test_a_complete_machine_is_ok(complete, capsys):
    assert main(["doctor"]) == 0
    assert "everything the offline lab needs is here" in capsys.readouterr().out


@pytest.mark.parametrize("name", list(WHEELS))
def test_each_missing_thing_comes_with_its_command(complete, name, capsys):
    places(name)[0].unlink()
    assert report()["missing"] == {name: f"supertf fetch {name}"}
    assert main(["doctor"]) == 1
    assert f"supertf fetch {name}" in capsys.readouterr().out


def test_an_old_or_absent_package_comes_with_its_pip_command(complete, monkeypatch):
    wanted = ["numpy>=999", "surely-not-installed>=1"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    assert report()["missing"] == {
        "numpy": "python -m pip install 'numpy>=999'",
        "surely-not-installed": "python -m pip install 'surely-not-installed>=1'",
    }


def test_a_wrong_override_is_reported_not_raised(complete, monkeypatch):
    monkeypatch.setenv("SUPERTF_DEVICE", "gpu")
    found = report()
    assert not found["ok"] and "unset SUPERTF_DEVICE" in found["missing"]["device"]


def test_json_is_complete(complete, capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert {"device", "dtype", "reason", "cores", "memory_gb", "hub", "missing", "ok"} <= set(found)


def test_the_hub_is_not_asked_when_offline_and_its_absence_is_not_an_error(complete, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **options: pytest.fail("asked the hub"))
    found = report()
    assert "HF_HUB_OFFLINE is set" in found["hub"] and "unset HF_HUB_OFFLINE" in found["hub"] and found["ok"]
    monkeypatch.undo()


def test_an_unreachable_hub_says_what_to_do_and_is_not_an_error(complete, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    found = report(hub_timeout=0.5)
    assert found["hub"].startswith("not reachable (no answer from http://127.0.0.1:9: ")
    assert "connect to a network, and set HF_TOKEN" in found["hub"] and found["ok"]
