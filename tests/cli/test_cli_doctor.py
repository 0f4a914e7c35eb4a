"""`supertf doctor`: what is here, and the command for each missing thing."""

import importlib.metadata

import pytest
import torch

from supertf.cli.doctor import report
from supertf.data.downloads import WHEELS, places


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


def test_a_complete_machine_is_ok(complete, supertf):
    said = supertf("doctor")
    assert said.code == 0 and said.out.endswith("everything the offline lab needs is here\n")
    assert f"torch            {torch.__version__}\n" in said.out


@pytest.mark.parametrize("name", list(WHEELS))
def test_each_missing_thing_comes_with_its_command(complete, name, supertf):
    places(name)[0].unlink()
    assert report()["missing"] == {name: f"supertf fetch {name}"}
    said = supertf("doctor")
    assert said.code == 1 and f"missing: {name}; mend it with: supertf fetch {name}\n" in said.out


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


def test_json_is_complete(complete, supertf):
    found = supertf("doctor --json").json
    assert found["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert set(found) == {
        *("supertf", "python", "versions", "reason", "device", "dtype", "cores", "memory_gb"),
        *("memory_free_gb", *WHEELS, "hub", "missing", "ok"),
    }


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
