"""The hash of a network: sha256 of a canonical encoding of all that its meaning, and its family, depend on.

Every value is written with its type and its length, every array with its dtype and shape, every field with its name:
two networks have one hash only if they agree in all of it. Of a `Network` everything counts but `source` and `notes`,
so also what the model's file had before it was folded, which radii are taken from.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import InternalError
from qverify.kinds import NETWORK, expected
from qverify.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qverify.layers import Layer

_FREE = ("source", "notes")
"""Fields of a `Network` that are for people."""
_LATER = ("grid", "parts", "composed")
"""Fields that count only where they are given: networks without them keep the hash they had before."""


def fingerprint(network: Network) -> str:
    """sha256 of the encoding: also tells apart models whose weights lie in another file."""
    expected(network, Network, "The network", NETWORK)
    digest = hashlib.sha256()
    for part in _object(network, _FREE):
        digest.update(part)
    return digest.hexdigest()


def encoding(layer: Layer, without: tuple[str, ...] = ()) -> bytes:
    """The canonical encoding of a layer, without some of its fields. Raises InternalError for values of other types."""
    return b"".join(_object(layer, without))


def _encoded(value: Any) -> Iterator[bytes]:
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value)
        yield from _sized("array", array.dtype.str.encode(), repr(value.shape).encode(), array.tobytes())
    elif is_dataclass(value) and not isinstance(value, type):
        yield from _object(value)
    elif isinstance(value, tuple):
        yield from _sized("tuple", str(len(value)).encode())
        for each in value:
            yield from _encoded(each)
    elif isinstance(value, (np.bool_, np.integer, np.floating)):
        yield from _encoded(value.item())
    elif value is None or isinstance(value, (bool, int, float, str)):
        yield from _sized(type(value).__name__, repr(value).encode())
    else:
        raise InternalError(f"A value of type {type(value).__name__} in a network has no encoding.")


def _object(value: Any, without: tuple[str, ...] = ()) -> Iterator[bytes]:
    kept = [field.name for field in fields(value) if field.name not in without]
    kept = [name for name in kept if name not in _LATER or getattr(value, name) is not None]
    yield from _sized("object", type(value).__name__.encode(), str(len(kept)).encode())
    for name in kept:
        yield from _sized("field", name.encode())
        yield from _encoded(getattr(value, name))


def _sized(kind: str, *parts: bytes) -> Iterator[bytes]:
    """Each part behind its length, so that no two sequences of parts are joined to the same bytes."""
    for part in (kind.encode(), *parts):
        yield len(part).to_bytes(8, "big")
        yield part
