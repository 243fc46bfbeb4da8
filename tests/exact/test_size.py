"""Sizes from shapes alone, against the programs themselves."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.exact.size import count_coefficients, count_products
from qverify.family.family import Family
from qverify.family.radii import Radii
from tests.support.networks import inputs, mlp, random_radii
from tests.support.programs import (
    ALL,
    DENSE,
    bilinear,
    relational,
)


def test_by_hand() -> None:
    """2 inputs, 3 neurons, 2 outputs: 12 weights, each in two rows and in one product."""
    network = mlp(np.random.default_rng(0), 2, 3, 2)
    family = Family.of(network, Radii(weight=0.1))
    assert (count_coefficients(family), count_products(family)) == (24, 12)


@pytest.mark.parametrize("name", list(ALL))
def test_no_program_has_more_products(name: str, rng: np.random.Generator) -> None:
    """Padding is counted in, and so only convolutions have fewer."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    made = len(bilinear(family, inputs(network, rng)[0]).program.products)
    assert made == count_products(family) if name in DENSE else made <= count_products(family)


@pytest.mark.parametrize("name", list(ALL))
def test_no_program_has_more_coefficients(name: str, rng: np.random.Generator) -> None:
    """But for those beside the matrices: each variable's own, and binaries, a few for each output."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    program = relational(family, inputs(network, rng)[0], chord=True).program
    assert program.rows.nnz <= count_coefficients(family) + 8 * sum(layer.size for layer in network.layers)
