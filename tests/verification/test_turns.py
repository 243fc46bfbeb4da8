"""Bounds, attacks and the exact step in turns: what one of them is stuck on, another may decide at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qverify import datasets
from qverify.bounds.refinement import backward_margins
from qverify.errors import ModelTooLarge
from qverify.exact.search import Search
from qverify.family.radii import Radii
from qverify.network import margins
from qverify.onnx import reader as onnx_io
from qverify.verification import attack, branching
from qverify.verification.cascade import verify
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options, Status
from tests.support.networks import inputs, mlp
from tests.support.paths import DIGITS


def test_short_steps_break_what_long_ones_leave() -> None:
    """By members that a plain forward pass misclassifies."""
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    setup = Setup(network, Radii.from_bits(5), Options(jobs=1))
    x, y = samples.x[:200].reshape(200, -1), samples.y[:200]
    bounds, labels = setup.intervals(x), torch.as_tensor(y)
    lower = backward_margins(setup.model, bounds, labels)
    paces = (replace(attack.QUICK, starts=8), attack.SLOW)
    found = {pace: attack.attack(setup.model, bounds, labels, lower, pace=pace) for pace in paces}
    long, short = ((one.margin <= 0).numpy() for one in found.values())
    assert (short & ~long).sum() >= 3 * max(1, (long & ~short).sum())
    for i in np.flatnonzero(short & ~long):
        own = setup.own_family(bounds, int(i))
        witness = found[attack.SLOW].recipe(own, x[i], int(y[i]), int(i)).witness()
        assert margins(witness.network.evaluate(witness.input[None]), y[[i]])[0] <= 0


def test_the_exact_step_does_not_wait_for_branching(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Without an attack, of samples that fail: branching goes on for all of its time, two minutes here, unless the
    exact step is asked between."""
    asked: list[Any] = []
    network = mlp(rng, 6, 40, 40, 40, 3)
    x = inputs(network, rng)
    labels, radii = network.evaluate(x).argmax(1), Radii(0.02, 0.02, 0.02, 0.02)
    broken = [v.index for v in verify(network, x, labels, radii) if v.status is Status.FALSIFIED]
    assert broken
    monkeypatch.setattr(branching, "_FEW", 0)
    monkeypatch.setattr(branching, "_SHALLOW_SECONDS", 0.2)
    trial = branching.PairStages._try_exact

    def noted(self: Any, samples: Any, seconds: float) -> None:
        asked.extend(samples)
        trial(self, samples, 30.0)

    monkeypatch.setattr(branching.PairStages, "_try_exact", noted)
    some = broken[:3]
    found = verify(network, x[some], labels[some], radii, Options(seconds=None, attack=False, jobs=1))
    assert [v.status for v in found] == [Status.FALSIFIED] * len(some)
    assert {v.method for v in found} == {"exact"} and asked
    assert max(v.seconds for v in found) < 60.0


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_trial_without_a_licence_costs_nothing(
    jobs: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """What branching decides needs no solver, so that one refuses is no word on it; where it is needed, it still is."""

    def refused(self: Search) -> Any:
        asked.append(self)
        raise ModelTooLarge("the licence is too small")

    asked: list[Any] = []
    rng = np.random.default_rng(3)
    network = mlp(rng, 10, 40, 40, 3)
    x = np.concatenate([inputs(network, rng) for _ in range(6)])
    labels, radii = network.evaluate(x).argmax(1), Radii(0.01, 0.01, 0.01, 0.01)
    found = verify(network, x, labels, radii, Options(method="bp-branched", jobs=1))
    some = [v.index for v in found if v.method == "bp-branched" and v.status is Status.VERIFIED]
    assert some
    monkeypatch.setattr(branching, "_FEW", 0)
    monkeypatch.setattr(branching, "_SHALLOW_SECONDS", 0.0)
    monkeypatch.setattr(Search, "decide", refused)
    again = verify(network, x[some], labels[some], radii, Options(jobs=jobs))
    assert [v.status for v in again] == [Status.VERIFIED] * len(some) and asked
    with pytest.raises(ModelTooLarge):
        verify(network, x[some], labels[some], radii, Options(jobs=jobs, method="exact"))
