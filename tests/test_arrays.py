"""Arrays of numbers from whatever a caller has."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from qverify.arrays import freeze, frozen_array, numbers
from qverify.errors import DataError, ModelError


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 2], [3, 4]], [[1.0, 2.0], [3.0, 4.0]]),
        ((True, False), [1.0, 0.0]),
        (np.arange(3, dtype=np.uint8), [0.0, 1.0, 2.0]),
        (np.array([0.1], dtype=np.float32), [float(np.float32(0.1))]),
        (torch.tensor([[1.5]]), [[1.5]]),
        (2, 2.0),
        ([], []),
    ],
)
def test_numbers_of_any_kind_become_float64(values: Any, expected: Any) -> None:
    found = numbers(values, "x")
    assert found.dtype == np.float64 and found.tolist() == expected


@pytest.mark.parametrize(
    "values",
    [
        "text",
        ["1"],
        [[1], [1, 2]],
        [1, None],
        [1j],
        {"a": 1},
        None,
        object(),
        [Fraction(1, 2)],
        torch.ones(1, requires_grad=True),
    ],
)
def test_anything_else_is_refused_by_name(values: Any) -> None:
    with pytest.raises(DataError, match=r"^the weights: .* is not a rectangular array of numbers; give one"):
        numbers(values, "the weights")


def test_a_frozen_array_is_a_copy_that_nobody_can_change() -> None:
    own = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    frozen = frozen_array(own, "w")
    own[0, 0] = 9.0
    assert frozen.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]] and frozen.flags.c_contiguous
    with pytest.raises(ValueError, match="read-only"):
        frozen[0, 0] = 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_no_weights(bad: float) -> None:
    with pytest.raises(ModelError, match="w holds NaN or infinite numbers"):
        frozen_array([0.0, bad], "w")
    with pytest.raises(ModelError, match="not a rectangular array"):
        frozen_array(["a"], "w")


def layer(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(**({"name": "l", "inputs": (0,), "shape": (2,), "bias": [1, 2]} | changes))


def test_freeze_replaces_the_arrays_it_is_told_of() -> None:
    one = layer(other=[3])
    freeze(one, "bias")
    assert one.bias.tolist() == [1.0, 2.0] and not one.bias.flags.writeable and one.other == [3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 5}, "The name of a layer"),
        ({"inputs": (0.0,)}, "inputs of layer 'l'"),
        ({"shape": 2}, "shape of layer 'l'"),
        ({"bias": [np.nan]}, "bias of layer 'l'"),
    ],
)
def test_a_layer_is_what_it_is_called(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        freeze(layer(**changes), "bias")
