"""The factors that a search tries, and the bracket it finds of a sample."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.analysis.grid import Grid
from qverify.errors import UsageError


@pytest.mark.parametrize(
    ("top", "precision"), [(16, 0.01), (1, 0.05), (0.3, 0.1), (1.001, 1), (1e6, 1), (2, 0.0001), (1.5, 0.3)]
)
def test_the_grid_holds_0_and_1_and_its_end_in_small_steps(top: float, precision: float) -> None:
    factors = Grid(top, precision).factors
    assert factors[0] == 0.0 and factors[-1] == top and (1.0 in factors) == (top >= 1)
    ratios = np.diff(np.log(factors[1:]))
    assert ratios.min() > 0 and ratios.max() <= np.log1p(precision) + 1e-12
    assert factors[1] <= min(1, top) / 1024


def test_grids_that_make_no_sense() -> None:
    for top in (0.0, -1.0, np.nan, np.inf, 1e7):
        with pytest.raises(UsageError, match=r"The largest factor is .*; give a number above 0, up to 1e\+06"):
            Grid(top)
    for precision in (0.0, -0.1, 1.1, np.nan, 1e-9):
        with pytest.raises(UsageError, match=r"The precision is .*; give a number from 0.0001 to 1"):
            Grid(16, precision)
