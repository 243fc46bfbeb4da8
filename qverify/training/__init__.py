"""Robust training, on the very bounds that verify."""

from qverify.training.loop import Epoch, Settings, Training

__all__ = ["Epoch", "Settings", "Training"]
