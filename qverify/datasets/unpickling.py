"""The Python batches of CIFAR-10, which are pickles: read without calling or importing anything that they name."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np

from qverify.errors import DataError

CIFAR_SHAPE = (3, 32, 32)


def read_batch(name: str, content: bytes) -> tuple[Any, list[int]]:
    """The images (N, 3072) uint8 and the N labels of one batch. Raises DataError for anything else."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    except _ForbiddenName as error:
        raise DataError(f"{name} asks for {error}, which no batch needs; fetch CIFAR-10 again.") from error
    except Exception as error:  # A damaged pickle raises nearly anything
        raise DataError(
            f"{name} is not a readable batch of CIFAR-10 ({type(error).__name__}); fetch it again."
        ) from error
    # Python 2 wrote the keys as bytes, and so did the publisher.
    fields = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    data, labels = fields.get("data"), fields.get("labels")
    x = data.array if isinstance(data, _Array) else None
    size = math.prod(CIFAR_SHAPE)
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.shape[1] != size:
        raise DataError(f"{name} holds no data of {size} bytes an image; fetch CIFAR-10, not another set.")
    if not isinstance(labels, list) or any(type(label) is not int for label in labels):
        raise DataError(f"{name} holds no list of whole numbers as labels; fetch CIFAR-10, not another set.")
    if len(x) != len(labels):
        raise DataError(f"{name} holds {len(x)} images but {len(labels)} labels; fetch it again.")
    return x, labels


class _ForbiddenName(pickle.UnpicklingError):
    """A pickle names something that is no part of an array."""


class _BatchUnpickler(pickle.Unpickler):
    """Reads arrays of bytes, and what needs no name: dictionaries, lists, numbers, text.

    The names that arrays need get stand-ins. numpy's own would take the flags of a type from the pickle, and with
    false ones plain bytes would be followed as pointers.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _ForbiddenName(repr(f"{module}.{name}"[:80]))
        return _STAND_INS[module, name]


class _Type:
    """Stands in for numpy.dtype: its name only. Its state is byte order and flags, which bytes do not have."""

    def __init__(self, name: str | bytes, *_: object):
        self.name = _text(name)

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands in for numpy.ndarray, made empty and filled by its state."""

    array: Any = None

    def __init__(self, *_: object):
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_columns, content = state
        if kind.name != "u1":
            raise ValueError("not an array of unsigned bytes")
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_columns else "C")


def _from_buffer(content: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> _Array:
    """Stands in for numpy's function of nearly this name, which protocol 5 uses."""
    array = _Array()
    array.__setstate__((1, shape, kind, order == "F", content))
    return array


def _encode(text: str, _: str) -> bytes:
    """Stands in for _codecs.encode, by which protocols before 3 wrote bytes."""
    return text.encode("latin-1")


def _text(key: Any) -> Any:
    return key.decode("latin-1") if isinstance(key, bytes) else key


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}
