"""The program of MaxPools: every choice of largest numbers, as a linear program each, has the same optimum."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

import qverify
from qverify.exact.pool_rows import candidates
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Input
from qverify.network import Network
from qverify.verification.verdict import Options
from tests.support.networks import dense, max_pool, pool_taps, random_radii, relu, sample_members
from tests.support.programs import bilinear, difference, optimum, relational, sample_bounds

Array = np.ndarray
RADIUS = 0.7


def linear(seed: int) -> tuple[Network, Array]:
    """Dense, MaxPool, Dense; and a sample."""
    rng = np.random.default_rng(seed)
    window: dict[str, Any] = {"strides": (1, 2), "pads": (0, 1, 0, 0)} if seed % 2 else {"strides": (1, 1)}
    first = dense(rng, "fc", 0, 5, 3)
    pool = max_pool("pool", 1, (1, 1, 5), (1, 3), **window)
    layers = (Input("x", (), (3,)), first, pool, dense(rng, "out", 2, 3, pool.size))
    return Network(layers), rng.normal(size=3)


def enumerated(network: Network, x: Array, row: Array, radius: float = RADIUS) -> float:
    """The least `row . output` over inputs at most `radius` from x, by a linear program for every choice of largest
    numbers."""
    _, first, pool, last = network.layers
    weight, bias, out = first.weight, first.bias, row @ last.weight  # type: ignore[attr-defined]
    least = np.inf
    taps = pool_taps(pool)  # type: ignore[arg-type]
    for chosen in product(*taps):
        above = [(i, j) for i, others in zip(chosen, taps, strict=True) for j in others if j != i]
        matrix = np.array([weight[j] - weight[i] for i, j in above]).reshape(-1, 3)
        limits = np.array([bias[i] - bias[j] for i, j in above])
        cost = sum((c * weight[i] for c, i in zip(out, chosen, strict=True)), np.zeros(3))
        box = list(zip(x - radius, x + radius, strict=True))
        found = linprog(cost, matrix if len(above) else None, limits if len(above) else None, bounds=box)
        if found.status == 0:
            least = min(least, found.fun + sum(c * bias[i] for c, i in zip(out, chosen, strict=True)))
    return float(least + row @ last.bias)  # type: ignore[attr-defined]


@pytest.mark.parametrize("seed", range(12))
def test_both_programs_have_the_optimum_of_all_choices(seed: int) -> None:
    pytest.importorskip("pyscipopt")
    network, x = linear(seed)
    family, row = Family.of(network, Radii(RADIUS)), difference(network)
    wanted = enumerated(network, x, row)
    for tight in (False, True):
        assert optimum(relational(family, x, tight), row) == pytest.approx(wanted, abs=1e-6)
        assert optimum(bilinear(family, x, tight), row, "scip") == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("radius", [0.02, 0.1, RADIUS])
@pytest.mark.parametrize("seed", range(8))
def test_verdicts_are_those_of_all_choices(seed: int, radius: float) -> None:
    """By branch and bound: the sign of the least margin, which is proved where it is positive."""
    network, x = linear(seed)
    label = int(network.evaluate(x[None])[0].argmax())
    rivals = [j for j in range(3) if j != label]
    wanted = min(enumerated(network, x, difference(network, label, j), radius) for j in rivals)
    (verdict,) = qverify.verify(network, x[None], [label], Radii(radius), Options(method="exact"))
    assert verdict.status.value == ("verified" if wanted > 0 else "falsified")
    assert verdict.margin_lower <= wanted + 1e-9 and wanted <= verdict.margin_upper + 1e-9
    assert wanted < 0 or verdict.margin_lower == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_weights_are_eliminated_exactly(seed: int) -> None:
    """With radii on everything: the bilinear program, and members sampled at corners."""
    pytest.importorskip("pyscipopt")
    rng = np.random.default_rng(seed)
    first = dense(rng, "fc", 0, 4, 2)
    pool = max_pool("pool", 2 - seed % 2, (1, 2, 2), (2, 1) if seed % 3 else (1, 2))
    middle = (first, relu("relu", 1, first)) if seed % 2 == 0 else (first,)
    network = Network((Input("x", (), (2,)), *middle, pool, dense(rng, "out", len(middle) + 1, 2, pool.size)))
    family, x, row = Family.of(network, random_radii(network, rng, 0.3)), rng.normal(size=2), difference(network)
    eliminated = optimum(relational(family, x), row)
    assert optimum(bilinear(family, x), row, "scip") == pytest.approx(eliminated, abs=1e-6)
    values = sample_members(family, x, rng, 2000, True)[-1]
    assert (values @ row >= eliminated - 1e-7).all()


def test_candidates_are_few_and_enough(rng: np.random.Generator) -> None:
    windows = rng.integers(0, 9, (50, 4))
    lower = rng.normal(size=9)
    upper = lower + rng.choice([0.0, 0.3, 2.0], 9)
    found = candidates(windows, lower, upper)
    for window, mask in zip(windows, found, strict=True):
        kept = window[mask].tolist()
        assert len(set(kept)) == len(kept) and max(lower[kept]) == max(lower[window])
        assert all(upper[j] <= max(lower[kept]) for j in set(window.tolist()) - set(kept))


def test_a_certain_maximum_has_no_binary(rng: np.random.Generator) -> None:
    network, x = linear(0)
    family = Family.of(network, Radii(1e-9))
    program = relational(family, x)
    assert not program.program.integer.any()
    assert (sample_bounds(family, x).upper[2] >= network.evaluate_all(x[None])[2][0]).all()
