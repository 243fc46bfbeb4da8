"""The gain against members drawn at random, and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.exact.gain import gain
from qverify.exact.maps import Maps
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input, Relu
from qverify.network import Network
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options
from tests.support.networks import NETWORKS, inputs, random_radii, sample_members
from tests.support.programs import (
    sample_bounds,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_gain_bounds_what_an_error_can_do(name: str, rng: np.random.Generator) -> None:
    """Members evaluated with every value off by a share of its range, or of its terms, move the output by less."""
    network = NETWORKS[name](rng)
    radii = random_radii(network, rng, 0.1)
    setup = Setup(network, radii, Options())
    x = inputs(network, rng)[0]
    bounds = setup.intervals(x[None]).sample(0)
    row = rng.normal(size=network.output_size)
    found = gain(setup.maps, bounds, row)
    members = sample_members(setup.family, x, rng, 50, True)
    spread = np.ptp(members[-1] @ row)
    assert found.magnitudes >= found.ranges * 0.4 > 0
    assert found.ranges >= 0.5 * spread


def test_by_hand() -> None:
    """y = (2 h, 0), h = relu(3 x), x in [1, 2]: each value is off by its range, or by its size, times 2 or 6."""
    first = Dense("a", (0,), (1,), weight=np.array([[3.0]]), bias=np.array([0.0]))
    last = Dense("b", (2,), (2,), weight=np.array([[2.0], [0.0]]), bias=np.array([0.0, 0.0]))
    network = Network((Input("x", (), (1,)), first, Relu("r", (1,), (1,)), last))
    family = Family.of(network, Radii(input=0.5))
    found = gain(Maps(family), sample_bounds(family, np.array([1.5])), np.array([1.0, -1.0]))
    assert found.ranges == pytest.approx(6.0 * 1.0 + 2.0 * 3.0 + 2.0 * 3.0 + 6.0)
    assert found.magnitudes == pytest.approx(6.0 * 2.0 + 2.0 * 6.0 + 2.0 * 6.0 + 12.0)
