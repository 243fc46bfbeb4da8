"""Halves of a pair's family: together they hold every member that would be a counterexample, and what is closed holds.

Oracles: members by the independent forward pass, and the worst that the cascade finds.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.bounds import tightening as module
from qverify.bounds.branched import Branching
from qverify.bounds.pairs import Pairs
from qverify.bounds.tensors import BoundModel
from qverify.bounds.tightening import Tightening
from qverify.budget import Deadline
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.verification.cascade import verify
from qverify.verification.verdict import Options, Status
from tests.support.bounds import TOLERANCE
from tests.support.marks import mostly_slow
from tests.support.networks import inputs, mlp, sample_members
from tests.support.pairs import KINDS, lowest, problem


def each(family: Family, x: Array, labels: Array) -> tuple[BoundModel, list[Pairs]]:
    """The pair of the lowest margin of each open sample, one by one."""
    model, found = lowest(family, x, labels)
    return model, [] if found is None else [found.take(torch.tensor([k])) for k in range(len(found))]


def held(parts: Pairs, values: list[Array]) -> Any:
    """Mask (M,) of the members that lie in the bounds of a part."""
    inside = np.zeros(len(values[0]), dtype=bool)
    for k in range(len(parts)):
        one = np.ones(len(values[0]), dtype=bool)
        for low, value, high in zip(parts.bounds.lower, values, parts.bounds.upper, strict=True):
            one &= ((value >= low[k].numpy() - TOLERANCE) & (value <= high[k].numpy() + TOLERANCE)).all(1)
        inside |= one
    return inside


@pytest.mark.parametrize("kind", mostly_slow(KINDS))
def test_no_counterexample_is_lost(kind: str) -> None:
    """After any number of halves, each that there is lies in one of the parts that are left, and no bound is above."""
    met = 0
    for seed in range(1 if kind == "tanh" else 2):
        rng, network, x, labels, radii = problem(kind, seed)
        wide = Radii(1.0, 0.05, 0.05, 0.05) if kind != "points" else radii
        family = Family.of(network, wide)
        model, pairs = each(family, x, labels)
        for pair in pairs:
            sample, rival = int(pair.samples), int(pair.rivals)
            drawn = [sample_members(family, x[sample], rng, 2000, corner) for corner in (False, True)]
            values = [np.concatenate(both) for both in zip(*drawn, strict=True)]
            margins = values[-1][:, labels[sample]] - values[-1][:, rival]
            failing = [value[margins <= 0] for value in values]
            tightening = Tightening(model, pair)
            for _ in range(3):
                if not len(tightening.parts) or tightening.stuck:
                    break
                tightening.step(Deadline())
                assert held(tightening.parts, failing).all()
                assert not len(tightening.parts) or tightening.bound <= max(float(margins.min()), float(pair.limit))
            met += len(failing[0])
    assert met > 100


@pytest.mark.parametrize("kind", mostly_slow(KINDS))
def test_what_is_closed_holds_for_every_member(kind: str) -> None:
    """Against drawn members and the worst that the cascade finds; and most that holds is closed."""
    closed = holding = 0
    for seed in range(2 if kind == "tanh" else 8):
        rng, network, x, labels, radii = problem(kind, seed)
        family = Family.of(network, radii)
        model, pairs = each(family, x, labels)
        found = verify(network, x, labels, radii, Options(jobs=1, isolated=False, seconds=1.0))
        for pair in pairs:
            tightening = Tightening(model, pair)
            for _ in range(12):
                if len(tightening.parts) and not tightening.stuck:
                    tightening.step(Deadline())
            sample, label = int(pair.samples), int(labels[int(pair.samples)])
            outputs = sample_members(family, x[sample], rng, 1000, corner=True)[-1]
            if (verdict := found[sample]).status is Status.FALSIFIED:
                witness: Any = verdict.witness()
                outputs = np.concatenate([outputs, witness.network.evaluate(witness.input[None])])
            least = float((outputs[:, label] - outputs[:, int(pair.rivals)]).min())
            done = not len(tightening.parts)
            assert least > 0 if done else tightening.bound <= max(least, float(pair.limit))
            holding, closed = holding + (verdict.status is Status.VERIFIED), closed + done
    assert closed >= 0.8 * holding > 2, (closed, holding)


def test_it_ends_in_time(rng: np.random.Generator) -> None:
    """With the parts and the bound that it has by then."""
    network = mlp(rng, 4, 10, 10, 3)
    x = inputs(network, rng)
    family = Family.of(network, Radii(0.5, 0.05, 0.05, 0.05))
    model, pairs = each(family, x, network.evaluate(x).argmax(1))
    tightening = Tightening(model, pairs[0])
    tightening.step(Deadline.after(0.0, threading.Event()))
    assert len(tightening.parts) and tightening.bound >= float(pairs[0].margin)


def test_where_the_memory_is_full_it_is_stuck(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(module, "_ENDS", 1e12)
    network = mlp(rng, 4, 10, 10, 3)
    x = inputs(network, rng)
    family = Family.of(network, Radii(0.5, 0.05, 0.05, 0.05))
    model, pairs = each(family, x, network.evaluate(x).argmax(1))
    tightening = Tightening(model, pairs[0])
    tightening.step(Deadline())
    assert len(tightening.parts) > 1 and not tightening.stuck
    tightening.step(Deadline())
    assert tightening.stuck and tightening.bound >= float(pairs[0].margin)


def test_parts_that_branching_drops_are_kept(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """For lack of memory, say: they are not closed."""
    network = mlp(rng, 4, 10, 10, 3)
    x = inputs(network, rng)
    family = Family.of(network, Radii(0.5, 0.05, 0.05, 0.05))
    model, pairs = each(family, x, network.evaluate(x).argmax(1))
    tightening = Tightening(model, pairs[0])
    real = Branching.__init__

    def full(self: Branching, *given: Any) -> None:
        real(self, *given)
        self._room = 0
        self._settle()

    monkeypatch.setattr(Branching, "__init__", full)
    tightening.step(Deadline())
    assert tightening.stuck and len(tightening.parts) == 1 and tightening.bound == float(pairs[0].margin)
