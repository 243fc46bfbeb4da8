"""The functions of `Activation` layers by name; function.py says what is known of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qverify.activations.piecewise import PIECEWISE
from qverify.activations.roots import ROOTS
from qverify.activations.smooth import SMOOTH

if TYPE_CHECKING:
    from qverify.activations.function import Function

FUNCTIONS: dict[str, Function] = PIECEWISE | SMOOTH | ROOTS
"""Every function by the name that `Activation.function` has."""
