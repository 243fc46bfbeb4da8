"""Nodes whose inputs are all constant, computed by onnx's reference evaluator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from qverify.onnx.graph import Constant, Refusal
from qverify.onnx.grid import ends_of, kind_of, uncovered
from qverify.text.shortened import first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

# Deterministic, and harmless whatever numbers they get. An operator outside this list is refused even on
# constants (RandomNormal has no inputs at all), but for QuantizeLinear and DequantizeLinear, which `integers.py` reads.
_FOLDABLE = """
    Abs Add And Cast CastLike Ceil Clip Concat Constant ConstantOfShape Div Equal Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm Greater GreaterOrEqual Identity Less LessOrEqual MatMul Max Min Mod Mul Neg Not Or Pad
    Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND
    Shape Sign Size Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where
"""
FOLDABLE = frozenset(_FOLDABLE.split())
_MOVING = "Expand Flatten Gather Identity Reshape Slice Squeeze Tile Transpose Unsqueeze"
_VIEWS = frozenset(_MOVING.split())
"""Those of them that move numbers of their first input and change none, and have one output."""
# What the reference evaluator and the numpy code below it raise on arguments that do not fit.
_FOLD_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError)


def fold(node: onnx.NodeProto, opset: int, inputs: Mapping[str, Constant]) -> list[Constant]:
    """Compute a node of `FOLDABLE` whose inputs are all constant, by onnx's reference evaluator; raises Refusal."""
    sources = frozenset().union(*(v.sources for v in inputs.values()))
    results = _computed(node, opset, {name: constant.value for name, constant in inputs.items()})
    found = [_folded(np.asarray(result), sources, name) for result, name in zip(results, node.output, strict=True)]
    moved = inputs.get(node.input[0]) if node.op_type in _VIEWS else None
    if moved is None or moved.grid is None:
        return found
    steps = {node.input[0]: np.ascontiguousarray(np.broadcast_to(moved.grid, moved.value.shape))}
    steps = {name: steps.get(name, constant.value) for name, constant in inputs.items()}
    return [replace(found[0], grid=uncovered(np.asarray(_computed(node, opset, steps)[0])))]


def _computed(node: onnx.NodeProto, opset: int, inputs: Mapping[str, np.ndarray]) -> list[Any]:
    from onnx.reference import ReferenceEvaluator  # slow to import, and most models need it only for Constant

    function = helper.make_function(
        "qverify", "fold", list(inputs), list(node.output), [node], [helper.make_opsetid("", opset)]
    )
    try:
        with np.errstate(all="ignore"):
            return list(ReferenceEvaluator(function).run(None, dict(inputs), attributes={}))
    except _FOLD_ERRORS as error:
        raise Refusal(f"its constant inputs cannot be evaluated ({first_line(error)})") from error


def _folded(value: np.ndarray, sources: frozenset[str], name: str) -> Constant:
    is_float = value.dtype.kind == "f"
    if not is_float and value.dtype.kind != "b" and ends_of(kind_of(value.dtype)) is None:
        raise Refusal(f"its value of type {value.dtype} is not a tensor of numbers")
    return Constant(value, (sources or frozenset([name])) if is_float else frozenset())
