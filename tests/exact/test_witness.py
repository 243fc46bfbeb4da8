"""Members made from points of programs: in the family, and at the minimum where the program is exact."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.exact import solvers
from qverify.exact.bilinear import Bilinear
from qverify.exact.relational import Relational
from qverify.exact.solvers.base import (
    Limits,
)
from qverify.exact.witness import follow
from qverify.family.family import Family
from qverify.family.members import membership
from tests.support.networks import inputs, random_radii
from tests.support.programs import (
    ALL,
    CONVOLUTIONS,
    DENSE,
    bilinear,
    difference,
    relational,
)


def member_at_minimum(
    program: Bilinear | Relational, family: Family, x: np.ndarray, row: np.ndarray, solver: str
) -> tuple[float, float]:
    """The minimum of `row . output` over the program, and its value at the member that follows the solver's point."""
    session = solvers.adapter(solver).open(program.program)
    outcome = session.minimise(program.combination(row), Limits(seconds=60.0))
    session.close()
    recipe, witness = follow(family, program, x=x, label=0, point=outcome.point, row=row)  # type: ignore[arg-type]
    assert membership(family, witness.network, x, witness.input) == []
    again = recipe.witness()
    assert (again.network.evaluate(again.input[None]) == witness.network.evaluate(witness.input[None])).all()
    return outcome.dual_bound, float(row @ witness.network.evaluate(witness.input[None])[0])


@pytest.mark.parametrize("name", DENSE)
def test_members_attain_the_minimum_of_dense_networks(name: str, rng: np.random.Generator) -> None:
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng))
    for x in inputs(network, rng)[[0, 4]]:
        least, value = member_at_minimum(relational(family, x), family, x, difference(network), "highs")
        assert value == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("name", ["dense", "signed_hidden", *CONVOLUTIONS])
def test_members_attain_the_minimum_of_the_bilinear_program(name: str, rng: np.random.Generator) -> None:
    pytest.importorskip("pyscipopt")
    network = ALL[name](rng)
    family, x = Family.of(network, random_radii(network, rng)), inputs(network, rng)[0]
    least, value = member_at_minimum(bilinear(family, x), family, x, difference(network), "scip")
    assert value == pytest.approx(least, abs=1e-5)


@pytest.mark.parametrize("name", ["signed_hidden", "relu_on_input", *CONVOLUTIONS])
def test_members_are_no_better_than_a_relaxed_minimum(name: str, rng: np.random.Generator) -> None:
    """Chords, and positions taken as independent: points that no member may attain."""
    network = ALL[name](rng)
    family = Family.of(network, random_radii(network, rng, 0.3))
    for x in inputs(network, rng)[[0, 4]]:
        least, value = member_at_minimum(relational(family, x, chord=True), family, x, difference(network), "highs")
        assert value >= least - 1e-7
