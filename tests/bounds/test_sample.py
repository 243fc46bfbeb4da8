"""Bounds of one sample without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from qverify.bounds.sample import SampleBounds


def test_reach_is_the_larger_end() -> None:
    bounds = SampleBounds(lower=[np.array([-3.0, 1.0, -2.0])], upper=[np.array([-1.0, 4.0, 2.5])], activation={})
    assert bounds.reach(0).tolist() == [3.0, 4.0, 2.5]


def test_programs_can_be_built_without_torch() -> None:
    code = "import qverify.bounds.sample, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.strip() == "False"
