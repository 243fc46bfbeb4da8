"""JSON that qverify wrote and reads back strictly: what it would not write is not taken for what it wrote."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from qverify.text.escapes import shown
from qverify.text.shortened import VALUE

Fits = Callable[[Any], bool]
"""Whether a value may stand somewhere."""

_DIGITS = 20
"""Digits and sign of the longest 64-bit number: no more of a number are read, or shown in a message."""
_DEEPEST = 16
"""How deep objects and lists may lie in each other: four times as deep as they do."""


def parsed(content: bytes) -> dict[str, Any]:
    """The JSON object that `content` is in UTF-8, without NaN and infinity, without a key that stands twice.

    Its integers fit into 64 bits. Raises ValueError, which says in a few words what is wrong.
    """
    try:
        value = _DECODER.decode(content.decode())
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8") from None
    except json.JSONDecodeError:
        raise ValueError("it is no JSON") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    if _deep(value):
        raise ValueError("it is nested too deep")
    return value


def written(value: Any) -> str:
    """A value as JSON writes it, for a message; short."""
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else shown(value, VALUE)


def faults(value: Any, table: Mapping[str, Fits], needed: Collection[str] = ()) -> list[str]:
    """The keys of `table` under which `value` has what does not fit; of those `needed`, also what is not there."""
    own = value if isinstance(value, dict) else {}
    return [key for key, fits in table.items() if (key in own or key in needed) and not fits(own.get(key))]


# -- what may stand somewhere ---------------------------------------------------------------------


def text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def truth(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def whole(value: Any) -> bool:
    """Whether a value is a whole number of at least 0 that every reader of JSON has exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf


def positive(value: Any) -> bool:
    """Whether a value is a finite number above 0."""
    return number(value) and value > 0


def at_least_0(value: Any) -> bool:
    """Whether a value is a finite number of at least 0."""
    return number(value) and value >= 0


def word(*allowed: str) -> Fits:
    """A check for one of some words."""
    return lambda value: isinstance(value, str) and value in allowed


def optional(fits: Fits) -> Fits:
    """A check for null, or what fits."""
    return lambda value: value is None or fits(value)


def every(fits: Fits) -> Fits:
    """A check for a list of what fits."""
    return lambda value: isinstance(value, list) and all(map(fits, value))


def ascending(fits: Fits) -> Fits:
    """A check for a list of two, the smaller one first."""
    return lambda value: every(fits)(value) and len(value) == 2 and value[0] < value[1]


def mapping(fits: Fits, *keys: str) -> Fits:
    """A check for an object of what fits, under any keys or only those named."""
    return lambda value: (
        isinstance(value, dict) and all(map(fits, value.values())) and (not keys or value.keys() <= set(keys))
    )


# -- hooks of the parser --------------------------------------------------------------------------


def _constant(name: str) -> Any:
    raise ValueError(f"it has {name} for a number")


def _float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{shown(digits, _DIGITS)} is too large")
    return value


def _int(digits: str) -> int:
    if len(digits) > _DIGITS or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"{shown(digits, _DIGITS)} is too large")
    return int(digits)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {shown(twice, VALUE)} stands twice")
    return found


def _deep(value: Any) -> bool:
    """Whether objects and lists lie in each other deeper than they may."""
    level = [value]
    for _ in range(_DEEPEST):
        inner = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for parts in inner for one in parts if isinstance(one, (dict, list))]
        if not level:
            return False
    return True


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_int, object_pairs_hook=_distinct)
