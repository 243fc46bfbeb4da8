"""Lines around a MaxPool: exact rationals at corners and between them lie on the right side, and touch."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.bounds.pools import pool_lines, undecided

SEEDS = range(40)


def case(seed: int) -> tuple[Any, Array, Array, list[Array]]:
    """Windows (6, k) over 7 numbers, some repeated; ends (7,), of which some are equal; and points between them."""
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 7, (6, 1 + seed % 4))
    lower = rng.normal(size=7).round(seed % 3 + 1)
    upper = lower + rng.choice([0.0, 0.5, 1.0, 3.0], 7) * (1.0 if seed % 2 else rng.random(7))
    points = [lower, upper, *(np.where(rng.random(7) < 0.5, lower, upper) for _ in range(60))]
    return windows, lower, upper, [*points, *(rng.uniform(lower, upper) for _ in range(60))]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_maximum_lies_between_both_lines(seed: int) -> None:
    windows, lower, upper, points = case(seed)
    found = pool_lines(*(torch.as_tensor(a) for a in (windows, lower[None], upper[None])))
    below, above = found.below[0].tolist(), found.above[0].tolist()
    for point in points:
        exact = [Fraction(float(v)) for v in point]
        for o, window in enumerate(windows.tolist()):
            largest = max(exact[j] for j in window)
            line = Fraction(float(found.slope[0, o])) * exact[above[o]] + Fraction(float(found.intercept[0, o]))
            slack = Fraction(float(found.reach[0, o])) * 8 / 2**53
            assert exact[below[o]] <= largest <= line + slack
            assert abs(largest) <= Fraction(float(found.reach[0, o]))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_line_above_is_no_worse_than_the_interval_and_exact_where_one_is_certain(seed: int) -> None:
    windows, lower, upper, _ = case(seed)
    found = pool_lines(*(torch.as_tensor(a) for a in (windows, lower[None], upper[None])))
    for o, window in enumerate(windows.tolist()):
        j, slope, intercept = int(found.above[0, o]), float(found.slope[0, o]), float(found.intercept[0, o])
        top = max(upper[k] for k in window)
        assert upper[j] == top and slope * top + intercept == pytest.approx(top, abs=1e-12)
        others = [upper[k] for k in set(window) if k != j]
        if lower[j] < upper[j] and all(lower[j] >= other for other in others):
            assert (slope, intercept) == (1.0, 0.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_undecided_are_those_that_may_be_the_largest_beside_another(seed: int) -> None:
    windows, lower, upper, _ = case(seed)
    found = undecided(*(torch.as_tensor(a) for a in (windows, lower[None], upper[None])))[0]
    wanted = set()
    for window in windows.tolist():
        best = max(set(window), key=lambda j: (lower[j], -window.index(j)))
        rivals = {j for j in window if upper[j] > lower[best]} - {best}
        wanted |= {best, *rivals} if rivals else set()
    assert set(np.flatnonzero(found).tolist()) == wanted
