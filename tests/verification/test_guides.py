"""Attacks that begin where bounds fear a member: where lines are exact, that member is the worst one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qverify import datasets
from qverify.bounds.refinement import backward_margins
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.layers import Dense
from qverify.network import Network
from qverify.onnx import reader as onnx_io
from qverify.verification import attack, guides
from qverify.verification.attack import GUIDED, QUICK
from qverify.verification.between import BetweenEnds
from qverify.verification.setup import Setup
from qverify.verification.verdict import Options
from tests.support.networks import NETWORKS, inputs, mlp
from tests.support.paths import DIGITS

RADII = Radii(0.02, 0.02, 0.02, 0.02)


def always_on(rng: np.random.Generator) -> Network:
    """A network whose Relus never cut anything off: lines are exact, and so is BP where no weight meets |x|."""
    network = mlp(rng, 4, 6, 5, 3)
    lifted: dict[int, Any] = {}
    for i, layer in enumerate(network.layers[:-1]):
        if isinstance(layer, Dense):
            lifted[i] = replace(layer, bias=layer.bias + 20.0)
    return network.with_layers(lifted)


def asked(network: Network, x: Any, radii: Radii) -> tuple[Setup, Bounds, torch.Tensor, torch.Tensor]:
    """A family, IBP, labels, and BP's bounds on the margins."""
    setup = Setup(network, radii, Options(jobs=1))
    bounds, labels = setup.intervals(x), torch.as_tensor(network.evaluate(x).argmax(1))
    return setup, bounds, labels, backward_margins(setup.model, bounds, labels)


def test_where_lines_are_exact_the_first_member_attains_the_bound(rng: np.random.Generator) -> None:
    """For each rival, without a step of descent: by formula (1) every neuron takes its ends on its own."""
    network, last = always_on(rng), 5
    x = np.abs(np.concatenate([inputs(network, rng) for _ in range(4)])) + 0.1
    setup, bounds, labels, lower = asked(network, x, RADII)
    for rival in range(3):
        some = torch.nonzero(labels != rival).squeeze(1)
        own, target = bounds.take(some), torch.full_like(some, rival)
        positions = guides.feared(setup.model, own, labels[some], target)
        assert (positions.neuron[last].abs().sum(1) == 2).all()  # the label low, the rival high
        y = BetweenEnds(setup.model, own, positions).run()
        margin = y.gather(1, labels[some, None]).squeeze(1) - y[:, rival]
        assert torch.allclose(margin, lower[some, rival], rtol=1e-5, atol=1e-5)
        assert (margin >= lower[some, rival]).all()


@pytest.mark.parametrize("name", ["dense", "residual", "conv_pool", "conv_max_pool", "joined", "leaky_clip"])
def test_members_found_are_members(name: str, rng: np.random.Generator) -> None:
    """With the margin of a plain forward pass, and none below the bounds on it."""
    network = NETWORKS[name](rng)
    x = np.concatenate([inputs(network, rng) for _ in range(3)])
    setup, bounds, labels, lower = asked(network, x, Radii(0.1, 0.1, 0.1, 0.1))
    every = torch.full_like(lower, -1.0).scatter(1, labels[:, None], torch.inf)
    found = attack.attack(setup.model, bounds, labels, every, pace=GUIDED)
    assert bool(found.margin.isfinite().all()) and bool((found.margin >= lower.amin(1)).all())
    for k in range(len(x)):
        witness = found.recipe(setup.family, x[k], int(labels[k]), k).witness()
        assert membership(setup.family, witness.network, x[k], witness.input) == []
        assert witness.margin == pytest.approx(float(found.margin[k]), abs=1e-9)


def test_they_break_what_attacks_from_the_middle_leave() -> None:
    network, samples = onnx_io.load(DIGITS), datasets.load("digits")
    x = samples.x[:300].reshape(300, -1)
    setup, bounds, labels, lower = asked(network, x, Radii.from_bits(5))
    broken = {}
    for pace in (GUIDED, replace(QUICK, starts=3, steps=12)):
        broken[pace] = attack.attack(setup.model, bounds, labels, lower, pace=pace).margin <= 0
    guided, middle = broken.values()
    assert int((guided & ~middle).sum()) > 2 * int((middle & ~guided).sum())


def test_rivals_that_cannot_win_are_left_alone(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp(rng, 5, 9, 6, 4)
    x = inputs(network, rng)
    setup, bounds, labels, lower = asked(network, x, Radii(1e-6, 1e-6, 1e-6, 1e-6))
    aims: list[Any] = []
    real = guides.feared

    def noted(model: BoundModel, bounds: Bounds, labels: torch.Tensor, rivals: torch.Tensor, *more: Any) -> Any:
        aims.append((len(bounds), rivals.tolist()))
        return real(model, bounds, labels, rivals, *more)

    monkeypatch.setattr(attack, "feared", noted)
    assert bool((lower > 0).all())
    attack.attack(setup.model, bounds, labels, lower, pace=GUIDED)
    assert aims == []
    lower[0, int(labels[0] == 0)] = -1.0
    attack.attack(setup.model, bounds, labels, lower, pace=GUIDED)
    assert aims == [(1, [int(labels[0] == 0)])]
