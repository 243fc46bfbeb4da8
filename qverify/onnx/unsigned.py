"""Integer weights moved from int8 to uint8: the same numbers, which onnxruntime's kernels add up exactly everywhere.

Kernels of uint8 and int8 add neighbouring products in saturating 16 bits on x86 processors without dot-product
instructions, as onnxruntime documents; those of uint8 and uint8 do not. Where a weight and its zero point are
constants, both moved up by 128 say the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Collection

_PLACES = {
    "QLinearConv": (3, 5, 2),
    "QLinearMatMul": (3, 5, 2),
    "QGemm": (3, 5, 2),
    "ConvInteger": (1, 3, 2),
    "MatMulInteger": (1, 3, 2),
    "MatMulIntegerToFloat": (1, 5, 4),
}
"""By operator, which inputs are its weight, the weight's zero point, and that of what it is multiplied by."""
_UP = 128


def with_unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose operators on uint8 have constant weights of uint8 for int8; the model itself if there are none.

    Operators on int8 stay as they are: onnxruntime has no kernels of int8 and uint8.
    """
    held = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.INT8}
    unsigned = {t.name for t in model.graph.initializer if t.data_type == TensorProto.UINT8}
    unsigned |= {node.output[2] for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"}
    asked = [i for i, node in enumerate(model.graph.node) if _moves(node, held, unsigned)]
    if not asked:
        return model
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    made, mark = dict[str, str](), "/unsigned"
    while any(mark in name for node in model.graph.node for name in (*node.input, *node.output)):
        mark += "'"  # a name that is there already would be another tensor
    for node in (moved.graph.node[i] for i in asked):
        weight, zero, _ = _PLACES[node.op_type]
        node.input.extend([""] * (zero + 1 - len(node.input)))
        for place in (weight, zero):  # no zero point is one of 0
            node.input[place] = made.setdefault(node.input[place], f"{node.input[place]}{mark}")
    for old, new in made.items():
        whole = numpy_helper.to_array(held[old]).astype(np.int16) if old else np.zeros((), np.int16)
        moved.graph.initializer.append(numpy_helper.from_array((whole + _UP).astype(np.uint8), new))
    return moved


def _moves(node: onnx.NodeProto, held: Collection[str], unsigned: Collection[str]) -> bool:
    """Whether a node multiplies numbers of uint8, as their zero point among `unsigned` says, by a weight of int8; that
    and its zero point are among the constants `held`."""
    if node.op_type not in _PLACES:
        return False
    weight, zero, other = (node.input[i] if i < len(node.input) else "" for i in _PLACES[node.op_type])
    return weight in held and (not zero or zero in held) and other in unsigned
