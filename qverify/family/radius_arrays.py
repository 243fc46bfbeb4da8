"""Radii as they are stated -> arrays of the shape of their tensor."""

from __future__ import annotations

from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import RadiiError

if TYPE_CHECKING:
    from qverify.arrays import Array


def radius_array(value: Any, shape: tuple[int, ...], what: str) -> Array:
    """The radius `value` as an array of `shape`; a 1-d value runs along the first axis (channels). Raises
    RadiiError."""
    try:
        if not _of_numbers(value):
            raise TypeError
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor that wants its gradient
        raise RadiiError(f"The {what} radius is not a number or a rectangular array of numbers.") from None
    except OverflowError:  # an integer beyond float64
        array = np.asarray(np.inf)
    if not np.isfinite(array).all():
        raise RadiiError(f"The {what} radius holds NaN or infinity; give finite numbers.")
    if (array < 0).any():
        raise RadiiError(f"The {what} radius is negative ({array.min():g}); a radius is a half-width, so at least 0.")
    if array.ndim == 1 and array.shape == shape[:1]:
        array = array.reshape(-1, *[1] * (len(shape) - 1))
    try:
        return np.ascontiguousarray(np.broadcast_to(array, shape))
    except ValueError:
        raise RadiiError(
            f"The {what} radius has shape {array.shape}, which fits neither the tensor {shape} nor its channels."
        ) from None


def _of_numbers(value: Any, depth: int = 64) -> bool:
    """Whether a value is a number, an array of numbers, or lists of either; text and truth values are none.

    numpy would take "0.5" for 0.5 and, among numbers, true for 1. `depth`: how many lists may lie in each other.
    """
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_of_numbers(one, depth - 1) for one in value)
    if isinstance(value, Number):
        return not isinstance(value, bool)
    array = np.asarray(value)
    return array.dtype.kind in "iuf" or (array.dtype.kind == "O" and array.ndim > 0 and _of_numbers(array.tolist()))
