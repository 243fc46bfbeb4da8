"""Samples and labels: the digits that ship with qverify, three other sets by name, and any `.npz`."""

from qverify.datasets.samples import NAMES, Samples, fit, flatten, load, load_at, load_train, scaled, select

__all__ = ["NAMES", "Samples", "fit", "flatten", "load", "load_at", "load_train", "scaled", "select"]
