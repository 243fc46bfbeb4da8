"""Members in exact rationals, against the network itself and against the definition of a family."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from qverify.family.family import Family
from qverify.layers import Dense, Relu
from tests.support.networks import NETWORKS, inputs, random_radii
from tests.support.rationals import badly_scaled, corner_member, exact, moved, random_signs, relative_radii


def test_numbers_are_taken_as_they_are() -> None:
    assert exact([0.1, -2.0]) == [Fraction(3602879701896397, 2**55), Fraction(-2)]  # type: ignore[arg-type]
    assert moved([1.0, 1.0, 1.0], 0.25, [-1, 0, 1]) == [Fraction(3, 4), Fraction(1), Fraction(5, 4)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_in_the_middle_is_the_network(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng))
    x = inputs(network, rng)[0]
    values = corner_member(family, x, lambda kind, index, shape: np.zeros(shape, dtype=int))
    np.testing.assert_allclose(np.array(values[-1], dtype=float), network.evaluate(x[None])[0], atol=1e-12)


@pytest.mark.parametrize("name", ["dense", "deep", "residual"])
def test_corners_lie_in_the_family(name: str, rng: np.random.Generator) -> None:
    """|W' v + b' - (W v + b)| <= R |v| + r in exact rationals, and a ReLU's value is at least 0."""
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng))
    for x in inputs(network, rng):
        values = corner_member(family, x, random_signs(rng))
        for i, layer in enumerate(network.layers[1:], start=1):
            if isinstance(layer, Dense):
                v = values[layer.inputs[0]]
                radius = np.broadcast_to(family.weight[i], layer.weight.shape)
                bias_radius = exact(np.broadcast_to(family.bias[i], layer.bias.shape))
                for o, bias in enumerate(exact(layer.bias)):
                    centre = bias + sum(w * a for w, a in zip(exact(layer.weight[o]), v, strict=True))
                    reach = bias_radius[o] + sum(r * abs(a) for r, a in zip(exact(radius[o]), v, strict=True))
                    assert abs(values[i][o] - centre) <= reach
            elif isinstance(layer, Relu):
                assert min(values[i]) >= 0


def test_badly_scaled_networks_are(rng: np.random.Generator) -> None:
    network, x = badly_scaled(rng, positive=True)
    first = network.layers[1]
    assert isinstance(first, Dense) and first.weight.max() / first.weight.min() > 1e6 and x.min() > 0
    last = network.layers[-1]
    assert isinstance(last, Dense)
    assert np.abs(network.evaluate(x[None])).max() < 1e-6 * np.abs(last.bias).max()  # what cancels is gone
    radii = relative_radii(network, x, 0.5)
    assert (radii.layers[first.name]["weight"] == 0.5 * np.abs(first.weight)).all()
