"""qverify: an exact verifier for neural networks under quantisation."""

__version__ = "0.1.0"
