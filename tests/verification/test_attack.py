"""The attack alone: that it goes on with what holds and lets go of what is broken. What it finds is checked by
test_cascade.py, against members replayed by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.family.family import Family
from qverify.family.members import membership
from qverify.family.radii import Radii
from qverify.network import Network, margins
from qverify.verification import attack as module
from qverify.verification.attack import Attack
from qverify.verification.positions import Positions
from tests.support.networks import NETWORKS, inputs, mlp, random_points, random_radii


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The number of members in every forward pass of a descent, as it is made."""
    counts: list[int] = []
    outputs = module._Descent.outputs

    def counted(self: module._Descent, model: BoundModel, positions: Positions) -> torch.Tensor:
        counts.append(len(positions.entry))
        return outputs(self, model, positions)

    monkeypatch.setattr(module._Descent, "outputs", counted)
    return counts


def attacked(
    network: Network, x: Array, labels: np.ndarray, radii: Radii, pace: module.Pace = module.QUICK
) -> tuple[Family, Attack]:
    family = Family.of(network, radii)
    model = BoundModel.of(family, "cpu")
    low, high = family.box(x)
    bounds = interval_bounds(model, model.tensor(low), model.tensor(high))
    rivals = torch.zeros(len(x), network.output_size, dtype=model.dtype)
    return family, module.attack(model, bounds, torch.as_tensor(labels), rivals, pace=pace)


def samples(rng: np.random.Generator, count: int = 30) -> tuple[Network, Array, Array]:
    network = mlp(rng, 5, 9, 6, 4)
    x = np.concatenate([inputs(network, rng) for _ in range(count)])[:count]
    return network, x, network.evaluate(x)


@pytest.mark.parametrize("grid", [False, True], ids=["any", "grid"])
@pytest.mark.parametrize("name", ["dense", "residual", "conv_pool", "add_last"])
def test_members_at_rounding_points_are_those_that_are_made(name: str, grid: bool, rng: np.random.Generator) -> None:
    """The margin of the descent is that of a plain forward pass of the member, which lies in the family."""
    network = NETWORKS[name](rng)
    x = inputs(network, rng)
    labels = network.evaluate(x).argmax(1)
    radii = replace(random_radii(network, rng, 0.05), points=random_points(network, rng, grid))
    radii = replace(radii, points={n: replace(p, step=0.0) if p.entry else p for n, p in radii.points.items()})
    family, found = attacked(network, x, labels, radii)
    for k in range(len(x)):
        witness = found.recipe(family, x[k], int(labels[k]), k).witness()
        assert membership(family, witness.network, x[k], witness.input) == []
        assert witness.margin == pytest.approx(float(found.margin[k]), abs=1e-9)


def test_what_is_broken_at_once_is_evaluated_once(rng: np.random.Generator, evaluated: list[Any]) -> None:
    network, x, outputs = samples(rng)
    _, found = attacked(network, x, outputs.argmin(1), Radii(0.01, 0.01, 0.01, 0.01))
    assert evaluated == [len(x)]
    assert (found.margin.numpy() < 0).all()


def test_what_holds_goes_through_every_start(rng: np.random.Generator, evaluated: list[Any]) -> None:
    network, x, outputs = samples(rng)
    _, found = attacked(network, x, outputs.argmax(1), Radii(1e-9, 1e-9, 1e-9, 1e-9))
    assert (found.margin.numpy() > 0).all()
    first, others = ([len(x) * n] * (module.QUICK.steps + 1) for n in (1, module.QUICK.starts - 1))
    assert evaluated == first + others


def test_starts_one_by_one_and_side_by_side_find_the_same(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x, outputs = samples(rng, 40)
    given = (network, x, outputs.argmax(1), Radii(0.01, 0.01, 0.01, 0.01))
    _, together = attacked(*given)
    monkeypatch.setattr(module, "_TOGETHER", 0)
    _, alone = attacked(*given)
    held = (together.margin > 0) & (alone.margin > 0)
    assert int(held.sum()) > 3 and torch.equal(together.margin > 0, alone.margin > 0)
    assert torch.allclose(together.margin, alone.margin, rtol=1e-4, atol=1e-5)  # float32, in other batches


def test_the_first_start_that_breaks_a_sample_counts(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else is in the batch, and so whether starts go on side by side or not."""

    def starts(model: Any, bounds: Any, labels: torch.Tensor, *_: Any) -> Iterator[Any]:
        for margin in (-1.0, -2.0):
            yield torch.full((len(labels),), margin, dtype=model.dtype), Positions.middle(model, len(labels))

    monkeypatch.setattr(module, "_side_by_side", starts)
    network, x, outputs = samples(rng)
    _, found = attacked(network, x, outputs.argmax(1), Radii(1e-9, 1e-9, 1e-9, 1e-9))
    assert (found.margin == -1.0).all()


def test_every_sample_keeps_its_own_member(rng: np.random.Generator, evaluated: list[Any]) -> None:
    """Broken on the way or never: the members kept are those whose margins are reported, sample by sample."""
    network, x, outputs = samples(rng, 60)
    labels = outputs.argmax(1)
    family, found = attacked(network, x, labels, Radii(0.01, 0.01, 0.01, 0.01))
    broken = int((found.margin < 0).sum())
    assert len(set(evaluated)) >= 2 and 10 < broken < 50  # some leave on the way, and others never do
    for i, margin in enumerate(found.margin.tolist()):
        witness = found.recipe(family, x[i], int(labels[i]), i).witness()
        assert membership(family, witness.network, x[i], witness.input) == []
        output = witness.network.evaluate(witness.input[None])
        assert abs(margins(output, labels[[i]])[0] - margin) < 1e-9
