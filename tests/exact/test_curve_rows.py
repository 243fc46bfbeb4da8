"""Piecewise linear activations in programs: minima against what one hidden layer attains at its corners, both programs
against each other, and the parts of what is read."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import qverify
from qverify.errors import UsageError
from qverify.exact.bilinear import Bilinear
from qverify.exact.maps import Maps
from qverify.exact.relational import Relational
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Dense, Input
from qverify.network import Network
from qverify.verification.verdict import Options, Status
from tests.support.networks import activation, curve, dense, inputs, random_radii, reached, sample_members, smooth
from tests.support.programs import bilinear, difference, optimum, relational, sample_bounds

FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "leaky": ("leaky_relu", 0.2),
    "folded": ("leaky_relu", -0.6),
    "steep": ("leaky_relu", 1.8),
    "abs": ("abs",),
    "clip": ("clip", -0.3, 0.4),
    "hard_sigmoid": ("hard_sigmoid", 0.9, 0.3),
}


def hidden(rng: np.random.Generator, function: str, n_in: int = 2, neurons: int = 3) -> Network:
    name, *numbers = FUNCTIONS[function]
    first = dense(rng, "fc", 0, neurons, n_in)
    layers = (Input("x", (), (n_in,)), first, activation("act", 1, first, name, *numbers))
    return Network((*layers, dense(rng, "out", 2, 3, neurons)))


def least_at(network: Network, family: Family, x: np.ndarray, row: np.ndarray, function: str) -> float:
    """The least `row . output` over all members at one input, exactly but for rounding: each hidden value lies in an
    interval of its own, and what is minimised is concave in each of them between the signs."""
    name, *numbers = FUNCTIONS[function]
    first: Any = network.layers[1]
    last: Any = network.layers[3]
    centre = first.weight @ x + first.bias
    reach = family.weight[1] @ abs(x) + family.bias[1]
    spans = []
    for k in range(first.size):
        z = np.linspace(centre[k] - reach[k], centre[k] + reach[k], 20001)
        breaks = [0.0, -0.3, 0.4, -0.3 / 0.9, 0.7 / 0.9]
        z = np.concatenate([z, [b for b in breaks if z[0] <= b <= z[-1]]])
        y, r = curve(name, z, *(np.float64(p) for p in numbers)), family.activation[2][k]
        low, high = reached(name, *(np.float64(p) for p in numbers))
        ends = {float(np.clip(y.min() - r, low, high)), float(np.clip(y.max() + r, low, high))}
        spans.append(sorted(ends | ({0.0} if min(ends) < 0 < max(ends) else set())))
    size, shifted = abs(row), row @ last.bias - abs(row) @ family.bias[3]
    weight, radius = row @ last.weight, size @ family.weight[3]
    return min(float(weight @ np.array(y) - radius @ abs(np.array(y)) + shifted) for y in product(*spans))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("function", FUNCTIONS)
def test_minima_at_a_fixed_input_are_those_of_the_corners(function: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = hidden(rng, function)
    radii = random_radii(network, rng, (0.05, 0.2, 0.5, 1.0)[seed])
    family = Family.of(network, Radii(layers=radii.layers))
    for x in inputs(network, rng)[[0, 3]]:
        row = difference(network)
        wanted = least_at(network, family, x, row, function)
        assert optimum(relational(family, x), row) == pytest.approx(wanted, abs=1e-6)
        assert optimum(relational(family, x, tight=True), row) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_minima_along_a_line_are_those_at_its_kinks(function: str) -> None:
    """Exact weights, one input in a box: what depends on it is piecewise linear, so its kinks and ends have the least.
    Hidden values are tied to each other there, so that relaxations fall short."""
    name, *numbers = FUNCTIONS[function]
    short = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        network = hidden(rng, function, 1, 6)
        before, last = network.layers[1], network.layers[3]
        assert isinstance(before, Dense) and isinstance(last, Dense)
        first = replace(before, weight=rng.uniform(-2.0, 2.0, (6, 1)), bias=rng.uniform(-1.5, 1.5, 6))
        network = network.with_layers({1: first})
        weight = first.weight[:, 0]
        breaks = np.array([0.0, -0.3, 0.4, -0.3 / 0.9, 0.7 / 0.9])[:, None]
        kinks = ((breaks - first.bias) / np.where(weight == 0, 1.0, weight)).ravel()
        x = np.concatenate([np.linspace(-2.0, 2.0, 4001), kinks[abs(kinks) <= 2.0]])
        y = curve(name, x[:, None] @ first.weight.T + first.bias, *(np.float64(p) for p in numbers))
        row = rng.normal(size=3)
        wanted = ((y @ last.weight.T + last.bias) @ row).min()
        program = relational(Family.of(network, Radii(input=2.0)), np.zeros(1))
        assert optimum(program, row) == pytest.approx(wanted, abs=1e-6)
        short += optimum(program, row, relax=True) < wanted - 1e-3
    assert short


@pytest.mark.parametrize("function", FUNCTIONS)
def test_both_programs_have_the_same_minimum_and_members_attain_it(function: str, rng: np.random.Generator) -> None:
    pytest.importorskip("pyscipopt")
    network = hidden(rng, function, 2, 2)
    family = Family.of(network, random_radii(network, rng, 0.15))
    x = inputs(network, rng)[0]
    row = difference(network)
    found = optimum(relational(family, x), row)
    assert optimum(bilinear(family, x), row, solver="scip") == pytest.approx(found, abs=1e-4)
    least = min(float((v[-1] @ row).min()) for v in (sample_members(family, x, rng, 20000, c) for c in (True, False)))
    assert found <= least + 1e-9 and least - found < 0.25 * (1.0 + abs(found))


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS)
def test_verdicts_of_the_exact_step_are_right(function: str) -> None:
    """At a fixed input the margins are known, one by one; those above 0 are verified, the others falsified."""
    seen = set()
    for seed in range(5):
        rng = np.random.default_rng(100 + seed)
        network = hidden(rng, function)
        radii = Radii(layers=random_radii(network, rng, 0.3).layers)
        family, samples = Family.of(network, radii), inputs(network, rng)[:3]
        labels = network.evaluate(samples).argmax(1)
        verdicts = qverify.verify(network, samples, labels, radii, Options(method="exact", jobs=1))
        for x, label, verdict in zip(samples, labels, verdicts, strict=True):
            rows = [np.eye(3)[label] - np.eye(3)[j] for j in range(3) if j != label]
            margin = min(least_at(network, family, x, row, function) for row in rows)
            assert verdict.status is (Status.VERIFIED if margin > 0 else Status.FALSIFIED)
            if verdict.status is Status.VERIFIED:
                assert verdict.margin_lower == pytest.approx(margin, abs=1e-5)
            seen.add(verdict.status)
    assert len(seen) == 2


def test_a_break_costs_a_binary_and_no_more() -> None:
    """A clip with both ends inside has two, one with an end inside one, the others none."""
    network = Network(
        (
            Input("x", (), (3,)),
            activation("act", 0, Input("x", (), (3,)), "clip", -1.0, 1.0),
            Dense("out", (1,), (2,), weight=np.ones((2, 3)), bias=np.zeros(2)),
        )
    )
    family = Family.of(network, Radii(input=np.array([2.0, 1.0, 0.2])))
    program = relational(family, np.array([0.0, 0.5, 0.3]), chord=True).program
    assert int(program.integer.sum()) == 3


def test_smooth_functions_are_refused() -> None:
    rng = np.random.default_rng(0)
    network = smooth(rng, "tanh")
    family = Family.of(network, Radii(0.1))
    bounds = sample_bounds(family, inputs(network, rng)[0])
    for kind in (Relational, Bilinear):
        with pytest.raises(UsageError, match="'act0' is not piecewise linear"):
            kind(Maps(family), bounds)
    with pytest.raises(UsageError, match="is not piecewise linear"):
        qverify.verify(network, inputs(network, rng)[:1], [0], Radii(0.1), Options(method="exact"))
