"""TFLite files to networks (`load`): the optional extra `pip install 'qverify[tflite]'`."""

from qverify.tflite.reader import load

__all__ = ["load"]
