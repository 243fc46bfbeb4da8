"""Programs with a Gather, whose variables are those of what it reads: against brute force over all corners."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import qverify
from qverify.bounds.backward import backward_bound
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.exact.gathered import repeated, summed
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Input, Relu
from qverify.network import Network
from qverify.verification.verdict import Options, Status
from tests.support.bounds import box_ends
from tests.support.networks import dense, gather, relu
from tests.support.programs import bilinear, optimum, relational

Array = np.ndarray
INDEX, FILL = [1, 0, 1, -1, 3, 0], 0.7
TAIL = [0, 1, 0, -1]


def case(seed: int, signed: bool, tail: bool) -> tuple[Network, Family, Array, Array]:
    """Dense, a Relu unless `signed`, a Gather of that and the input, Dense; behind it, perhaps, another Gather."""
    rng = np.random.default_rng(seed)
    first = dense(rng, "fc", 0, 2, 2)
    layers: list[Any] = [Input("x", (), (2,)), first, *([] if signed else [relu("relu", 1, first)])]
    layers.append(gather("both", (len(layers) - 1, 0), (6,), INDEX, FILL))
    layers.append(dense(rng, "out", len(layers) - 1, 2, 6))
    if tail:
        layers.append(gather("tail", (len(layers) - 1,), (4,), TAIL, -0.4))
    radii = Radii(input=0.0, weight=0.15, bias=0.1, activation=0.05)
    network = Network(tuple(layers))
    row = np.array([1.0, -1.0, -0.3, 0.5]) if tail else np.array([1.0, -1.0])
    return network, Family.of(network, radii), rng.normal(size=2), row


def least(network: Network, x: Array, row: Array) -> float:
    """The smallest `row . output`: what the last layer reads is monotone in every parameter before it, and its own
    parameters are each in one product, so corners suffice."""
    first: Any = network.layers[1]
    last: Any = network.layers[network.index("out")]
    plain = isinstance(network.layers[2], Relu)
    spent = np.zeros(2)
    constant = 0.0
    for weight, index in zip(row, TAIL if len(row) == 4 else [0, 1], strict=True):
        if index < 0:
            constant += -0.4 * weight
        else:
            spent[index] += weight
    worst = np.inf
    for signs in product((-1.0, 1.0), repeat=8 if plain else 6):
        weight = first.weight + 0.15 * np.reshape(signs[:4], (2, 2))
        hidden = weight @ x + first.bias + 0.1 * np.array(signs[4:6])
        if plain:
            hidden = np.maximum(np.maximum(hidden, 0.0) + 0.05 * np.array(signs[6:]), 0.0)
        read = np.array([hidden[1], hidden[0], hidden[1], FILL, x[1], hidden[0]])
        centre = spent @ (last.weight @ read + last.bias)
        worst = min(worst, float(centre - abs(spent).sum() * (0.15 * abs(read).sum() + 0.1)))
    return worst + constant


@pytest.mark.parametrize("tail", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_both_programs_have_the_optimum_of_all_corners(seed: int, signed: bool, tail: bool) -> None:
    network, family, x, row = case(seed, signed, tail)
    wanted = least(network, x, row)
    for tight in (False, True):
        assert optimum(relational(family, x, tight), row) == pytest.approx(wanted, abs=1e-6)
    pytest.importorskip("pyscipopt")
    assert optimum(bilinear(family, x), row, "scip") == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_verdicts_and_margins_are_those_of_all_corners(seed: int) -> None:
    network, _family, x, _ = case(seed, False, False)
    label = int(network.evaluate(x[None])[0].argmax())
    wanted = least(network, x, np.array([1.0, -1.0]) * (1 - 2 * label))
    (verdict,) = qverify.verify(
        network, x[None], [label], Radii(input=0.0, weight=0.15, bias=0.1, activation=0.05), Options(method="exact")
    )
    assert verdict.margin_lower <= wanted + 1e-9 and verdict.margin_upper >= wanted - 1e-9
    assert (verdict.status is Status.VERIFIED) == (wanted > 0)  # a member that fails ends the search
    if wanted > 0:
        assert verdict.margin_upper - verdict.margin_lower < 1e-6


def test_rows_through_a_gather_are_exact() -> None:
    """BP behind a Gather is BP behind a Dense layer that picks the same numbers."""
    network, family, x, _ = case(3, True, True)
    eye = np.eye(4)
    pick = np.stack([eye[i] for i in (1, 0, 1)] + [np.zeros(4), eye[3], eye[0]])
    model = BoundModel.of(family)
    bounds = interval_bounds(model, *box_ends(model, family.box(x[None])))
    rows = torch.tensor(np.random.default_rng(0).normal(size=(1, 20, 6)))
    behind = backward_bound(model, bounds, network.index("both"), rows)
    picked = rows @ torch.tensor(pick)
    hidden = backward_bound(model, bounds, 1, picked[:, :, :2])
    of_input = picked[:, :, 2:] @ torch.tensor(x)
    wanted = hidden + of_input + FILL * rows[:, :, 3]
    assert bool((behind <= wanted + 1e-14).all()) and bool((behind >= wanted - 1e-9).all())


def test_what_falls_together_is_taken_off() -> None:
    """The objective is nowhere above the exact one, however its coefficients cancel."""
    columns, row = np.array([0, 1, 0, 0]), np.array([0.1, 1.0, 0.2, -0.3])
    found = summed(3, columns, row, np.full(4, 2.0))
    assert repeated(columns) and not repeated(columns[:2]) and found.cost.tolist()[1:] == [1.0, 0.0]
    assert found.offset < -2.0 * abs(found.cost[0]) and found.offset > -1e-11
    assert summed(3, columns[:2], row[:2], np.ones(2)).offset == 0.0
