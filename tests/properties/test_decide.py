"""Random properties of random families over boxes: what is proved is violated by no member drawn at random."""

from __future__ import annotations

import threading
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from qverify import Options, Radii
from qverify.budget import Deadline
from qverify.family.family import Family
from qverify.properties.cases import Case, Clause
from qverify.properties.decide import Answer, Question, decide
from qverify.properties.formula import All, Linear, Some, Variable
from qverify.properties.members import satisfies
from tests.support.networks import NETWORKS, sample_members


def outputs(family: Family, low: Any, high: Any, rng: np.random.Generator) -> Any:
    """Outputs (N, n_out) of members drawn at random, at inputs of the box and its corners."""
    found = []
    for number in range(30):
        share = rng.random(len(low))
        x = low + (high - low) * (share if number % 2 else np.rint(share))
        found += [sample_members(family, x, rng, 60, corner)[-1] for corner in (False, True)]
    return np.concatenate(found)


def comparison(rng: np.random.Generator, y: Any) -> Linear:
    """One that few of the outputs y meet, or that is a little below all."""
    a = np.round(rng.normal(size=y.shape[1]), 2)
    a[0] += not a.any()
    values = y @ a
    gap = rng.choice([0, 0.02, 0.1, 0.3]) * (values.std() + 0.01)
    limit = round(float(np.quantile(values, rng.choice([0, 0, 0, 0.01, 0.1])) - gap), 4)
    terms = {Variable(True, j): Fraction(str(float(c))) for j, c in enumerate(a) if c}
    return Linear(terms, Fraction(str(limit)), bool(rng.integers(2)))


def met(clauses: tuple[Clause, ...], y: Any) -> bool:
    """Whether some output meets all of some clause by more than rounding."""
    for clause in clauses:
        mask = np.ones(len(y), dtype=bool)
        for one in clause:
            mask &= sum(float(c) * y[:, v.place] for v, c in one.terms.items()) < float(one.limit) - 1e-9
        if mask.any():
            return True
    return False


def judged(seed: int) -> Answer:
    rng = np.random.default_rng(seed)
    network = NETWORKS[sorted(NETWORKS)[seed % len(NETWORKS)]](rng)
    size, radius = network.input_size, float(rng.choice([0.0, 0.003, 0.02]))
    radii = Radii(input=radius * int(rng.integers(2)), weight=radius, bias=radius, activation=radius)
    centre = rng.normal(size=size)
    reach = rng.uniform(0, 0.1, size) * (rng.random(size) < 0.7) * rng.choice([0, 1, 3])
    low, high = centre - reach, centre + reach
    y = outputs(Family.of(network, radii), low, high, rng)
    clauses = tuple(tuple(comparison(rng, y) for _ in range(rng.integers(1, 4))) for _ in range(rng.integers(1, 4)))
    case = Case(lower=tuple(map(Fraction, low.tolist())), upper=tuple(map(Fraction, high.tolist())), clauses=clauses)
    formula, entry = Some(tuple(map(All, clauses))), np.full(size, float(radii.input))
    question = Question(
        network=network,
        radii=radii,
        options=Options(jobs=1, isolated=False),
        confirmed=lambda candidate: satisfies(candidate, formula, entry),
    )
    found = decide(question, [case], Deadline.after(10.0, threading.Event())).answer
    assert not (found is Answer.UNSAT and met(clauses, y)), seed
    return found


def test_no_member_violates_what_is_proved() -> None:
    found = Counter(judged(seed) for seed in range(20))
    assert found[Answer.SAT] > 3 and found[Answer.UNSAT] > 3


@pytest.mark.slow
def test_many_members_violate_nothing_that_is_proved() -> None:
    for seed in range(100, 300):
        judged(seed)
