"""Fixtures that several test files share."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Run on one thread: matrices as small as the tests' are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
