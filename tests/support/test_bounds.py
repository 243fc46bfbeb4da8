"""What bounds are held against: corners by brute force, and comparisons that must be able to fail."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.bounds import BOXES, TOLERANCE, assert_contained, assert_margins_hold, brute_force


def test_brute_force_by_hand() -> None:
    """(2 +- 1/2) x - 1 +- 1/4 over x in [-1, 3]: the ends are at x = -1 and x = 3."""
    got = brute_force(np.array([2.0]), np.array([0.5]), -1.0, 0.25, np.array([-1.0]), np.array([3.0]))
    assert got == (-2.5 - 1.25, 7.5 - 0.75)


@pytest.mark.parametrize("box", BOXES)
def test_no_point_inside_is_beyond_brute_force(box: str, rng: np.random.Generator) -> None:
    lower, upper = (np.array(end) for end in BOXES[box])
    weight, radius = rng.normal(size=3), rng.random(3)
    low, high = brute_force(weight, radius, 0.5, 0.1, lower, upper)
    moved = weight + radius * rng.uniform(-1, 1, (500, 3))
    values = (moved * rng.uniform(lower, upper, (500, 3))).sum(1) + 0.5 + 0.1 * rng.uniform(-1, 1, 500)
    assert low <= values.min() and values.max() <= high


def test_values_outside_are_seen() -> None:
    ends = [torch.zeros((1, 2), dtype=torch.float64)]
    bounds = SimpleNamespace(lower=ends, upper=[end + 1 for end in ends])
    assert_contained(bounds, 0, [np.array([[0.0, 1.0]])])  # type: ignore[arg-type]
    for value in ([0.0, 1.0 + 2 * TOLERANCE], [-2 * TOLERANCE, 0.5]):
        with pytest.raises(AssertionError):
            assert_contained(bounds, 0, [np.array([value])])  # type: ignore[arg-type]


def test_margins_that_do_not_hold_are_seen() -> None:
    outputs = np.array([[3.0, 1.0, 2.5]])
    assert_margins_hold(torch.tensor([9.0, 2.0, 0.5]), outputs, 0)  # its own class does not count
    with pytest.raises(AssertionError):
        assert_margins_hold(torch.tensor([9.0, 2.0, 0.6]), outputs, 0)
