"""The one place where a model a user named becomes a network, by what is in it: ONNX or TFLite."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import TYPE_CHECKING

from qverify.onnx import reader as onnx_reader

if TYPE_CHECKING:
    import onnx

    from qverify.network import Network

_TFLITE = b"TFL3"
"""What stands at byte 4 of a TFLite file."""


def load(source: str | os.PathLike[str] | onnx.ModelProto) -> Network:
    """Read an ONNX or TFLite file, by its content, or an ONNX model in memory, as a `Network`.

    Guarantees and errors are those of `qverify.onnx.load` and `qverify.tflite.load`.
    """
    if isinstance(source, (str, os.PathLike)) and _beginning(source)[4:8] == _TFLITE:
        from qverify.tflite.reader import load as load_tflite  # an optional extra

        return load_tflite(source)
    return onnx_reader.load(source)


def _beginning(path: str | os.PathLike[str]) -> bytes:
    """The first bytes of a file, unpacked; none where it cannot be read, which its reader says in a sentence."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
        if not start.startswith(b"\x1f\x8b"):
            return start
        with gzip.open(path) as unpacked:
            return unpacked.read(8)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
