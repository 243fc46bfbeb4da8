"""Where things lie: the checkout, and the package, which may be installed elsewhere."""

from __future__ import annotations

from pathlib import Path

import qverify

PACKAGE = Path(qverify.__file__).resolve().parent
"""The package that is tested: beside the tests, or where a wheel was installed."""
TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
MODELS = ROOT / "models"
RESULTS = ROOT / "results"
EXAMPLES = ROOT / "examples"
DIGITS = str(MODELS / "digits.onnx")
"""The small network that ships, as a command line names it."""
