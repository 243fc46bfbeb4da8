"""What exporters write in several nodes and the walk reads as one: a Softplus that is its argument above a threshold.

PyTorch's exporter writes `Where(x > 20, x, Softplus(x))`, which jumps by 2e-9 at 20. The nodes become a Softplus with
the attribute `threshold`, which ONNX does not have; the model itself, which onnxruntime is asked, stays as it is.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from qverify.activations.functions import FUNCTIONS
from qverify.onnx.graph import DOMAINS
from qverify.onnx.order import captured

THRESHOLD = "threshold"
"""The attribute of a Softplus that was several nodes."""


def fused(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with such nodes as one; itself where there are none."""
    found = _Softpluses(model.graph).found
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for index, (x, threshold) in found.items():
        where = graph.node[index]
        name = where.name or where.output[0]
        made = helper.make_node("Softplus", [x], list(where.output), name=name)
        made.attribute.append(helper.make_attribute(THRESHOLD, threshold))
        where.CopyFrom(made)
    _drop(graph)
    return copy


def _drop(graph: onnx.GraphProto) -> None:
    """Take out the comparisons, Softpluses and thresholds that nothing reads any more."""
    before = Counter(name for node in graph.node for name in (*node.input, *captured(node)))
    ends = {output.name for output in graph.output}
    gone = [
        n for n in graph.node if not any(before[o] or o in ends for o in n.output) and _is(n, "Greater", "Softplus")
    ]
    for node in gone:
        graph.node.remove(node)
    read = {name for node in graph.node for name in (*node.input, *captured(node))} | ends
    limits = {node.input[1] for node in gone if node.op_type == "Greater"} - read
    for tensor in [t for t in graph.initializer if t.name in limits]:
        graph.initializer.remove(tensor)
    for node in [n for n in graph.node if limits & set(n.output)]:
        graph.node.remove(node)


class _Softpluses:
    """By the index of a Where, what it makes its Softplus of, and the threshold."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.tensors = {tensor.name: tensor for tensor in graph.initializer}
        self.found: dict[int, tuple[str, float]] = {}
        for index, node in enumerate(graph.node):
            if _is(node, "Where") and len(node.input) == 3:
                self._read(index, *node.input)

    def _read(self, index: int, condition: str, x: str, other: str) -> None:
        greater, soft = self.makers.get(condition), self.makers.get(other)
        if greater is None or soft is None or not (_is(greater, "Greater") and _is(soft, "Softplus")):
            return
        if greater.input[0] != x or list(soft.input) != [x]:
            return
        threshold = self._number(greater.input[1])
        if threshold is not None and not FUNCTIONS["softplus_threshold"].refused(np.array([threshold])):
            self.found[index] = x, threshold

    def _number(self, name: str) -> float | None:
        """A constant of one number."""
        tensor, maker = self.tensors.get(name), self.makers.get(name)
        if tensor is None and maker is not None and _is(maker, "Constant"):
            tensor = next((a.t for a in maker.attribute if a.name == "value"), None)
        if tensor is None:
            return None
        value = numpy_helper.to_array(tensor)
        return float(value.reshape(-1)[0]) if value.size == 1 and value.dtype.kind == "f" else None


def _is(node: onnx.NodeProto, *kinds: str) -> bool:
    return node.op_type in kinds and node.domain in DOMAINS
