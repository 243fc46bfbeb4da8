"""Arguments of the library's functions, checked before the work begins: samples, labels, callbacks, device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qverify import datasets
from qverify.errors import DataError, RadiiError, UsageError
from qverify.family.radii import Radii
from qverify.kinds import NETWORK, OPTIONS, RADII, described, expected
from qverify.network import Network
from qverify.text.escapes import shown
from qverify.verification.verdict import Options

if TYPE_CHECKING:
    from qverify.arrays import Array


def checked(network: Network, x: Any, y: Any) -> tuple[Array, Any]:
    """Samples x (N, n_in) in float64 and labels y (N,) that fit the network.

    Raises DataError, and UsageError for what is no network.
    """
    flat, y = checked_inputs(network, x), label_array(y)
    y = y[:, 0] if y.shape[1:] == (1,) else y
    if y.shape != (len(flat),) or y.dtype.kind not in "ui" or (y < 0).any() or (y >= 2**31).any():
        raise DataError(f"The labels have shape {y.shape} and type {y.dtype}; give ({len(flat)},) integers from 0.")
    return datasets.fit(datasets.Samples("the data", flat, y.astype(np.int64), "", "memory"), network)


def checked_inputs(network: Network, x: Any) -> Array:
    """Samples x (N, n_in) in float64 that fit the network; of several inputs perhaps by their names.

    Raises DataError, and UsageError for what is no network.
    """
    expected(network, Network, "The network", NETWORK)
    x = network.joined(x)
    if x.ndim < 2 or not x.size:
        raise DataError(f"The samples have shape {x.shape}; give (N, ...) with at least one sample.")
    if not np.isfinite(x).all():
        raise DataError("The samples hold NaN or infinite values; repair the data.")
    none = np.zeros(len(x), dtype=np.int64)
    return datasets.flatten(datasets.Samples("the data", x, none, "", "memory"), network)


def label_array(y: Any) -> Any:
    """Labels as an array of whatever type they have. Raises DataError."""
    try:
        return np.asarray(y)
    except (TypeError, ValueError, RuntimeError):  # lists of several lengths, a tensor that wants its gradient
        raise DataError(f"The labels are {described(y)}; give (N,) integers from 0.") from None


def callbacks(stop: Any, **functions: Any) -> None:
    """Raise UsageError unless `stop` is an event, and `functions` can be called; all may be None."""
    if stop is not None and not callable(getattr(stop, "is_set", None)):
        raise UsageError(f"stop is {described(stop)}; give a threading.Event, or leave it out.")
    for name, function in functions.items():
        if function is not None and not callable(function):
            raise UsageError(f"{name} is {described(function)}; give a function, or leave it out.")


def checked_question(network: Any, radii: Any, options: Any, stop: Any) -> None:
    """Raise UsageError, or RadiiError for the radii, unless these are what they are called."""
    expected(network, Network, "The network", NETWORK)
    expected(radii, Radii, "radii", RADII, RadiiError)
    expected(options, Options, "options", OPTIONS)
    callbacks(stop)


def usable_device(name: str) -> str:
    """The device `name`, if torch can compute in float64 there. Raises UsageError."""
    expected(name, str, "The device", "'cpu' or 'cuda'")
    try:
        torch.zeros(1, dtype=torch.float64, device=name).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"The device {shown(name)} cannot be used ({reason}); use --device cpu.") from None
    return name
