"""Robust training, on the very bounds that verify."""

from qverify.training.loop import Epoch, Training
from qverify.training.settings import Settings

__all__ = ["Epoch", "Settings", "Training"]
