"""Rows of convex hulls of single neurons: against every assignment of the binaries, and every subset of the terms."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from qverify.exact.cuts import Switched
from qverify.exact.program import Program
from qverify.family.family import Family
from tests.support.networks import NETWORKS, inputs, mlp, random_radii
from tests.support.programs import (
    relational,
    with_binaries,
)


@pytest.mark.parametrize("name", NETWORKS)
def test_cuts_hold_for_every_assignment(name: str, rng: np.random.Generator) -> None:
    """The largest violation of any row made, over all points with whole binaries, by scipy."""
    network = NETWORKS[name](rng)
    family = Family.of(network, random_radii(network, rng, 0.1))
    program = relational(family, inputs(network, rng)[0]).program
    switched, count = Switched.of_program(program), int(program.integer.sum())
    choices = rng.integers(0, 2, size=(12, count)).astype(float)
    for _ in range(3):
        point = rng.uniform(program.lower, program.upper)
        point[program.integer] = rng.uniform(0.05, 0.95, count)
        point[switched.x] = program.upper[switched.x]
        rows, limits = switched.violated(point)
        for k, choice in itertools.product(range(min(len(limits), 2)), choices):
            least = with_binaries(program, rows[k].toarray().ravel(), choice)
            assert least is None or least >= limits[k] - 1e-7


def test_every_split_neuron_is_recognised(rng: np.random.Generator) -> None:
    """The binaries of split neurons are those of switched variables; those that stand for signs are not."""
    network = mlp(rng, 6, 14, 12, 3)
    family = Family.of(network, random_radii(network, rng, 0.2))
    asked_for = relational(family, np.zeros(6))
    program, blocks = asked_for.program, asked_for.builder.blocks
    active = [number for name, block in blocks.items() if name.startswith("active") for number in block]
    signs = [number for name, block in blocks.items() if name.startswith("sign") for number in block]
    assert sorted(Switched.of_program(program).s) == sorted(active)
    assert len(active) > 5 and len(signs) == 6


def neuron(rng: np.random.Generator, terms: int) -> tuple[Program, np.ndarray, float, float]:
    """x <= max(w . v + c, r) by big-M over a random box: variables v, x, s; and w, c, r."""
    weight, constant, r = rng.normal(size=terms), float(rng.normal()), 0.1
    low, high = -rng.uniform(0.1, 2.0, terms), rng.uniform(0.1, 2.0, terms)
    least = np.minimum(weight * low, weight * high).sum() + constant - 0.5
    most = np.maximum(weight * low, weight * high).sum() + abs(constant) + 0.5
    rows = np.array([[*weight, -1.0, least], [*np.zeros(terms), -1.0, most]])
    program = Program(
        lower=np.array([*low, 0.0, 0.0]),
        upper=np.array([*high, most, 1.0]),
        integer=np.arange(terms + 2) == terms + 1,
        rows=sparse.csr_matrix(rows),
        row_lower=np.array([least - constant, -r]),
        row_upper=np.full(2, np.inf),
    )
    return program, weight, constant, r


@pytest.mark.parametrize("seed", range(10))
def test_the_row_is_the_most_violated_of_all_subsets(seed: int) -> None:
    """All 2^5 subsets I of formula (19), each written out."""
    rng, terms, found = np.random.default_rng(seed), 5, 0
    program, weight, constant, r = neuron(rng, terms)
    ends = weight * program.lower[:terms], weight * program.upper[:terms]
    low, high = np.minimum(*ends), np.maximum(*ends)
    switched = Switched.of_program(program)
    assert (switched.x.tolist(), switched.s.tolist()) == ([terms], [terms + 1])
    for _ in range(20):
        point = rng.uniform(program.lower, program.upper)
        v, x, s = point[:terms], point[terms], point[terms + 1]
        right = [
            r
            + sum(weight[j] * v[j] - low[j] * (1.0 - s) for j in range(terms) if j in chosen)
            + s * (constant - r + sum(high[j] for j in range(terms) if j not in chosen))
            for count in range(terms + 1)
            for chosen in itertools.combinations(range(terms), count)
        ]
        rows, limits = switched.violated(point)
        assert len(limits) == (x - min(right) > 1e-6 * program.upper[terms])
        if len(limits):
            found += 1
            assert (limits - rows @ point)[0] == pytest.approx(x - min(right), abs=1e-9)
    assert found


def test_rows_of_another_form_are_passed_over(rng: np.random.Generator) -> None:
    """A range instead of one limit, a third row, a coefficient other than -1."""
    program, *_ = neuron(rng, 3)
    assert len(Switched.of_program(program)) == 1
    third = sparse.vstack([program.rows, program.rows[:1]], format="csr")
    for other in (
        replace(program, row_upper=np.array([np.inf, 9.0])),
        replace(program, rows=2.0 * program.rows),
        replace(program, rows=third, row_lower=np.append(program.row_lower, -9.0), row_upper=np.full(3, np.inf)),
    ):
        assert len(Switched.of_program(other)) == 0
