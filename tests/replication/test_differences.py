"""Lines around differences of two networks at a rounding point or a Relu: nothing lies outside."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from qverify.replication.differences import Deviation
from qverify.replication.relaxation import Staircase


def tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_nothing_that_may_be_lies_outside(behind: bool, seed: int) -> None:
    """Values, differences and errors drawn at random, at the ends and at kinks too."""
    rng = np.random.default_rng(seed)
    size, count = 8, 4000
    step = rng.choice([0.0, 0.1, 0.25], size)
    low = np.zeros(size) if behind else -rng.integers(0, 8, size) * np.where(step > 0, step, 0.1)
    high = np.where(rng.random(size) < 0.3, np.inf, rng.integers(1, 8, size) * np.where(step > 0, step, 0.1))
    radius = np.where(step > 0, 0.5 * step * rng.choice([1.0, 1.01, 2.0], size), rng.choice([0.0, 0.05], size))
    v = np.sort(rng.normal(size=(2, size)), axis=0)
    d = np.sort(rng.choice([0.02, 0.3, 2.0]) * rng.normal(size=(2, size)), axis=0)
    stairs = Staircase(step=tensor(step), low=tensor(low), high=tensor(high), radius=tensor(radius))
    deviation = Deviation(stairs=stairs, behind_relu=behind)
    box = tensor(d[0]), tensor(d[1])
    lines = deviation.lines(*box, (tensor(v[0]), tensor(v[1])))
    least, most = (end.numpy() for end in deviation.ends(*box, (tensor(v[0]), tensor(v[1]))))
    share = rng.choice([0.0, 1.0, 0.5, 0.2], (2, count, size))
    value, difference = v[0] + share[0] * (v[1] - v[0]), d[0] + share[1] * (d[1] - d[0])
    at_kink = rng.random((count, size)) < 0.2
    value = np.where(at_kink, np.clip(-difference, v[0], v[1]), value)
    moved = value + difference + rng.choice([-1.0, 0.0, 1.0], (count, size)) * radius
    safe = np.where(step > 0, step, 1.0)
    for rounded in (np.floor, np.ceil):
        second = np.where(step > 0, rounded(moved / safe) * safe, moved)
        within = abs(second - (value + difference)) <= radius + 1e-12
        second = np.minimum(np.maximum(second, low), high)
        gap = second - (np.maximum(value, 0.0) if behind else value)
        above = lines.upper_slope.numpy() * difference + lines.upper.numpy()
        below = lines.lower_slope.numpy() * difference + lines.lower.numpy()
        assert within.any()
        assert (gap <= above + 1e-9)[within].all() and (gap >= below - 1e-9)[within].all()
        assert (gap <= most + 1e-9)[within].all() and (gap >= least - 1e-9)[within].all()


def test_an_inactive_neuron_has_no_difference_and_an_active_one_only_its_own() -> None:
    stairs = Staircase.relu(2)
    lines = Deviation(stairs=stairs, behind_relu=True).lines(
        tensor([-0.1, -0.1]), tensor([0.1, 0.1]), (tensor([-2.0, 1.0]), tensor([-1.0, 2.0]))
    )
    assert lines.upper_slope.tolist() == [0.0, 1.0] == lines.lower_slope.tolist()
    assert lines.upper.numpy() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert lines.lower.numpy() == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_intervals_and_lines_are_met(behind: bool, seed: int) -> None:
    """Without radius and grid some v and d meet the ends of the interval, and every line touches; for any slope."""
    rng = np.random.default_rng(seed)
    high = float(rng.choice([np.inf, 0.7]))
    v, d = np.sort(rng.normal(size=2)), np.sort(rng.choice([0.2, 2.0]) * rng.normal(size=2))
    stairs = Staircase(
        step=tensor([0.0]), low=tensor([-0.0 if behind else -0.5]), high=tensor([high]), radius=tensor([0.0])
    )
    slopes = rng.random(2)
    deviation = Deviation(stairs=stairs, behind_relu=behind)
    box, values = (tensor([d[0]]), tensor([d[1]])), (tensor([v[0]]), tensor([v[1]]))
    lines = deviation.lines(*box, values, (tensor(slopes[:1]), tensor(slopes[1:])))
    corners = [[*ends, 0.0, 0.5, high] for ends in (v, d)]
    shares = np.linspace(0.0, 1.0, 401)
    value = np.clip(np.concatenate([v[0] + shares * (v[1] - v[0]), corners[0]]), *v)[:, None]
    first = np.maximum(value, 0.0) if behind else value
    change = np.clip(np.concatenate([d[0] + shares * (d[1] - d[0]), corners[1]]), *d)[None]
    change = np.concatenate([np.repeat(change, len(value), 0), np.clip(-value, *d), np.clip(high - value, *d)], axis=1)
    gap = np.clip(value + change, stairs.low.item(), high) - first
    least, most = (end.item() for end in deviation.ends(*box, values))
    assert [gap.min(), gap.max()] == pytest.approx([least, most], abs=1e-9)
    assert (gap - slopes[0] * change).min() == pytest.approx(lines.lower.item(), abs=1e-2 * (d[1] - d[0]))
    assert (gap - slopes[1] * change).max() == pytest.approx(lines.upper.item(), abs=1e-2 * (d[1] - d[0]))
