"""The two ends of a rounding point against all that formula (4) allows, enumerated in exact rationals."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qverify.arrays import Array
from qverify.errors import RadiiError
from qverify.family.points import NO_ZERO, Point, lower_end, member_value, upper_end, without_error
from qverify.forward_pass import forward
from qverify.rounding import UNIT
from tests.support.networks import random_point, sample_rounded

EIGHTHS = st.integers(-40, 40).map(lambda number: number / 8)


@st.composite
def points(draw: Any, grid: bool | None = None) -> Point:
    """Points of one number each, all of them short binary fractions, so that nothing rounds."""
    on_grid = draw(st.booleans()) if grid is None else grid
    step = draw(st.sampled_from([0.25, 0.5, 1.5])) if on_grid else 0.0
    radius = step / 2 + draw(st.integers(0, 16)) / 8
    unit = step or 0.125
    low = sorted(-unit * draw(st.integers(0, 9)) for _ in range(2))
    high = sorted(unit * draw(st.integers(0, 9)) for _ in range(2))
    dead = draw(st.sampled_from([NO_ZERO, 0.0, radius / 2, radius]))
    return Point(radius=radius, low=(low[0], low[1]), high=(high[0], high[1]), dead=dead, step=step)


def given_values(point: Point, v: float) -> list[Fraction]:
    """All that quantisers of the point make of v, the extreme ones included: errors, or the whole grid; both ends of
    either end of the range."""
    radius, value, step = Fraction(point.radius), Fraction(v), Fraction(point.step)
    if step:
        whole = range(ceil((value - radius) / step), floor((value + radius) / step) + 1)
        moved = [k * step for k in whole]
    else:
        moved = [value + radius * Fraction(k, 16) for k in range(-16, 17)]
        moved += [Fraction(0)] * (abs(value) <= radius)
    if point.dead >= 0:
        kept = [max(y, Fraction(0)) if value > 0 else min(y, Fraction(0)) for y in moved]
        moved = [Fraction(0)] if abs(value) <= Fraction(point.dead) else kept
    ends = product(map(Fraction, point.low), map(Fraction, point.high))
    return [min(max(y, low), high) for low, high in ends for y in moved]


def ends(point: Point, v: Any, unit: float = 0.0) -> tuple[Array, Array]:
    value, numbers = np.atleast_1d(np.asarray(v, dtype=float)), point.mapped(lambda number: np.full(1, number))
    return (
        lower_end(np, numbers, numbers.radius, value, unit),
        upper_end(np, numbers, numbers.radius, value, unit),
    )


@given(points(), EIGHTHS)
def test_the_ends_are_those_of_all_quantisers(point: Point, v: float) -> None:
    all_of_them = given_values(point, v)
    low, high = (Fraction(float(end[0])) for end in ends(point, v))
    assert (low, high) == (min(all_of_them), max(all_of_them))


FLOATS = st.floats(-1e3, 1e3)


@given(points(), FLOATS, st.integers(-3, 3), st.booleans())
def test_rounding_widens_and_never_narrows(point: Point, v: float, ulps: int, tie: bool) -> None:
    """Next to ties, to `dead`, to the ends and anywhere, with a step and a radius that are no short fractions."""
    step, radius = (float(np.float32(0.3 * point.step)), 0.3 * point.radius)
    radius = max(radius, step / 2)
    # Ends far out, so that they seldom decide, and on the grid.
    unit = 1000.0 * (step or 1.0) / (point.step or 1.0)
    low, high = (tuple(end * unit for end in pair) for pair in (point.low, point.high))
    point = replace(point, step=step, radius=radius, low=low, high=high, dead=min(0.3 * point.dead, radius))
    if tie:
        near = [(round(v) + 0.5) * step - radius, point.dead, point.low[0] + radius, point.high[1] - radius, radius]
        v = near[round(v) % len(near)]
    for _ in range(abs(ulps)):
        v = float(np.nextafter(v, np.inf if ulps > 0 else -np.inf))
    all_of_them = given_values(point, v)
    low_end, high_end = (float(end[0]) for end in ends(point, v, UNIT))
    # A grid that float64 holds exactly: multiples of a float32 number.
    assert Fraction(low_end) <= min(all_of_them) and max(all_of_them) <= Fraction(high_end)
    room = 1e-12 * (1 + abs(v) + radius) + step * (1 + 1e-12)
    assert low_end >= min(all_of_them) - Fraction(room) and high_end <= max(all_of_them) + Fraction(room)


@given(points(), st.lists(FLOATS, min_size=2, max_size=8), st.sampled_from([0.0, UNIT]))
def test_both_ends_are_monotone(point: Point, values: list[float], unit: float) -> None:
    values += [point.dead, -point.dead, point.high[0] + point.radius, point.low[1] - point.radius]
    for found in ends(point, sorted(values), unit):
        assert (np.diff(found) >= 0).all()


@given(points(), st.lists(FLOATS, min_size=1, max_size=8))
def test_an_error_of_zero_and_members_lie_between(point: Point, values: list[float]) -> None:
    """`Point.layer` without and with errors as large as `freedom` says is always among them."""
    v = np.array(values)
    numbers = point.mapped(lambda number: np.full(len(v), number))
    low, high = ends(point, v, UNIT)
    plain = without_error(numbers, v[None])[0]
    assert (low <= plain).all() and (plain <= high).all()
    free = numbers.freedom(np, numbers.radius)
    assert (free == (numbers.radius if not point.step else free)).all() and (free <= numbers.radius).all()
    for share in (-1.0, -0.5, 0.5, 1.0):
        member = replace(numbers.layer("p", 0, (len(v),)), offset=share * free)
        y = forward(member, [v[None]])[0]
        assert (low <= y).all() and (y <= high).all()
        if not point.step:
            np.testing.assert_array_equal(y, member_value(np, numbers, share * free, v))


def test_numpy_and_torch_agree(rng: np.random.Generator) -> None:
    for trial in range(40):
        point = random_point((3, 2), rng, bool(trial % 2)).resolved((3, 2), "p")
        v = rng.normal(size=(50, 6))
        tensors = point.mapped(torch.as_tensor)
        for end in (lower_end, upper_end):
            found = end(torch, tensors, tensors.radius, torch.as_tensor(v))
            np.testing.assert_array_equal(found.numpy(), end(np, point, point.radius, v))


@pytest.mark.parametrize("grid", [False, True])
def test_random_quantisers_lie_between(grid: bool, rng: np.random.Generator) -> None:
    """The oracle of the other tests, arrays of unequal points."""
    touched = 0
    for _ in range(30):
        point = random_point((4,), rng, grid).resolved((4,), "p")
        v = np.concatenate([rng.normal(size=(200, 4)), 0.05 * rng.normal(size=(50, 4)), np.zeros((1, 4))])
        low, high = (end(np, point, point.radius, v) for end in (lower_end, upper_end))
        for corner in (False, True):
            y = sample_rounded(point, point.radius, v, rng, corner)
            assert (low <= y).all() and (y <= high).all()
            touched += int((abs(y - high) < 1e-12).sum())
    assert touched > 1000


def test_a_radius_of_the_sample_instead_of_the_points_own() -> None:
    point = Point(radius=0.1, low=(0.0, 0.0), high=(1.0, 1.0)).resolved((2,), "p")
    radius = np.array([[0.1, 0.3], [0.2, 0.0]])
    np.testing.assert_allclose(lower_end(np, point, radius, np.full((2, 2), 0.5)), 0.5 - radius, atol=1e-15)
    np.testing.assert_allclose(upper_end(np, point, radius, np.full((2, 2), 0.5)), 0.5 + radius, atol=1e-15)


@given(points(), st.floats(0, 4), st.floats(0, 4), st.lists(FLOATS, min_size=1, max_size=8))
def test_larger_factors_hold_smaller_ones(point: Point, first: float, second: float, values: list[float]) -> None:
    """So that a search for the largest radius may bisect; and the factor 1 holds the point itself."""
    small, large = (point.scaled(factor) for factor in sorted((first, second)))
    for inner, outer in ((small, large), (point, point.scaled(1.0))):
        (a, b), (c, d) = ends(inner, values), ends(outer, values)
        assert (c <= a).all() and (b <= d).all()


def test_behind_a_relu() -> None:
    """The range begins at 0, unless it begins above; what need not keep 0 need not there either."""
    point = Point(radius=0.2, low=(-1.0, -0.5), high=(1.0, 2.0))
    assert (point.behind_relu().low, point.behind_relu().dead) == ((0.0, 0.0), 0.0)
    assert replace(point, dead=NO_ZERO).behind_relu().dead == NO_ZERO
    raised = replace(point, low=(-1.0, 0.25)).behind_relu()
    assert raised.low == (0.0, 0.25) and raised.resolved((1,), "p").low[1] == 0.25


@pytest.mark.parametrize(
    ("change", "wording"),
    [
        ({"low": (0.5, 1.0)}, "is no interval around 0"),
        ({"high": (-2.0, -1.0)}, "is no interval around 0"),
        ({"low": (0.0, -1.0)}, "is no interval around 0"),
        ({"dead": 0.3}, "moves what it keeps at 0"),
        ({"step": 0.5}, "less than half a step"),
        ({"radius": -0.1}, "errs|radius|negative"),
        ({"radius": np.nan}, "NaN or infinity"),
        ({"high": (1.0, np.inf)}, "NaN or infinity"),
        ({"step": [0.1, 0.2, 0.3]}, "fits neither"),
        ({"low": ("a", 0.0)}, "not a number"),
    ],
)
def test_points_that_cannot_be(change: dict[str, Any], wording: str) -> None:
    point = Point(radius=0.2, low=(-1.0, -0.5), high=(1.0, 2.0))
    point.resolved((2,), "p")
    with pytest.raises(RadiiError, match=wording):
        replace(point, **change).resolved((2,), "p")
