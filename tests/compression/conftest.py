"""What tests of compression share: a model with a planted weight, and what is known of its activations."""

import pytest
import torch
from planted import IDS, LENGTH, held, planted_model, sizes_by_method

from supertf.compression.calibration import calibrate


@pytest.fixture(scope="module")
def model():
    """Tests that change it put it back."""
    return planted_model()


@pytest.fixture(scope="module")
def calibration(model):
    return calibrate(model, IDS, LENGTH, products=True)


@pytest.fixture(scope="module")
def sizes(model):
    return sizes_by_method(model, IDS, LENGTH)


@pytest.fixture
def unchanged(model):
    """No test leaves a trace in the model that all share."""
    yield
    fresh = planted_model().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert not held(model)
