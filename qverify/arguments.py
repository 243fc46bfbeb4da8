"""What the functions of the library are given, checked before the work begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qverify import datasets
from qverify.errors import DataError, UsageError
from qverify.network import Array, Network


def checked(network: Network, x: Any, y: Any) -> tuple[Array, Any]:
    """x (N, n_in) float64 and y (N,) that fit the network; raises DataError."""
    flat, y = checked_inputs(network, x), np.asarray(y)
    y = y[:, 0] if y.shape[1:] == (1,) else y
    if y.shape != (len(flat),) or y.dtype.kind not in "ui" or (y < 0).any() or (y >= 2**31).any():
        raise DataError(f"The labels have shape {y.shape} and type {y.dtype}; give ({len(flat)},) integers from 0.")
    return datasets.fit(datasets.Samples("the data", flat, y.astype(np.int64), "", "memory"), network)


def checked_inputs(network: Network, x: Any) -> Array:
    """x as (N, n_in) float64 that fits the network; raises DataError."""
    try:
        x = np.asarray(x)
        if x.dtype.kind not in "biuf":
            raise TypeError
        x = x.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError("The samples are not a rectangular array of numbers; give (N, ...).") from None
    if x.ndim < 2 or not x.size:
        raise DataError(f"The samples have shape {x.shape}; give (N, ...) with at least one sample.")
    if not np.isfinite(x).all():
        raise DataError("The samples hold NaN or infinite values; repair the data.")
    none = np.zeros(len(x), dtype=np.int64)
    return datasets.flatten(datasets.Samples("the data", x, none, "", "memory"), network)


def usable_device(name: str) -> str:
    """`name`, if torch can compute in float64 there; raises UsageError."""
    try:
        torch.zeros(1, dtype=torch.float64, device=name).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"The device {name!r} cannot be used ({reason}); use --device cpu.") from None
    return name
