"""A property behind a network has the margins that exact arithmetic gives."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.properties.formula import Linear, Variable
from qverify.properties.stated import stated
from tests.support.networks import NETWORKS


def identity(size: int) -> Network:
    eye = Dense("comparisons", (0,), (size,), weight=np.eye(size), bias=np.zeros(size))
    return Network((Input("x", (), (size,)), eye))


def clause(rng: np.random.Generator, outputs: int, digits: int) -> tuple[Linear, ...]:
    def number() -> Fraction:
        return Fraction(str(round(float(rng.normal()), digits))) + Fraction(1, 10**digits)

    return tuple(
        Linear({Variable(True, j): number() for j in range(outputs)}, number(), bool(rng.integers(2)))
        for _ in range(int(rng.integers(1, 4)))
    )


def exact(clauses: tuple[tuple[Linear, ...], ...], y: np.ndarray) -> list[list[Fraction]]:
    return [
        [sum(c * Fraction(float(y[v.place])) for v, c in one.terms.items()) - one.limit for one in clause]
        for clause in clauses
    ]


@pytest.mark.parametrize("digits", [2, 15])
def test_margins_have_the_sign_of_exact_ones(digits: int) -> None:
    rng = np.random.default_rng(digits)
    for _ in range(50):
        clauses = tuple(clause(rng, 3, digits) for _ in range(int(rng.integers(1, 4))))
        made = stated(identity(3), clauses)
        y = rng.normal(size=3)
        margins = made.network.evaluate(y[None])[0]
        wanted = [max(gs) for gs in exact(clauses, y)]
        assert margins[0] == 0.0 and len(margins) == 1 + len(clauses)
        assert [m < 0 for m in margins[1:]] == [g > 0 for g in wanted]
        assert made.own is None and made.layer == "comparisons_"
        assert np.array_equal(made.outputs(made.network, y), y)


def test_numbers_that_are_no_floats_have_radii() -> None:
    """The exact comparison, times a positive number, lies within the radii of the layer that stands for it."""
    third = Fraction(1, 3) + Fraction(1, 10**25)
    one = Linear({Variable(True, 0): third, Variable(True, 1): Fraction(-2)}, Fraction(1, 7))
    made = stated(identity(2), ((one,),))
    assert made.own is not None
    layer = made.network.layers[2]
    assert isinstance(layer, Dense) and layer.quantised
    near = [*layer.weight[0], layer.bias[0]]
    off = [*made.own[0][0], made.own[1][0]]
    numbers = [third, Fraction(-2), -Fraction(1, 7)]
    assert any(off) and max(off) < 1e-15
    ends = [
        sorted(((Fraction(n) - Fraction(o)) / q, (Fraction(n) + Fraction(o)) / q))
        for n, o, q in zip(near, off, numbers, strict=True)
    ]
    assert 0 < max(low for low, _ in ends) <= min(high for _, high in ends)
    radii = made.radii(Radii(input=0.5), np.array([0.25, 0.0]))
    assert set(radii.layers) == {"comparisons_"} and np.array_equal(radii.input, [0.25, 0.0])


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_can_have_a_property(name: str) -> None:
    rng = np.random.default_rng(3)
    network = NETWORKS[name](rng)
    if network.dynamic:
        pytest.skip("steps of its own a sample")
    clauses = tuple(clause(rng, network.output_size, 3) for _ in range(3))
    made = stated(network, clauses)
    x = rng.normal(size=network.input_size)
    wanted = [max(gs) for gs in exact(clauses, network.evaluate(x[None])[0])]
    margins = made.network.evaluate(x[None])[0][1:]
    assert [m < 0 for m in margins] == [g > 0 for g in wanted]
