"""The one place where a model a user named becomes a network, by what is in it: ONNX or TFLite."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import TYPE_CHECKING

from qverify.errors import ModelError
from qverify.files.user import shown_path
from qverify.onnx import reader as onnx_reader

if TYPE_CHECKING:
    import onnx

    from qverify.network import Network

_TFLITE = b"TFL3"
"""What stands at byte 4 of a TFLite file."""


def load(source: str | os.PathLike[str] | onnx.ModelProto, output: str | None = None) -> Network:
    """Read an ONNX or TFLite file, by its content, or an ONNX model in memory, as a `Network`.

    `output`: the name of one of several outputs of an ONNX model. Guarantees and errors are those of
    `qverify.onnx.load` and `qverify.tflite.load`.
    """
    if isinstance(source, (str, os.PathLike)) and _beginning(source)[4:8] == _TFLITE:
        from qverify.tflite.reader import load as load_tflite  # an optional extra

        if output is not None:
            raise ModelError(f"{shown_path(source)} is a TFLite file, of which one output is read; leave out --output.")
        return load_tflite(source)
    return onnx_reader.load(source, output)


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
