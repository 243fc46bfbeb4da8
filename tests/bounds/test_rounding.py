"""Floating point: bounds hold for members evaluated in exact rationals, and would not without the allowance."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from qverify.arrays import Array
from qverify.bounds.backward import backward_bound
from qverify.bounds.interval import interval_bounds, interval_margins
from qverify.bounds.refinement import backward_margins, backward_outputs, tightened_bounds
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.errors import InternalError, RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.rounding import Allowances, finite
from tests.support.bounds import box_ends
from tests.support.networks import NETWORKS, inputs, known_layers, mlp, random_radii
from tests.support.rationals import badly_scaled, corner_member, exact, moved, random_signs, relative_radii


def outside(lower: torch.Tensor, upper: torch.Tensor, values: list[Fraction]) -> int:
    """How many of the exact values lie outside [lower, upper], compared exactly."""
    ends = zip(exact(lower), values, exact(upper), strict=True)
    return sum(not low <= value <= high for low, value, high in ends)


def bounds_of(family: Family, x: Array, rounding: bool = True) -> tuple[BoundModel, Bounds]:
    model = BoundModel.of(family)
    if not rounding:
        model = replace(model, rounding=Allowances(torch.float64, enabled=False))
    return model, interval_bounds(model, *box_ends(model, family.box(x)))


# --- badly scaled networks ----------------------------------------------------------------------------------


def extreme_corners(family: Family, x: Array) -> list[list[list[Fraction]]]:
    """The members with everything at its lower and everything at its upper end."""
    return [corner_member(family, x, lambda kind, i, shape, s=s: np.full(shape, s)) for s in (-1, 1)]


def violations(seed: int, rounding: bool) -> tuple[int, int]:
    """Counts of exact extreme values outside IBP, BP outputs and margins, for one positive badly scaled network."""
    network, x = badly_scaled(np.random.default_rng(seed), positive=True)
    radii = replace(relative_radii(network, x, 2.0**-9), input=0.0)  # the box is x itself, without its own rounding
    family = Family.of(network, radii)
    model, bounds = bounds_of(family, x[None], rounding)
    last = len(network.layers) - 1
    eye = torch.eye(3, dtype=torch.float64)[None]
    low, high = backward_bound(model, bounds, last, eye), -backward_bound(model, bounds, last, -eye)
    ibp = bp = 0
    for values in extreme_corners(family, x):
        ibp += sum(outside(bounds.lower[i][0], bounds.upper[i][0], values[i]) for i in range(1, last + 1))
        bp += outside(low[0], high[0], values[last])
    return ibp, bp


@pytest.mark.parametrize("seed", range(6))
def test_attained_corners_of_badly_scaled_networks_are_inside(seed: int) -> None:
    """Oracle: exact rationals, at the two members that attain the ends of IBP and BP in real arithmetic."""
    assert violations(seed, rounding=True) == (0, 0)


def test_without_the_allowance_they_are_not() -> None:
    """So the test above can fail: the same corners leave both kinds of bounds when nothing is allowed for rounding."""
    found = np.array([violations(seed, rounding=False) for seed in range(6)])
    assert (found.sum(0) > 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_random_corners_of_badly_scaled_signed_networks_are_inside(seed: int) -> None:
    """Oracle: exact rationals at random corners, against IBP, tightened bounds, outputs and margins."""
    rng = np.random.default_rng(100 + seed)
    network, x = badly_scaled(rng, positive=False)
    family = Family.of(network, replace(relative_radii(network, x, 10.0 ** rng.uniform(-16, -1)), activation=1e-9))
    assert_exactly_inside(family, x, rng, 12)


def underflowing(rng: np.random.Generator, small: float) -> tuple[Network, Array]:
    """A signed network whose first and last weights are of size `small`, and whose inputs are of size 1 / small: BP
    multiplies both weights before the inputs make up for it."""
    network = mlp(rng, 3, 5, 4, 3)
    last = len(network.layers) - 1
    layers = list(known_layers(network))
    for i in (1, last):
        layers[i] = replace(layers[i], weight=layers[i].weight * small)
    layers[last] = replace(layers[last], bias=layers[last].bias * small)
    return Network(tuple(layers)), rng.normal(size=3) / small


@pytest.mark.parametrize("small", [2.0**-520, 2.0**-530, 2.0**-600])
def test_products_that_underflow_are_allowed_for(small: float) -> None:
    """Oracle: exact rationals. Coefficients below 2^-1022 lose digits or vanish, and what they multiply is large."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        network, x = underflowing(rng, small)
        family = Family.of(network, replace(relative_radii(network, x, 0.3), activation=0.1))
        assert_exactly_inside(family, x, rng, 6)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_corners_of_every_network_are_inside(name: str, rng: np.random.Generator) -> None:
    """Every layer type, radii down to one unit in the last place, where rounding is all there is."""
    network = NETWORKS[name](rng)
    for size in (1e-16, 1e-3):
        family = Family.of(network, random_radii(network, rng, size))
        for x in inputs(network, rng)[[0, 3, 4]]:
            assert_exactly_inside(family, x, rng, 2)


def assert_exactly_inside(family: Family, x: Array, rng: np.random.Generator, count: int) -> None:
    model, bounds = bounds_of(family, x[None])
    tight = tightened_bounds(model, bounds)
    low, high = backward_outputs(model, bounds)
    label = torch.tensor([0])
    margin_bounds = [f(model, b, label)[0, 1:] for f in (interval_margins, backward_margins) for b in (bounds, tight)]
    for _ in range(count):
        values = corner_member(family, x, random_signs(rng))
        for i, value in enumerate(values):
            assert outside(bounds.lower[i][0], bounds.upper[i][0], value) == 0
            assert outside(tight.lower[i][0], tight.upper[i][0], value) == 0
        assert outside(low[0], high[0], values[-1]) == 0
        for lower in margin_bounds:
            differences = [values[-1][0] - other for other in values[-1][1:]]
            assert all(b <= d for b, d in zip(exact(lower), differences, strict=True))


def test_folded_margins_need_and_have_an_allowance(rng: np.random.Generator) -> None:
    """One layer, where the folded margin is attained: W_t - W_j cancels and its rounding must not show.
    Oracle: the attaining corner in exact rationals."""
    wrong = 0
    for trial in range(20):
        weight = np.round(rng.normal(size=(1, 6)), 3) + 1e-9 * rng.normal(size=(2, 6))
        x, radius = rng.random(6), 1e-12 * rng.random((2, 6))
        network = Network((Input("x", (), (6,)), Dense("d", (0,), (2,), weight=weight, bias=np.zeros(2))))
        family = Family.of(network, Radii(weight=radius))
        rows = [moved(weight[k], radius[k], np.full(6, s)) for k, s in ((0, -1), (1, 1))]
        truth = sum((a - b) * v for a, b, v in zip(*rows, exact(x), strict=True))
        for rounding in (True, False):
            model, bounds = bounds_of(family, x[None], rounding)
            lower = [f(model, bounds, torch.tensor([0]))[0, 1].item() for f in (interval_margins, backward_margins)]
            late = any(Fraction(v) > truth for v in lower)
            assert not (rounding and late), trial
            wrong += late
    assert wrong > 0


def test_the_allowance_is_small(rng: np.random.Generator) -> None:
    """Soundness costs next to nothing: about 1e-12 on numbers of size one."""
    network = mlp(rng, 30, 40, 10)
    family = Family.of(network, random_radii(network, rng, 0.01))
    x = rng.random((5, 30))
    (model, sound), (bare, without) = bounds_of(family, x), bounds_of(family, x, rounding=False)
    label = torch.zeros(5, dtype=torch.long)
    for f in (interval_margins, backward_margins):
        gap = f(bare, without, label)[:, 1:] - f(model, sound, label)[:, 1:]
        assert (gap > 0).all() and (gap < 1e-9).all()


# --- the allowance itself -----------------------------------------------------------------------------------


def test_gamma_is_at_least_highams_and_refuses_what_it_cannot_bound() -> None:
    """Oracle: n u / (1 - n u) in exact rationals."""
    unit = Fraction(1, 2**53)
    for n in (1, 10, 784, 10**6):
        assert Fraction(Allowances(torch.float64).gamma(n)) >= n * unit / (1 - n * unit)
    with pytest.raises(InternalError, match="too long"):
        Allowances(torch.float32).gamma(10**6)
    assert Allowances(torch.float64, enabled=False).gamma(10**6) == 0


def test_widen_moves_both_ends_outwards_even_without_mass() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    low, high = Allowances(torch.float64).widen(zero, zero, zero, 4)
    assert (low < 0).all() and (high > 0).all()
    same = Allowances(torch.float64, enabled=False).widen(zero, zero, zero + 1, 4)
    assert same[0] is zero and same[1] is zero


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_an_error(bad: float) -> None:
    finite("fine", torch.ones(2))
    with pytest.raises(RadiiError, match="'broken' overflow"):
        finite("broken", torch.ones(2), torch.tensor([1.0, bad]))


def huge(factor: float) -> Network:
    layers = (Input("x", (), (2,)), Dense("a", (0,), (2,), weight=np.full((2, 2), factor), bias=np.zeros(2)))
    return Network((*layers, Dense("b", (1,), (2,), weight=np.full((2, 2), factor), bias=np.zeros(2))))


def test_overflow_is_an_error_and_never_a_bound() -> None:
    with pytest.raises(RadiiError, match="'b' overflow"):
        bounds_of(Family.of(huge(1e200), Radii(weight=0.1)), np.ones((1, 2)))
    model, bounds = bounds_of(Family.of(huge(1e100), Radii(weight=0.1)), np.ones((1, 2)))
    with pytest.raises(RadiiError, match="overflow"):
        backward_bound(model, bounds, 2, torch.full((1, 1, 2), 1e150, dtype=torch.float64))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_input_that_is_not_finite_is_an_error(bad: float) -> None:
    with pytest.raises(RadiiError, match="overflow"):
        bounds_of(Family.of(huge(1.0), Radii(input=0.1)), np.array([[1.0, bad]]))


# --- boxes of the family ------------------------------------------------------------------------------------

FLOATS = st.floats(-1e6, 1e6, allow_subnormal=True)
RADIUS = st.one_of(st.just(0.0), st.floats(0, 10), st.floats(0, 1e-15), st.sampled_from([2.0**-8, 2.0**-52, 5e-324]))


@given(st.lists(st.tuples(FLOATS, RADIUS), min_size=2, max_size=2))
def test_the_input_box_is_rounded_outwards_and_the_inner_one_inwards(pairs: list[tuple[float, float]]) -> None:
    """Oracle: exact rationals."""
    x, radius = (np.array(v) for v in zip(*pairs, strict=True))
    low, high = (e[0] for e in Family.of(huge(1.0), Radii(input=radius)).box(x[None]))
    inner_low, inner_high = (e[0] for e in Family.of(huge(1.0), Radii(input=radius)).inner_box(x[None]))
    for j in range(2):
        true_low, true_high = Fraction(x[j]) - Fraction(radius[j]), Fraction(x[j]) + Fraction(radius[j])
        assert Fraction(low[j]) <= true_low <= Fraction(inner_low[j]) <= Fraction(inner_high[j]) <= true_high
        assert true_high <= Fraction(high[j])
        assert radius[j] > 0 or low[j] == high[j] == x[j]


@given(st.tuples(st.floats(0, 1), RADIUS), st.tuples(st.floats(0, 1), RADIUS))
def test_clipped_boxes_stay_in_their_range(first: tuple[float, float], second: tuple[float, float]) -> None:
    """Oracle: exact rationals; the true box is the intersection of the radius and [0, 1]."""
    x, radius = (np.array(v) for v in zip(first, second, strict=True))
    family = Family.of(huge(1.0), Radii(input=radius), (0.0, 1.0))
    (low, high), (inner_low, inner_high) = family.box(x[None]), family.inner_box(x[None])
    for j in range(2):
        true_low = max(Fraction(x[j]) - Fraction(radius[j]), Fraction(0))
        true_high = min(Fraction(x[j]) + Fraction(radius[j]), Fraction(1))
        assert 0 <= Fraction(low[0, j]) <= true_low <= Fraction(inner_low[0, j])
        assert Fraction(inner_high[0, j]) <= true_high <= Fraction(high[0, j]) <= 1
        assert inner_low[0, j] <= inner_high[0, j]


@given(FLOATS, RADIUS, FLOATS, RADIUS)
def test_inner_weights_are_rounded_inwards(weight: float, radius: float, bias: float, bias_radius: float) -> None:
    """Oracle: exact rationals."""
    layer = Dense("d", (0,), (1,), weight=np.array([[weight]]), bias=np.array([bias]))
    family = Family.of(Network((Input("x", (), (1,)), layer)), Radii(weight=radius, bias=bias_radius))
    for (low, high), centre, r in zip(family.inner_weights[1], (weight, bias), (radius, bias_radius), strict=True):
        assert Fraction(centre) - Fraction(r) <= Fraction(low.item())
        assert Fraction(low.item()) <= Fraction(high.item()) <= Fraction(centre) + Fraction(r)


@given(FLOATS, st.floats(1e-3, 10))
def test_inner_intervals_lose_no_more_than_two_units_in_the_last_place(centre: float, radius: float) -> None:
    assume(abs(centre) + radius < 1e6)
    family = Family.of(huge(1.0), Radii(input=radius))
    low, high = family.inner_box(np.full((1, 2), centre))
    unit = np.spacing(abs(centre) + radius)
    assert low[0, 0] - (centre - radius) <= 2 * unit and (centre + radius) - high[0, 0] <= 2 * unit


def test_one_layer_exactly_against_all_corners(rng: np.random.Generator) -> None:
    """All 2^6 weight corners at all corners of the input in exact rationals: none outside, the ends within 1e-12."""
    weight, radius = rng.normal(size=(2, 3)), np.array([[0.5, 0.01, 1.0], [2.0, 0.0, 0.3]])
    network = Network((Input("x", (), (3,)), Dense("d", (0,), (2,), weight=weight, bias=np.array([0.1, -0.2]))))
    family, x = Family.of(network, Radii(input=[0.3, 1.0, 0.0], weight=radius, bias=0.1)), np.array([0.1, -0.4, 0.7])
    _, bounds = bounds_of(family, x[None])
    ends: list[list[Any]] = [[], []]
    for bits in product([-1, 1], repeat=7):
        per_kind = {"input": bits[:3], "weight": [*bits[3:6], *bits[3:6]], "bias": [bits[6]] * 2}
        values = corner_member(family, x, lambda kind, i, shape, p=per_kind: p[kind])
        assert outside(bounds.lower[1][0], bounds.upper[1][0], values[1]) == 0
        for k in range(2):
            ends[k].append(values[1][k])
    for k in range(2):
        assert float(min(ends[k])) - bounds.lower[1][0, k].item() < 1e-12
        assert bounds.upper[1][0, k].item() - float(max(ends[k])) < 1e-12
