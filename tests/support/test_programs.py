"""The enumeration of corners, by hand and against members drawn at random."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from tests.support.networks import mlp, random_radii, sample_members
from tests.support.programs import corner_minimum, difference


def test_one_neuron_by_hand() -> None:
    """y = (3 +- 1/2) relu((2 +- 1/4) x + 1 +- 1/8), the ReLU off by up to 1/16, at x = 1; no bias at the end."""
    first = Dense("a", (0,), (1,), weight=np.array([[2.0]]), bias=np.array([1.0]))
    last = Dense("b", (2,), (1,), weight=np.array([[3.0]]), bias=np.array([0.0]))
    network = Network((Input("x", (), (1,)), first, Relu("r", (1,), (1,)), last))
    layers = {"a": {"weight": 0.25, "bias": 0.125}, "b": {"weight": 0.5}, "r": {"activation": 0.0625}}
    family = Family.of(network, Radii(layers=layers))
    x = np.array([[1.0]])
    assert corner_minimum(network, family, x, np.array([1.0])) == 2.5 * (1.75 + 0.875 - 0.0625)
    assert corner_minimum(network, family, x, np.array([-1.0])) == -3.5 * (2.25 + 1.125 + 0.0625)


@pytest.mark.parametrize("seed", range(4))
def test_no_sampled_member_is_below_the_least_corner(seed: int) -> None:
    """With the input fixed; and some member comes close, so that the least is not only a bound."""
    rng = np.random.default_rng(seed)
    network = mlp(rng, 2, 2, 2)
    radii = random_radii(network, rng)
    family = Family.of(network, Radii(layers=radii.layers))
    x = rng.normal(size=2)
    row = difference(network)
    least = corner_minimum(network, family, x[None], row)
    found = (sample_members(family, x, rng, 20_000, True)[-1] @ row).min()
    assert -1e-12 <= found - least <= 0.05 * abs(least) + 1e-12
