"""Lines around rounding points: below and above all that formula (32) gives, at many values, for many points."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qverify.bounds.lines import Line, kinks, point_lines
from qverify.family.points import NO_ZERO, Point, lower_end, upper_end
from qverify.rounding import UNIT
from tests.support.marks import mostly_slow
from tests.support.networks import random_point, sample_rounded

Array = np.ndarray


def boxes(rng: np.random.Generator, count: int, size: int, scale: float) -> tuple[Array, Array]:
    """Bounds (count, size) on what enters: wide, narrow, degenerate, and with ends where the points have kinks."""
    lower = scale * rng.normal(size=(count, size))
    width = scale * rng.choice([0.0, 1e-13, 1e-3, 0.3, 3.0], (count, size)) * rng.random((count, size))
    return lower, lower + width


def scaled(point: Point, scale: float) -> Point:
    """The same in another unit; `NO_ZERO` stays."""
    return Point(
        radius=scale * point.radius,
        low=(scale * point.low[0], scale * point.low[1]),
        high=(scale * point.high[0], scale * point.high[1]),
        dead=np.where(point.dead < 0, NO_ZERO, scale * point.dead),
        step=scale * point.step,
    )


def lines(point: Point, radius: Array, box: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Line, Line]:
    tensors = point.mapped(lambda numbers: torch.tensor(np.array(numbers)))
    v, out = (tuple(torch.tensor(np.array(end)) for end in ends) for ends in (box, y))
    return point_lines(tensors, torch.tensor(np.array(radius)), (v[0], v[1]), v[0], (out[0], out[1]))


def at(line: Line, v: Array, share: float | None = None) -> Array:
    """The mixture of the steep and the flat line at v, by this share of the steep one; None: the usual one."""
    steep, level = line.slope.numpy() * v + line.intercept.numpy(), line.level.numpy()
    part = line.usual.numpy() if share is None else share
    mixed: Array = part * steep + (1.0 - part) * level
    return mixed


@pytest.mark.parametrize("scale", mostly_slow([1.0, 1e12, 1e-12, 1e-3, 1e6], 2))
@pytest.mark.parametrize("grid", [False, True])
def test_lines_hold_at_every_value(grid: bool, scale: float, rng: np.random.Generator) -> None:
    """Random quantisers at values all over the bounds, radii of the point and of single samples; to a few roundings."""
    size, tight, flat = 7, 0, 0
    for trial in range(40):
        point = scaled(random_point((size,), rng, grid).resolved((size,), "p"), scale)
        radius = point.radius * np.ones((5, size))
        if trial % 2:  # saturation on the way widens it for single samples
            radius = radius + scale * rng.random((5, size))
            point = Point(**{**vars(point), "dead": np.full(size, NO_ZERO), "step": 0.0 * point.step})
        lower, upper = boxes(rng, 5, size, scale)
        y = lower_end(np, point, radius, lower), upper_end(np, point, radius, upper)
        below, above = lines(point, radius, (lower, upper), y)
        for line in (below, above):
            assert ((line.slope >= 0) & (line.slope <= 1)).all()
        room = 64 * UNIT * (abs(lower) + abs(upper) + radius)
        for share in np.linspace(0.0, 1.0, 41):
            v = np.clip(lower + share * (upper - lower), lower, upper)
            for corner in (False, True):
                found = sample_rounded(point, radius, v, rng, corner)
                for part in (None, 0.0, 0.3, 1.0):
                    assert (at(below, v, part) <= found + room).all() and (found <= at(above, v, part) + room).all()
            least = at(below, v)
            tight += int((abs(lower_end(np, point, radius, v) - least) <= room).sum())
        flat += int((below.usual == 0).sum())
    assert tight > 100 and flat > 10


NUMBERS = st.floats(-8, 8)


@given(NUMBERS, st.floats(0, 8), st.floats(0, 2), st.floats(0, 4), st.floats(0, 4), st.floats(0, 1))
def test_lines_hold_in_exact_arithmetic(
    lower: float, width: float, radius: float, low: float, high: float, share: float
) -> None:
    """At both ends, at every kink between them and anywhere, without bounds on y that help."""
    upper = lower + width
    point = Point(radius=radius, low=(-low, -low), high=(high, high), dead=NO_ZERO, step=0.0)
    arrays = point.mapped(lambda number: np.array([number]))
    box = (np.array([[lower]]), np.array([[upper]]))
    far = (np.array([[-1e3]]), np.array([[1e3]]))
    below, above = lines(arrays, arrays.radius, box, far)
    kinds = [lower, upper, lower + share * width, -low + radius, high + radius, -low - radius, high - radius]
    for v in (Fraction(v) for v in kinds if lower <= v <= upper):
        clipped = [min(max(v + e, Fraction(-low)), Fraction(high)) for e in (-Fraction(radius), Fraction(radius))]
        least, most = (Fraction(line.slope.item()) * v + Fraction(line.intercept.item()) for line in (below, above))
        assert below.level.item() == -1e3 and above.level.item() == 1e3
        room = Fraction(16 * UNIT * (abs(lower) + abs(upper) + radius))
        assert least <= clipped[0] + room and most >= clipped[1] - room


def test_lines_are_the_ends_where_nothing_bends() -> None:
    """No kink within the bounds: the lines touch both ends of the point at every value."""
    point = Point(radius=0.25, low=(0.0, 0.0), high=(4.0, 4.0), dead=NO_ZERO, step=0.0)
    arrays = point.mapped(lambda number: np.array([number]))
    for box, slope in (((0.5, 3.0), 1.0), ((5.0, 9.0), 0.0), ((-3.0, -0.5), 0.0)):
        lower, upper = (np.array([[end]]) for end in box)
        y = lower_end(np, arrays, arrays.radius, lower), upper_end(np, arrays, arrays.radius, upper)
        for line, end in zip(lines(arrays, arrays.radius, (lower, upper), y), (lower_end, upper_end), strict=True):
            assert line.usual.item() * line.slope.item() == slope
            for v in np.linspace(*box, 5):
                wanted = end(np, arrays, arrays.radius, np.array([v]))[0]
                assert at(line, np.array([[v]])).item() == pytest.approx(wanted, abs=1e-12)


def test_kinks_by_hand() -> None:
    """At either end of the range, one radius inwards and outwards, and where 0 is left."""
    point = Point(radius=0.25, low=(0.0, 0.0), high=(4.0, 4.0), dead=0.125, step=0.0)
    tensors = point.mapped(lambda number: torch.tensor([number], dtype=torch.float64))
    places = {-0.25: True, 0.25: True, 3.75: True, 4.25: True, 0.125: True, 2.0: False, -1.0: False, 5.0: False}
    for at, bends in places.items():
        v = tuple(torch.tensor([[at + way * 1e-3]], dtype=torch.float64) for way in (-1, 1))
        assert bool(kinks(tensors, tensors.radius, (v[0], v[1]))) == bends, at
    still = tensors.mapped(lambda number: number)
    still = Point(**{**vars(still), "dead": torch.full((1,), NO_ZERO, dtype=torch.float64)})
    v = (torch.tensor([[0.12]], dtype=torch.float64), torch.tensor([[0.13]], dtype=torch.float64))
    assert not bool(kinks(still, still.radius, v))
