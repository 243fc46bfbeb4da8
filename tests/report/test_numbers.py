"""Numbers for people: the ends of the discrepancy over all samples."""

from __future__ import annotations

import numpy as np

from qverify.analysis.discrepancies import Discrepancy
from qverify.report.numbers import discrepancy_ranges


def found(lower: list[float], upper: list[float], attained_lower: list[float]) -> Discrepancy:
    """A row whose attained upper ends are not known."""
    return Discrepancy(
        index=0,
        nominal=np.zeros(2),
        lower=np.array(lower),
        upper=np.array(upper),
        attained_lower=np.array(attained_lower),
        attained_upper=None,
        method="exact",
        seconds=0.0,
        complete=False,
    )


def test_ranges_of_the_discrepancy_are_over_all_samples() -> None:
    rows = [found([-1.0, -3.0], [2.0, 0.5], [-1.0, -2.0]), found([-2.0, -1.0], [1.0, 0.7], [0.0, -2.5])]
    assert discrepancy_ranges(rows) == {"lower": [-2.0, -3.0], "upper": [2.0, 0.7], "attained_lower": [-1.0, -2.5]}
    assert discrepancy_ranges([]) == {}
