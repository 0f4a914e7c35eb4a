"""A small model of bytes with a planted weight, and a checkpoint of it for the cells of experiments."""

import pytest
from planted import byte_model, saved


@pytest.fixture(scope="module")
def model():
    return byte_model(1, 7, 21)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """The path of a checkpoint of the model."""
    return saved(model, tmp_path_factory.mktemp("run"))
