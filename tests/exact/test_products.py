"""Products of two branches: planes, programs and verdicts, against corners, brute force and members."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import qverify
from qverify.bounds.products import planes_above, planes_below, product_interval, tangent
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Add, Dense, Input, Product, Scale
from qverify.network import Network
from qverify.verification.verdict import Options
from tests.support.networks import NETWORKS, inputs, random_radii, sample_members
from tests.support.programs import GATED, bilinear, difference, optimum, relational

END = st.floats(-3.0, 3.0)


def _tensor(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@given(st.tuples(END, END), st.tuples(END, END), st.floats(0, 1), st.floats(0, 1))
def test_planes_lie_on_their_sides_and_intervals_are_those_of_corners(
    x: tuple[float, float], y: tuple[float, float], s: float, t: float
) -> None:
    x, y = (min(x), max(x)), (min(y), max(y))
    a, b = x[0] + s * (x[1] - x[0]), y[0] + t * (y[1] - y[0])
    ends = [(_tensor(each[0]), _tensor(each[1])) for each in (x, y)]
    for sign, planes in ((1.0, planes_below(*ends)), (-1.0, planes_above(*ends))):
        values = [float(p.first * a + p.second * b + p.constant) for p in planes]
        assert all(sign * (a * b - value) >= -1e-12 for value in values)
    low, high = (float(end) for end in product_interval(ends[0], ends[1]))
    corners = [p * q for p in x for q in y]
    assert (low, high) == (min(corners), max(corners))
    squared = [float(end) for end in product_interval(ends[0], ends[0], square=True)]
    assert squared == [0.0 if x[0] < 0 < x[1] else min(x[0] ** 2, x[1] ** 2), max(x[0] ** 2, x[1] ** 2)]


@given(st.tuples(END, END), st.floats(0, 1), st.floats(0, 1))
def test_a_tangent_lies_below_a_square_and_above_the_mixture_of_those_at_the_ends(
    x: tuple[float, float], s: float, share: float
) -> None:
    ends = _tensor(min(x)), _tensor(max(x))
    a = float(ends[0]) + s * float(ends[1] - ends[0])
    plane, (first, second) = tangent(ends, _tensor(share)), planes_below(ends, ends)
    value = float((plane.first + plane.second) * a + plane.constant)
    at_ends = [float((p.first + p.second) * a + p.constant) for p in (first, second)]
    assert share * at_ends[0] + (1.0 - share) * at_ends[1] - 1e-12 <= value <= a * a + 1e-12


def parabola() -> Network:
    """y = (x^2 - 4 x + 4.5, 0)."""
    layers = (
        Input("x", (), (1,)),
        Product("s", (0, 0), (1,)),
        Scale("four", (0,), (1,), np.array([-4.0]), np.zeros(1)),
        Add("p", (1, 2), (1,)),
        Dense("y", (3,), (2,), weight=np.array([[1.0], [0.0]]), bias=np.array([4.5, 0.0])),
    )
    return Network(layers)


def test_the_least_of_a_parabola_is_found() -> None:
    """On [1, 3] it is 0.5, at 2, where tangents at the ends and their mixtures prove no more than -0.5."""
    family = Family.of(parabola(), Radii(input=1.0))
    x, row = np.array([2.0]), np.array([1.0, -1.0])
    assert optimum(relational(family, x), row) == pytest.approx(0.5, abs=1e-6)
    (verdict,) = qverify.verify(parabola(), x[None], [0], Radii(input=1.0), Options(method="bp"))
    assert verdict.margin_lower == pytest.approx(0.5, abs=1e-6)


def gate(weights: tuple[float, float]) -> Network:
    """Two inputs, their product p, and two outputs: `weights` times p, which is also the second input's neighbour."""
    layers = (
        Input("x", (), (2,)),
        Dense("a", (0,), (1,), weight=np.array([[1.0, 0.0]]), bias=np.zeros(1)),
        Dense("b", (0,), (1,), weight=np.array([[0.0, 1.0]]), bias=np.zeros(1)),
        Product("p", (1, 2), (1,)),
        Dense("y", (3,), (2,), weight=np.array(weights)[:, None], bias=np.array([0.0, 0.1])),
    )
    return Network(layers)


@pytest.mark.parametrize("x", [(0.3, 0.5), (-0.2, 0.1), (0.0, 0.0)])
def test_a_gate_by_hand(x: tuple[float, float]) -> None:
    """The least of `y_0 - y_1 = 2 p - 0.1` over a box is at one of its corners; McCormick's hull meets these."""
    family = Family.of(gate((1.0, -1.0)), Radii(input=0.25))
    corners = [2.0 * (x[0] + s) * (x[1] + t) - 0.1 for s in (-0.25, 0.25) for t in (-0.25, 0.25)]
    row = np.array([1.0, -1.0])
    assert optimum(relational(family, np.array(x)), row) == pytest.approx(min(corners), abs=1e-6)
    assert optimum(bilinear(family, np.array(x)), row, "scip") == pytest.approx(min(corners), abs=1e-6)


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("size", [0.02, 0.2])
def test_the_relational_program_is_below_the_bilinear_one_and_that_below_members(
    name: str, size: float, rng: np.random.Generator
) -> None:
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng, size))
    for x in inputs(network, rng)[[0, 4]]:
        row = difference(network)
        relaxed, exact = optimum(relational(family, x), row), optimum(bilinear(family, x), row, "scip")
        values = sample_members(family, x, rng, 2000, True)[-1]
        assert relaxed <= exact + 1e-6 and exact <= (values @ row).min() + 1e-6


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("method", ["auto", "exact", "bp"])
def test_verdicts_hold(name: str, method: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    x = inputs(network, rng)
    labels = network.evaluate(x).argmax(1)
    scopes = set()
    for size in (0.003, 0.03, 0.3):
        radii = random_radii(network, rng, size)
        family = Family.of(network, radii)
        for verdict in qverify.verify(network, x, labels, radii, Options(method=method, seconds=20.0)):
            values = sample_members(family, x[verdict.index], rng, 2000, True)[-1]
            margins = values[:, verdict.label] - np.delete(values, verdict.label, 1).max(1)
            assert verdict.status != "verified" or margins.min() > 0
            assert verdict.margin_lower <= margins.min() + 1e-9
            scopes.add(verdict.scope)
    assert scopes <= {"", "relaxed products", "exact"} and (method != "exact" or "relaxed products" in scopes)
