"""Steps with gradients written out: the values and gradients that torch finds from the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qverify.bounds.fused import above, input_rows, relu_rows, rows_where
from qverify.bounds.lines import ReluLines

Rng = np.random.Generator
SHAPE = (2, 3, 7)


def numbers(rng: Rng, *shape: int, least: float = -1.0) -> torch.Tensor:
    return torch.tensor(rng.uniform(least, 1.0, shape or SHAPE), requires_grad=True)


def agree(found: torch.Tensor, expected: torch.Tensor, leaves: list[torch.Tensor], rng: Rng) -> None:
    """Values, and gradients of any weighted sum."""
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.tensor(rng.normal(size=found.shape))
    mine, theirs = (torch.autograd.grad((weight * one).sum(), leaves, retain_graph=True) for one in (found, expected))
    for one, other in zip(mine, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [3, 1])
def test_rows_on_a_relu(rng: Rng, rows: int) -> None:
    a, share = numbers(rng), numbers(rng, 2, rows, 7, least=0.0)
    free, active, slope, lift, radius = (numbers(rng, 2, 1, 7, least=0.0).detach() for _ in range(5))
    lines = ReluLines(usual=share, free=free, active=active, slope=slope, lift=lift, radius=radius)
    alpha, up = share * free + active, a > 0
    expected = torch.where(up, a * alpha, a * slope)
    constant = torch.where(up, -radius * a * alpha, lift * a).sum(2)
    found = relu_rows(a, share, lines)
    agree(found[0], expected, [a, share], rng)
    agree(found[1], constant, [a, share], rng)
    both = torch.cat([found[0], found[1].unsqueeze(2)], 2), torch.cat([expected, constant.unsqueeze(2)], 2)
    agree(*both, [a, share], rng)


@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_rows_on_the_input(rng: Rng, single: bool, signed: bool) -> None:
    """Oracle: the least of the values at both ends, and at 0 where that is inside and the rows are convex."""
    lower, width = rng.uniform(-1.0, 0.4, (2, 1, 7)), rng.uniform(0.0, 1.0, (2, 1, 7))
    low, high = (torch.tensor(end) for end in (lower, lower + width))
    box = ((low + high) / 2, (high - low) / 2, (low.abs() + high.abs()) / 2, (high.abs() - low.abs()) / 2)
    c, e = numbers(rng), numbers(rng, 2, 3, 1 if single else 7, least=-1.0 if signed else 0.0)
    inside = (low < 0) & (high > 0)
    ends = torch.minimum(c * low - e * low.abs(), c * high - e * high.abs())
    least = torch.where(inside & (e < 0) & (ends > 0), torch.zeros_like(ends), ends) if signed else ends
    agree(input_rows(c, e, box, inside.to(c.dtype) if signed else None), least.sum(2), [c, e], rng)


def test_what_is_above_0() -> None:
    x: Any = torch.tensor([-1.0, -0.0, 0.0, 1e-30, 3.0, torch.inf, -torch.inf])
    assert above(x).tolist() == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_rows_that_are_not_chosen_leave_no_trace() -> None:
    """Not even NaN: a search that overflows must not spoil what it has found."""
    kept, new = torch.zeros(2, 2, 3), torch.full((2, 2, 3), torch.nan)
    new[1, 0] = 1.0
    found = rows_where(torch.tensor([[False, False], [True, False]]), new, kept)
    assert found[1, 0].tolist() == [1.0] * 3 and float(found.sum()) == 3.0
