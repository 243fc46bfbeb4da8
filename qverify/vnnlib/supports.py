"""What `qverify vnnlib supports` answers, in the words of the VNN-LIB standard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _opsets() -> list[str]:
    from onnx.defs import onnx_opset_version

    from qverify.onnx.reader import OLDEST_OPSET

    return [str(OLDEST_OPSET), str(onnx_opset_version())]


def _operators() -> list[str]:
    from qverify.onnx.operators import OPERATORS
    from qverify.vnnlib.models import ORDER_ONLY

    return sorted(name for name in set(OPERATORS) - set(ORDER_ONLY) if not _quantised(name))


def _quantised(operator: str) -> bool:
    """Whether an operator reads or gives integers, as in quantised models, whose rounding is no real arithmetic."""
    return operator.startswith("Q") or "Integer" in operator or operator.lower().endswith("quantizelinear")


CAPABILITIES: dict[str, Callable[[], list[str]]] = {
    "onnx-opset-versions": _opsets,
    "onnx-element-types": lambda: ["real"],
    "onnx-operators": _operators,
    "vnnlib-versions": lambda: ["1.0", "2.0"],
    "hidden-node-theories": lambda: ["NH"],
    "multiple-input-output-theories": lambda: ["SIO"],
    "multiple-network-theories": lambda: ["SNET"],
    "multiple-node-comparison-theories": lambda: ["SNC"],
    "arithmetic-complexity-theories": lambda: ["BND", "OUTC"],
    "optimised-disjunctive-reasoning": lambda: ["false"],
    "serialise-assignments": lambda: ["true"],
}
"""The lines that each capability is answered by."""
