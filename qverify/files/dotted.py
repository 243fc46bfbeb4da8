"""Objects within objects under one name each: `{"radii": {"bits": 8}}` has the entry `radii.bits`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def dotted(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of `record` and of all objects in it, under dotted keys; an object without entries has none."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def within(key: str, above: str) -> bool:
    """Whether a dotted key is `above` itself, or a key of an entry in it."""
    return key == above or key.startswith(f"{above}.")
