"""Arrays of numbers, from whatever a caller has."""

from __future__ import annotations

from typing import Any

import numpy as np

from qverify.errors import DataError, ModelError
from qverify.kinds import described, expected, whole_numbers

Array = np.ndarray[Any, np.dtype[np.float64]]


def numbers(values: Any, what: str) -> Array:
    """Read numbers as a float64 array; raises DataError for text, truth values beside others, and ragged lists."""
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "biuf":
            raise TypeError
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a tensor that wants its gradient
        raise DataError(f"{what}: {described(values)} is not a rectangular array of numbers; give one.") from None


def frozen_array(values: Any, what: str) -> Array:
    """A read-only, contiguous float64 copy; raises ModelError unless it holds finite numbers."""
    try:
        array = np.array(numbers(values, what), dtype=np.float64, order="C")
    except DataError as error:
        raise ModelError(str(error)) from None
    if not np.isfinite(array).all():
        raise ModelError(f"{what} holds NaN or infinite numbers; retrain or repair the model.")
    array.flags.writeable = False
    return array


def freeze(layer: Any, *names: str) -> None:
    """Make fields of a layer read-only arrays; raises ModelError where these, name, inputs or shape are wrong."""
    expected(layer.name, str, "The name of a layer", "text", ModelError)
    for name in ("inputs", "shape"):
        whole_numbers(getattr(layer, name), f"{name} of layer {layer.name!r}", ModelError)
    for name in names:
        array = frozen_array(getattr(layer, name), f"{name} of layer {layer.name!r}")
        object.__setattr__(layer, name, array)


def largest_two(values: Array) -> Array:
    """(c_out, ...) -> (c_out,): the sum of the two largest entries of each channel."""
    flat = np.sort(values.reshape(len(values), -1), axis=1)
    return np.asarray(flat[:, -2:].sum(axis=1))
