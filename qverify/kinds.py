"""Arguments of the wrong kind, refused in one sentence that says what was wanted and what came."""

from __future__ import annotations

import math
import os
from numbers import Integral, Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

from qverify.errors import QVerifyError, UsageError
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Collection

NETWORK = "a Network, as qverify.load gives"
RADII = "Radii, such as qverify.Radii.from_bits(8)"
OPTIONS = "qverify.Options(), or leave it out"
SAMPLES = "Samples, as qverify.datasets.load gives"


def expected(value: Any, kinds: Any, what: str, wanted: str, error: type[QVerifyError] = UsageError) -> None:
    """Raise `error` unless `value` is of `kinds`; truth values are no numbers."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise error(f"{what} is {described(value)}; give {wanted}.")


def path_like(value: Any, what: str, wanted: str, error: type[QVerifyError] = UsageError) -> None:
    """Raise `error` unless `value` is text or a path."""
    expected(value, (str, os.PathLike), what, wanted, error)


def whole_numbers(value: Any, what: str, error: type[QVerifyError] = UsageError, length: int | None = None) -> None:
    """Raise `error` unless `value` is a tuple or list of so many whole numbers, as a shape is."""
    fits = isinstance(value, (tuple, list)) and all(is_whole(one) for one in value)
    if not fits or len(value) != (len(value) if length is None else length):
        count = "" if length is None else f"{length} "
        raise error(f"{what} is {described(value)}; give a tuple of {count}whole numbers.")


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number that fits into 64 bits."""
    return isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63


def is_number(value: Any) -> bool:
    """Whether `value` is a real number and not NaN; no truth value, and no integer beyond float64."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def is_pair(value: Any) -> bool:
    """Whether `value` is a tuple or list of two numbers."""
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(is_number(end) for end in value)


def clipping_range(value: Any, error: type[QVerifyError]) -> None:
    """Raise `error` unless it is None or two numbers, the smaller one first."""
    if value is None:
        return
    fits = isinstance(value, (tuple, list)) and len(value) == 2
    if not fits or not all(is_number(end) or isinstance(end, float) for end in value):
        raise error(f"The input range to clip to is {described(value)}; give two numbers.")
    if not value[0] < value[1]:
        raise error(f"The input range to clip to, {value[0]:g} to {value[1]:g}, is empty.")


def is_word(value: Any, allowed: Collection[str]) -> bool:
    """Whether `value` is one of some words; an array, which compares element by element, is none."""
    return isinstance(value, str) and value in allowed


def number_as_is(value: Any) -> str:
    """A number as people write it, anything else as `described`."""
    return f"{value:g}" if isinstance(value, float) or is_number(value) else described(value)


def described(value: Any) -> str:
    """A value in a message: a short one as it is, of a larger one its type."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, ModuleType):
        return f"the module {shown(value.__name__)}"
    if isinstance(value, type):
        return f"the class {_name(value)}"
    if isinstance(value, (int, float, str, bytes, os.PathLike, tuple, list, dict, set)):
        return f"the {type(value).__name__} {shown(value)}"
    return f"an object of type {_name(type(value))}"


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
