"""Bounds on layers, cut and put together, and the rows that fit into the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qverify.bounds.cut import Cut
from qverify.bounds.tensors import BoundModel, Bounds
from qverify.family.family import Family
from qverify.family.radii import Radii
from tests.support.networks import mlp


def test_what_a_cut_widens_by() -> None:
    """Oracle: every value z in [lower, upper] that the range moves to its end, scanned; formula (29)."""
    low, high, gain = -0.5, 0.8, 1.3
    cut = Cut(
        source=1,
        low=torch.tensor([low], dtype=torch.float64),
        high=torch.tensor([high], dtype=torch.float64),
        gain=torch.tensor([gain], dtype=torch.float64),
    )
    for lower, upper in [(-2.0, -1.0), (-0.4, 0.5), (0.1, 2.0), (-3.0, 3.0), (-0.6, 0.1)]:
        found = float(cut.widening(*(torch.tensor([[end]], dtype=torch.float64) for end in (lower, upper))))
        z = np.linspace(lower, upper, 2001)
        clipped = np.clip(z, low, high)
        assert found == pytest.approx(gain * np.abs(clipped - z).max(), abs=1e-12)


def bounds(rng: np.random.Generator, count: int) -> Bounds:
    sizes = (3, 4, 2)
    lower = [torch.as_tensor(rng.normal(size=(count, n))) for n in sizes]
    radii = {1: torch.as_tensor(rng.random((count, 4))), 2: torch.as_tensor(rng.random(2))}
    return Bounds(lower=lower, upper=[t + 1.0 for t in lower], activation=radii)


def test_bounds_of_some_samples_and_of_one(rng: np.random.Generator) -> None:
    whole = bounds(rng, 6)
    assert len(whole) == 6
    again = Bounds.concatenate([whole.take(slice(0, 2)), whole.take(slice(2, 6))])
    chosen = whole.take(torch.tensor([4, 1]))
    one = whole.sample(4)
    for i in range(3):
        assert torch.equal(again.lower[i], whole.lower[i]) and torch.equal(again.upper[i], whole.upper[i])
        np.testing.assert_array_equal(one.lower[i], chosen.lower[i][0])
        np.testing.assert_array_equal(one.reach(i), np.maximum(abs(one.lower[i]), abs(one.upper[i])))
    assert torch.equal(again.activation[1], whole.activation[1])
    np.testing.assert_array_equal(one.activation[1], whole.activation[1][4])
    np.testing.assert_array_equal(one.activation[2], whole.activation[2])  # the same for all samples


def test_rows_that_fit_into_the_memory(rng: np.random.Generator) -> None:
    model = BoundModel.of(Family.of(mlp(rng, 4, 5, 3), Radii()), memory=8 * 10 * 7 * 3)
    assert model.operations == 4 * 5 + 5 * 3 + 1 and model.widest == 5
    assert model.rows_that_fit(10, 7, 1) == 3 and model.rows_that_fit(10, 70, 1) == 1
    model.memory = 1 << 62
    assert model.rows_that_fit(1, 1, 10**7) == int(2e9 / (10**7 * model.operations))
