"""The bilinear program, the definition, against the relational one and sampled members."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.exact.bilinear import Bilinear
from qverify.exact.maps import Maps
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from tests.support.marks import mostly_slow
from tests.support.networks import conv_of, inputs, random_radii, sample_members
from tests.support.programs import (
    ALL,
    CONVOLUTIONS,
    DENSE,
    bilinear,
    difference,
    optimum,
    relational,
    sample_bounds,
    tiny,
)

pytest.importorskip("pyscipopt")
pytest.importorskip("gurobipy")


@pytest.mark.parametrize("seed", [pytest.param(k, marks=[pytest.mark.slow] * (k >= 90)) for k in range(210)])
def test_relational_is_bilinear(seed: int) -> None:
    """Dense networks: the weights are eliminated exactly. Half without the cuts, so that (1) is not assumed."""
    family, x = tiny(seed)
    row = difference(family.network)
    eliminated = optimum(relational(family, x), row)
    program = bilinear(family, x, cuts=seed % 2 == 0)
    assert optimum(program, row, "gurobi") == pytest.approx(eliminated, abs=1e-6)
    assert optimum(program, row, "scip") == pytest.approx(eliminated, abs=1e-6)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("k", mostly_slow([3, 0, 4]))
def test_other_layers(name: str, k: int, rng: np.random.Generator) -> None:
    """Likewise for Add, Scale, Dense after Dense, ReLU on the input or last, layers read twice."""
    network = ALL[name](rng)
    family, x = Family.of(network, random_radii(network, rng)), inputs(network, rng)[k]
    row = difference(network, 1, 0)
    eliminated = optimum(relational(family, x), row)
    assert optimum(bilinear(family, x), row, "scip") == pytest.approx(eliminated, abs=1e-6)


@pytest.mark.parametrize("name", mostly_slow(CONVOLUTIONS, 2))
def test_independent_positions_are_below(name: str, rng: np.random.Generator) -> None:
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    for x in inputs(network, rng)[[0, 4]]:
        row = difference(network)
        independent, shared = optimum(relational(family, x), row), optimum(bilinear(family, x), row, "scip")
        values = sample_members(family, x, rng, 500, True)[-1]
        assert independent <= shared + 1e-6 and shared <= (values @ row).min() + 1e-6
        if name == "conv_pool":
            bare = optimum(bilinear(family, x, cuts=False), row, "scip")
            assert bare == pytest.approx(shared, abs=1e-6)


def test_sharing_by_hand() -> None:
    """One kernel entry w in [0.9, 1.1] at two positions that are both 1, and a fixed difference of the two: with one
    w it is 0, with two it is +-0.2."""

    kernel = conv_of("conv", 0, (1, 1, 2), [[[[1.0]]]], [0.0], has_bias=False)
    last = Dense("out", (1,), (2,), weight=[[1.0, -1.0], [0.0, 0.0]], bias=[0.0, 0.0], quantised=False)  # type: ignore[arg-type]
    family = Family.of(Network((Input("x", (), (1, 1, 2)), kernel, last)), Radii(weight=0.1))
    x, row = np.ones(2), np.array([1.0, -1.0])
    assert optimum(relational(family, x), row) == pytest.approx(-0.2, abs=1e-9)
    assert optimum(bilinear(family, x), row, "scip") == pytest.approx(0.0, abs=1e-7)
    assert optimum(bilinear(family, x, cuts=False), row, "gurobi") == pytest.approx(0.0, abs=1e-7)


def test_gurobi_agrees_on_a_convolution(rng: np.random.Generator) -> None:
    network = ALL["conv_last"](rng)
    family, x = Family.of(network, random_radii(network, rng)), inputs(network, rng)[0]
    program = Bilinear(Maps(family), sample_bounds(family, x))
    row = difference(network)
    assert optimum(program, row, "gurobi") == pytest.approx(optimum(program, row, "scip"), abs=1e-6)
