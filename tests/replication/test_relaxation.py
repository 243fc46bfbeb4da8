"""Lines around rounding points: nothing that a runtime may give lies outside, for any slope."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
import torch
from torch import Tensor

from qverify.replication.relaxation import Staircase


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def given(v: Fraction, step: Fraction, radius: Fraction, ends: tuple[Fraction, Fraction]) -> list[Fraction]:
    """What a rounding point may give for v, in exact arithmetic: the least and the most, clipped."""
    both = [ceil((v - radius) / step) * step, floor((v + radius) / step) * step] if step else [v - radius, v + radius]
    return [min(max(y, ends[0]), ends[1]) for y in both]


def places(lower: Fraction, upper: Fraction, step: Fraction, radius: Fraction) -> list[Fraction]:
    """Values in [lower, upper]: its ends, and on both sides of where the ends of what is given jump or bend."""
    tiny = Fraction(1, 10**18)
    found = [lower, upper, (lower + upper) / 2]
    for q in range(-12, 13):
        for sign in (-1, 1):
            jump = q * (step or Fraction(1, 4)) + sign * radius
            found += [jump - tiny, jump, jump + tiny]
    return [v for v in found if lower <= v <= upper]


@pytest.mark.parametrize("seed", range(60))
def test_nothing_that_is_given_lies_outside(seed: int) -> None:
    """Against exact rationals; slopes the best, and any others."""
    rng = np.random.default_rng(seed)
    step = float(rng.choice([0.0, 0.25, float(np.float32(0.1)), 0.3]))
    low = -float(rng.integers(0, 6)) * (step or 0.25)
    high = float(rng.integers(1, 6)) * (step or 0.25)
    radius = float(rng.choice([0.5, 0.5 + 1e-5, 0.52, 1.0])) * (step or 0.1) if rng.random() < 0.9 else step
    lower, upper = sorted(rng.choice([rng.normal(), step * rng.integers(-5, 5) + radius, step * 0.5]) for _ in range(2))
    stairs = Staircase(step=tensor(step), low=tensor(low), high=tensor(high), radius=tensor(radius))
    exact = Fraction(step), Fraction(radius), (Fraction(low), Fraction(high))
    slopes = [None, *[(tensor(a), tensor(b)) for a, b in rng.random((3, 2))], (tensor(0.0), tensor(1.0))]
    least, most = (Fraction(float(end)) for end in (stairs.least(tensor(lower)), stairs.most(tensor(upper))))
    for chosen in slopes:
        lines = stairs.lines(tensor(lower), tensor(upper), chosen)
        bounds = [Fraction(float(t)) for t in (lines.lower_slope, lines.lower, lines.upper_slope, lines.upper)]
        for v in places(Fraction(lower), Fraction(upper), *exact[:2]):
            for y in given(v, *exact):
                assert bounds[0] * v + bounds[1] <= y <= bounds[2] * v + bounds[3]
                assert least <= y <= most


def test_lines_touch_what_is_given() -> None:
    """Between two multiples that are never left, and beyond an end, nothing is lost; a Relu gets its chord."""
    stairs = Staircase(step=tensor(1.0), low=tensor(-2.0), high=tensor(2.0), radius=tensor(0.5))
    for lower, upper, y in ((0.6, 1.4, 1.0), (2.6, 9.0, 2.0), (-9.0, -2.1, -2.0)):
        lines = stairs.lines(tensor(lower), tensor(upper))
        assert max(float(lines.lower_slope), float(lines.upper_slope)) < 1e-12
        assert float(lines.lower) == pytest.approx(y, abs=1e-12) == float(lines.upper)
    lines = Staircase.relu(1).lines(tensor(-1.0), tensor(3.0))
    assert float(lines.upper_slope) == pytest.approx(0.75) and float(lines.upper) == pytest.approx(0.75)
    assert float(lines.lower_slope) in (0.0, 1.0) and float(lines.lower) == pytest.approx(0.0, abs=1e-12)


def test_a_relative_error_grows_with_the_value_up_to_the_ends() -> None:
    stairs = Staircase(step=tensor(1.0), low=tensor(-4.0), high=tensor(4.0), radius=tensor(0.5), relative=0.01)
    assert float(stairs.within(tensor(1.0), tensor(2.0)).radius) == pytest.approx(0.52)
    far = float(stairs.within(tensor(-1e9), tensor(2.0)).radius)
    assert 0.54 < far < 0.6
