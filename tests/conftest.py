"""Fixtures that several test files share."""

import supertf  # isort: skip  # noqa: F401  # before torch loads: it sets how threads wait

import functools
import shutil
import signal
import sys
from pathlib import Path

import gguf
import hypothesis
import pytest
import torch

from supertf.data.downloads import is_present
from supertf.experiments.sweep.description import Experiment
from supertf.model.pretrained import load_model

hypothesis.settings.register_profile(  # by default an example must end in 0.2 s, and be drawn fast
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
# A shell starts background jobs with Ctrl-C ignored, and so would be all processes that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def one_thread():
    """Run on one thread: matrices as small as the tests' are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def smollm2():
    """The real model, loaded once; tests that change it put it back."""
    if not is_present("smollm2-135m"):
        pytest.skip("run `supertf fetch smollm2-135m` first")
    return load_model("smollm2-135m")


@pytest.fixture(scope="module")
def read_once():
    """transformers has `gguf` read all fields of a file three times, and make its table of names anew for
    every tensor, which takes half a minute: here the second call gives what the first one gave."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GGUFReader", "get_tensor_name_map"):
            patch.setattr(gguf, name, functools.cache(getattr(gguf, name)))
        yield


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """An experiment whose measure takes no time, in a module that tests can edit, and an empty cache."""
    package = tmp_path / "toy_lab"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).parent / "toy_measures.py", package / "measures.py")
    monkeypatch.setenv("SUPERTF_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    yield Experiment(
        name="toy",
        question="Does the level matter?",
        measure="toy_lab.measures:levels",
        settings={"level": 0, "steps": 400, "mishap": None},
        variants={"low": {"level": 1}, "high": {"level": 2}},
        lengths=(64, 128),
        seeds=(0, 1, 2),
        quick={"steps": 10},
    )
    for name in ("toy_lab", "toy_lab.measures"):
        sys.modules.pop(name, None)
