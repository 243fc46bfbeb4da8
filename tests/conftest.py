"""Settings shared by all tests: the same examples on every run, no deadline on a busy machine, Ctrl-C heard."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("tests.support")  # so that helpers say what failed, as tests do
settings.register_profile("qverify", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("qverify")
# In the background of a script SIGINT is ignored, here and in every process started from here; tests send it to both.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # tests are small: more threads only wait for each other, above all on a busy machine


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for every test."""
    return np.random.default_rng(20240229)
