"""Where things lie in the checkout."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
MODELS = ROOT / "models"
RESULTS = ROOT / "results"
DIGITS = str(MODELS / "digits.onnx")
"""The small network that ships, as a command line names it."""
