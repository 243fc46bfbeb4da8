"""Accumulators by hand: at which inputs a sum leaves int32, and two products int16. Whole numbers: test_kernels.py."""

from __future__ import annotations

import numpy as np
import pytest

from qverify.bounds.accumulators import misfits
from qverify.bounds.interval import interval_bounds
from qverify.bounds.tensors import BoundModel
from qverify.choices import KernelMode
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Conv, Dense, Input, Relu
from qverify.network import Network

DATA = np.array([[0.0, 0.0], [1.0, 1.0]])
X = np.array([[0.1, 0.1], [0.45, 0.45], [0.55, 0.55], [0.9, 0.9], [0.9, 0.05]])


def network(weight: list[list[float]], bias: float) -> Network:
    """Two inputs, one hidden Relu, two outputs."""
    hidden = Dense("hidden", (0,), (1,), np.array(weight), np.array([bias]))
    last = Dense("last", (2,), (2,), np.array([[1.0], [0.0]]), np.zeros(2))
    return Network((Input("x", (), (2,)), hidden, Relu("relu", (1,), (1,)), last))


def reasons(network: Network, data: np.ndarray, x: np.ndarray, kernel: KernelMode, memory: int = 1 << 30) -> list[str]:
    family = Family.of(network, Radii.from_bits(8, "channel", "any", network, data, kernel))
    model = BoundModel.of(family, memory=memory)
    low, high = family.box(x.reshape(len(x), -1))
    return misfits(model, interval_bounds(model, model.tensor(low), model.tensor(high)))


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_sums_that_leave_int32(memory: int) -> None:
    """Weights of 255 steps, and a bias that leaves room for inputs of 255 steps in all: formulas (21) to (23)."""
    limit = (2**31 - 1) / 1.001
    bias = (limit - 255 * 255 - 1) / (255 * 255)
    found = reasons(network([[1.0, 1.0]], bias), DATA, X, "exact-accumulation", memory)
    expected = [sum(min(255 * (v + 1 / 255) + 1, 255) for v in row) > 255 for row in X]  # radius: a step, and slack
    assert expected == [False, False, True, True, False]
    assert [reason.startswith("bias and products of 'hidden' may leave int32") for reason in found] == expected
    assert all(bool(reason) == wrong for reason, wrong in zip(found, expected, strict=True))


@pytest.mark.parametrize("memory", [1 << 30, 1])
def test_pairs_that_leave_int16(memory: int) -> None:
    """Stored weights of up to 128 with inputs of up to 255 steps: a pair leaves int16 where the inputs are large."""
    found = reasons(network([[1.0, 1.0]], 0.0), DATA, X, "any", memory)
    expected = [128 * sum(min(255 * v + 2, 255) for v in row) > 2**15 - 1 for row in X]
    assert expected == [False, False, True, True, False]
    assert ["pairs of products of 'hidden'" in reason for reason in found] == expected
    assert reasons(network([[1.0, 1.0]], 0.0), DATA, X, "exact-accumulation", memory) == [""] * len(X)


def test_pairs_of_a_convolution_meet_the_largest_input_anywhere() -> None:
    """Each kernel entry may meet the large pixel, though no position reads it twice."""
    kernel = np.array([[[[1.0, 1.0]]]])
    layers = (
        Input("x", (), (1, 1, 4)),
        Conv("conv", (0,), (1, 1, 3), kernel, np.zeros(1), (1, 1, 4)),
        Relu("relu", (1,), (1, 1, 3)),
        Dense("last", (2,), (2,), np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), np.zeros(2)),
    )
    data = np.array([[[[0.0, 0.0, 0.0, 0.0]]], [[[1.0, 1.0, 1.0, 1.0]]]])
    x = np.array([[0.05, 0.05, 0.05, 0.05], [0.05, 0.9, 0.05, 0.05], [0.9, 0.05, 0.05, 0.05]])
    found = reasons(Network(layers), data, x, "any")
    assert ["'conv'" in reason for reason in found] == [False, True, False]


def test_a_relu_that_was_0_on_all_data_has_to_change_nothing() -> None:
    dead = network([[1.0, 1.0]], -1.2)
    data, x = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.5, 0.5], [1.0, 1.0]])
    found = reasons(dead, data, x, "exact-accumulation")
    assert "Relu 'relu' is 0 on all calibration data" in found[0] and "Relu" not in found[1]


def test_without_integer_kernels_there_is_nothing_to_say() -> None:
    family = Family.of(network([[1.0, 1.0]], 1e9), Radii(weight=0.1))
    model = BoundModel.of(family)
    low, high = family.box(X)
    bounds = interval_bounds(model, model.tensor(low), model.tensor(high))
    assert misfits(model, bounds) == [""] * len(X) and misfits(model, bounds.take(slice(0, 0))) == []
