"""Settings shared by all tests: the same examples on every run, no deadline on a busy machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("qverify", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("qverify")
torch.set_num_threads(1)  # tests are small: more threads only wait for each other, above all on a busy machine


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for every test."""
    return np.random.default_rng(20240229)
