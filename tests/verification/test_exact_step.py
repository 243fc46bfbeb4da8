"""The exact step on what the bounds leave open, against the closed form of a single layer; time, stops and threads."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from qverify.family.radii import Radii
from qverify.network import Network
from qverify.verification.cascade import Cascade
from qverify.verification.exact_step import ExactStep
from qverify.verification.undecided import Batch
from qverify.verification.verdict import Options, Status, Verdict
from tests.support.networks import Array, known_layers, mlp

RADII = Radii(weight=0.05, bias=0.02)


def undecided(network: Network, x: Array, labels: Array, options: Options) -> tuple[Cascade, Batch]:
    cascade = Cascade(network, RADII, options)
    batch = cascade.cheap_stages(10, x, labels, lambda verdict: None)
    return cascade, batch


def problem(rng: np.random.Generator, *sizes: int, count: int = 8) -> tuple[Network, Array, Array]:
    network = mlp(rng, *sizes)
    x = rng.normal(size=(count, sizes[0]))
    return network, x, network.evaluate(x).argmax(1)


def closed_form(network: Network, x: Array, label: int) -> float:
    """min over the family of one dense layer: the rows choose independently (mathematics.md, section 3)."""
    layer = known_layers(network)[-1]
    worst = np.inf
    for rival in range(len(layer.bias)):
        if rival != label:
            centre = (layer.weight[label] - layer.weight[rival]) @ x + layer.bias[label] - layer.bias[rival]
            worst = min(worst, centre - 2 * 0.05 * abs(x).sum() - 2 * 0.02)
    return worst


@pytest.mark.parametrize("jobs", [1, 3])
def test_one_layer_has_a_closed_form(jobs: int, rng: np.random.Generator) -> None:
    network, x, labels = problem(rng, 5, 4)
    options = Options(method="exact", attack=False, jobs=jobs)
    cascade, batch = undecided(network, x, labels, options)
    assert batch.open.tolist() == list(range(8)), "method exact leaves every sample to the solver"
    found: list[Any] = []
    said: list[Any] = []
    ExactStep(cascade.setup, batch).run(found.append, said.append)
    assert sorted(verdict.index for verdict in found) == list(range(10, 18))
    for verdict in found:
        worst = closed_form(network, x[verdict.index - 10], verdict.label)
        assert verdict.margin_lower <= worst + 1e-9 and verdict.margin_lower == pytest.approx(worst, abs=1e-6)
        assert verdict.margin_upper >= worst - 1e-9 and verdict.margin_upper == pytest.approx(worst, abs=1e-6)
        assert verdict.status is (Status.VERIFIED if worst > 0 else Status.FALSIFIED)
        assert verdict.method == "exact" and verdict.scope == "exact" and verdict.seconds > 0
        if verdict.status is Status.FALSIFIED:
            assert verdict.witness().margin <= 0
    assert said == [f"exact: {left} open" for left in range(8, -1, -1)]


def test_a_stopped_run_gives_no_verdict(rng: np.random.Generator) -> None:
    network, x, labels = problem(rng, 5, 6, 4)
    cascade, batch = undecided(network, x, labels, Options(method="exact", attack=False, jobs=1, isolated=False))
    found = []

    def tell(verdict: Verdict) -> None:
        found.append(verdict)
        cascade.setup.stop.set()

    ExactStep(cascade.setup, batch).run(tell)
    assert len(found) == 1
    ExactStep(cascade.setup, batch).run(found.append)
    assert len(found) == 1


def test_a_sample_without_time_is_unknown_with_its_bounds(rng: np.random.Generator) -> None:
    network, x, labels = problem(rng, 5, 6, 4)
    cascade, batch = undecided(network, x, labels, Options(method="exact", attack=False, seconds=30.0))
    batch.seconds[batch.open[0]] = 31.0
    before = batch.lower[batch.open[0]].min()
    found: list[Any] = []
    ExactStep(cascade.setup, batch).run(found.append)
    (late,) = [verdict for verdict in found if verdict.index == 10 + batch.open[0]]
    assert late.status is Status.UNKNOWN and (late.detail, late.limit) == ("time limit", 30.0)
    assert late.margin_lower == before and all(verdict.limit is None for verdict in found if verdict is not late)


def test_the_clock_of_a_sample_goes_on(rng: np.random.Generator) -> None:
    """Seconds before the exact step are those of the cheap stages; the limit is for both together."""
    network, x, labels = problem(rng, 5, 6, 4, count=3)
    cascade, batch = undecided(network, x, labels, Options(method="exact", attack=False, seconds=30.0))
    step = ExactStep(cascade.setup, batch)
    batch.seconds[:] = (1.0, 2.0, 29.5)
    assert [step._seconds(sample) for sample in range(3)] == [29.0, 28.0, 0.5]
    assert step._settings(0.5).seconds == 0.5 and not step._settings(0.5).early
    stop = threading.Event()
    other = ExactStep(Cascade(network, RADII, Options(seconds=None), stop).setup, batch)
    assert other._seconds(0) is None and other._settings(None).stop is stop and other._settings(None).early
