"""ONNX files to networks (`load`) and back (`save`, `to_onnx`)."""

from qverify.onnx.reader import load
from qverify.onnx.writer import save, to_onnx

__all__ = ["load", "save", "to_onnx"]
