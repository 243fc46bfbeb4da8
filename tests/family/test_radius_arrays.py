"""What is taken for a radius, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import Array
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.radius_arrays import radius_array
from tests.support.networks import mlp


def test_a_truth_value_is_no_radius() -> None:
    network = mlp(np.random.default_rng(0), 2, 3, 2)
    for wrong in (True, [True, False]):
        with pytest.raises(RadiiError, match="not a number"):
            Family.of(network, Radii(input=wrong))


@pytest.mark.parametrize(
    ("value", "shape", "expected"),
    [
        (0.5, (2, 3), np.full((2, 3), 0.5)),
        ([1, 2], (2, 3), [[1, 1, 1], [2, 2, 2]]),  # 1-d runs along the channels
        ([1.0, 2.0], (2,), [1, 2]),
        ([1, 2], (2, 2), [[1, 1], [2, 2]]),
        ([[1, 2]], (2, 2), [[1, 2], [1, 2]]),  # 2-d broadcasts
        (np.float32(2), (1, 1), [[2]]),
        (torch.tensor([1.0, 2.0]), (2, 1), [[1], [2]]),
    ],
)
def test_radii_take_the_shape_of_their_tensor(
    value: Any, shape: tuple[int, ...], expected: Array | list[int | list[int]]
) -> None:
    found = radius_array(value, shape, "weight")
    assert found.shape == shape and found.dtype == np.float64 and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("0.5", "is not a number or a rectangular array of numbers"),
        ([[1.0], [1.0, 2.0]], "is not a number or a rectangular array of numbers"),
        (torch.ones(2, requires_grad=True), "is not a number or a rectangular array of numbers"),
        ([0.1, np.nan], "holds NaN or infinity"),
        (10**400, "holds NaN or infinity"),
        (-1e-300, "is negative"),
        ([1, 2, 3], "fits neither the tensor"),
    ],
)
def test_what_is_no_radius_is_refused(value: Any, sentence: str) -> None:
    with pytest.raises(RadiiError, match=f"^The bias radius .*{sentence}"):
        radius_array(value, (2, 2), "bias")
