"""Worst-case discrepancy: members inside, methods nested, ends attained."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qverify.analysis import discrepancies as discrepancy
from qverify.analysis.discrepancies import worst_case_discrepancy
from qverify.arrays import Array
from qverify.bounds.tensors import Bounds
from qverify.budget import Deadline
from qverify.errors import UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.verification.verdict import Options
from tests.support.networks import NETWORKS, inputs, known_layers, mlp, random_radii, sample_members

METHODS = ("ibp", "bp", "bp-optimised", "exact")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_members_stay_inside_and_methods_are_nested(name: str, rng: np.random.Generator) -> None:
    network = NETWORKS[name](rng)
    x, radii = inputs(network, rng)[:3], random_radii(network, rng, 0.05)
    family, nominal = Family.of(network, radii), network.evaluate(x)
    found = [worst_case_discrepancy(network, x, radii, Options(method, seconds=20.0)) for method in METHODS]
    exact = found[-1]
    for i in range(len(x)):
        for one, other in itertools.pairwise(found):
            assert (one[i].lower <= other[i].lower + 1e-12).all() and (one[i].upper >= other[i].upper - 1e-12).all()
        assert (exact[i].lower <= exact[i].attained_lower + 1e-9).all()  # type: ignore[operator]
        assert (exact[i].upper >= exact[i].attained_upper - 1e-9).all()  # type: ignore[operator]
        for corner in (True, False):
            moved = sample_members(family, x[i], rng, 400, corner)[-1] - nominal[i]
            assert (moved >= exact[i].lower - 1e-9).all() and (moved <= exact[i].upper + 1e-9).all()
        if not (network.shares_weights or network.products):  # else a relaxation, and time may end it
            assert exact[i].complete
            assert exact[i].lower == pytest.approx(exact[i].attained_lower, abs=1e-5)
            assert exact[i].upper == pytest.approx(exact[i].attained_upper, abs=1e-5)


def test_one_dense_layer_in_closed_form(rng: np.random.Generator) -> None:
    """W x + b moves by |W| r + R (|x| + r) + r_b where x keeps its sign: x > r here. One output is enough."""
    network = mlp(rng, 3, 1)
    x, weight = rng.uniform(1, 2, (2, 3)), known_layers(network)[1].weight
    radii = Radii(input=0.1, weight=0.02, bias=0.03)
    for method in METHODS:
        for i, found in enumerate(worst_case_discrepancy(network, x, radii, Options(method))):
            up = np.maximum((weight[0] + 0.02) * 0.1, -(weight[0] + 0.02) * 0.1).sum() + 0.02 * x[i].sum() + 0.03
            down = np.maximum((weight[0] - 0.02) * 0.1, -(weight[0] - 0.02) * 0.1).sum() + 0.02 * x[i].sum() + 0.03
            assert found.upper[0] == pytest.approx(up, abs=1e-6) and found.lower[0] == pytest.approx(-down, abs=1e-6)
            assert found.worst == pytest.approx(max(up, down), abs=1e-6)


def test_no_radius_no_discrepancy(rng: np.random.Generator) -> None:
    network = NETWORKS["residual"](rng)
    for method in METHODS:
        for found in worst_case_discrepancy(network, inputs(network, rng), Radii(), Options(method)):
            assert 0 <= found.worst < 1e-6


def test_optimised_lines_pay(rng: np.random.Generator) -> None:
    """Closer than BP by a tenth on a deep network, and not beyond what members reach."""
    network = mlp(rng, 6, 16, 16, 16, 2)
    x, radii = inputs(network, rng)[:3], Radii(0.02, 0.02, 0.02, 0.02)
    bp, optimised, exact = (worst_case_discrepancy(network, x, radii, Options(method)) for method in METHODS[1:])
    for i in range(len(x)):
        widths = [(one[i].upper - one[i].lower).sum() for one in (bp, optimised, exact)]
        assert widths[1] < 0.9 * widths[0] and widths[1] > widths[2]
        assert (optimised[i].lower <= exact[i].attained_lower + 1e-9).all()  # type: ignore[operator]
        assert (optimised[i].upper >= exact[i].attained_upper - 1e-9).all()  # type: ignore[operator]


def test_auto_is_no_method_here(rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match="ibp, bp, bp-optimised, exact"):
        worst_case_discrepancy(mlp(rng, 3, 2), np.zeros((1, 3)), Radii(), Options("auto"))


@pytest.mark.parametrize(
    ("ways", "reason"),
    [({"seconds": 1e-3}, "time limit"), ({"memory": 384 << 20}, "more: --memory")],
    ids=["time", "memory"],
)
def test_what_is_not_complete_says_why(
    ways: dict[str, Any], reason: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bounds that were there stay; in time the same sample is complete and says nothing."""
    network = NETWORKS["dense"](rng)
    x, radii = rng.normal(size=(1, network.input_size)), random_radii(network, rng, 0.05)
    (whole,) = worst_case_discrepancy(network, x, radii, Options(method="exact"))
    assert whole.complete and whole.detail == "" and "detail" not in whole.to_json()
    if "seconds" in ways:  # every bound is there in time, and nothing is left for the solver
        monkeypatch.setattr(
            "qverify.analysis.discrepancies._Discrepancies._bounds", _late(discrepancy._Discrepancies._bounds)
        )
    else:
        monkeypatch.setattr("qverify.exact.search._BYTES", 1e12)
    (found,) = worst_case_discrepancy(network, x, radii, Options(method="exact", **ways))
    assert not found.complete and reason in found.detail and found.to_json()["detail"] == found.detail
    assert (found.lower <= whole.lower + 1e-9).all() and (found.upper >= whole.upper - 1e-9).all()


def _late(bounds: Callable[..., Any]) -> Callable[..., Any]:
    """Without a deadline, and slower than a millisecond."""

    def slow(work: Any, x: Array, deadline: Deadline) -> Bounds:
        found: Bounds = bounds(work, x, Deadline())
        time.sleep(0.01)
        return found

    return slow
