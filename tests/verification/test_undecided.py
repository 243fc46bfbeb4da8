"""Samples on their way: which are open, what they have left, and that parts of a batch are put together again."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from qverify.bounds.tensors import Bounds
from qverify.verification.undecided import Batch
from qverify.verification.verdict import Status

COUNT = 7


@pytest.fixture
def batch() -> Batch:
    """Samples whose bounds say which sample they are of."""
    numbers = torch.arange(COUNT, dtype=torch.float64)[:, None]
    found = Batch(
        start=100,
        x=np.arange(COUNT)[:, None] * 1.0,  # type: ignore[arg-type]
        labels=np.arange(COUNT) % 3,  # type: ignore[arg-type]
        predicted=np.arange(COUNT) % 2,  # type: ignore[arg-type]
        lower=np.arange(3 * COUNT).reshape(COUNT, 3) * 1.0,  # type: ignore[arg-type]
        attained=np.arange(COUNT) + 50.0,  # type: ignore[arg-type]
        seconds=np.zeros(COUNT),
        open=np.arange(COUNT),
    )
    found.bounds = Bounds(lower=[numbers], upper=[numbers + 1], activation={1: numbers})
    return found


def of(bounds: Bounds) -> list[int]:
    return [int(number) for number in bounds.lower[0]]


def test_bounds_go_with_the_open_samples(batch: Batch) -> None:
    batch.keep(np.array([True, False, True, True, False, True, False]))
    assert batch.open.tolist() == of(batch.bounds) == [0, 2, 3, 5]
    batch.keep(np.array([False, False, True, True]))
    assert batch.open.tolist() == of(batch.bounds) == [3, 5]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_parts_come_together_again(size: int, batch: Batch) -> None:
    parts = batch.parts(size)
    assert [len(part.open) for part in parts[:-1]] == [size] * (len(parts) - 1)
    for part in parts:
        assert part.open.tolist() == of(part.bounds)
        part.attained[part.open[0]] = -1.0  # shared with the whole batch
        part.keep(np.arange(len(part.open)) % 2 == 0)
    parts[0].cut = True
    batch.join(parts)
    assert batch.open.tolist() == of(batch.bounds) == [s for s in range(COUNT) if (s % size) % 2 == 0]
    assert batch.cut and (batch.attained[::size] == -1.0).all()


def test_time_is_shared_by_the_open_samples(batch: Batch) -> None:
    batch.keep(np.arange(COUNT) < 4)
    batch.spent(time.perf_counter() - 40.0)
    assert batch.seconds[:4] == pytest.approx(10.0, abs=0.5) and (batch.seconds[4:] == 0).all()
    assert batch.left(None) is None
    assert batch.left(15.0) == pytest.approx(20.0, abs=2.0)
    batch.seconds[0] = 1000.0  # what one has taken too much is not taken from the others
    assert batch.left(15.0) == pytest.approx(15.0, abs=2.0)


def test_a_verdict_has_the_numbers_of_its_sample(batch: Batch) -> None:
    found = batch.verdict(4, Status.UNKNOWN, "bp", detail="why")
    assert (found.index, found.label, found.predicted) == (104, 1, 0)
    assert (found.margin_lower, found.margin_upper) == (12.0, 54.0)
    assert (found.status, found.method, found.detail, found.recipe) == (Status.UNKNOWN, "bp", "why", None)
