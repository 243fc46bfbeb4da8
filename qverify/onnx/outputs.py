"""Which output of a model is the network's, and the model cut down to it.

Classifiers of scikit-learn give a label beside the scores that it is chosen from: the scores are what is verified. Of
several outputs that hold scores one has to be named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, numpy_helper

from qverify.errors import ModelError
from qverify.onnx.order import captured
from qverify.text.shortened import listed, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

CLASSIC = "ai.onnx.ml"
"""The domain of classic machine learning, of which scikit-learn's neural networks have a little."""
_LABELS = {TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING}
"""Element types of outputs that name a class, and have no margin."""


def with_one_output(model: onnx.ModelProto, name: str, wanted: str | None) -> tuple[onnx.ModelProto, list[str]]:
    """The model with the output `wanted` alone, and notes; None: its only one, or that beside labels of classes.

    A model is left as it is where nothing says which is meant. Raises ModelError for an output that it does not have,
    and for classes whose numbers are those of other places.
    """
    _refuse_other_numbers(model, name)
    outputs = list(model.graph.output)
    names = [output.name for output in outputs]
    if wanted is not None:
        if wanted not in names:
            raise ModelError(f"{name} has no output {quoted(wanted)}; it has {listed([quoted(n) for n in names], 5)}.")
        chosen = [output for output in outputs if output.name == wanted]
    else:
        chosen = [output for output in outputs if output.type.tensor_type.elem_type not in _LABELS]
    if len(outputs) < 2 or len(chosen) != 1:
        return model, []
    left = [output.name for output in outputs if output.name != chosen[0].name]
    verb = "is" if len(left) == 1 else "are"
    return _cut(model, chosen[0]), [
        f"output {quoted(chosen[0].name)} is read, and {listed([quoted(n) for n in left], 5)} {verb} left out."
    ]


def _refuse_other_numbers(model: onnx.ModelProto, name: str) -> None:
    """Raise ModelError for classes that are called by numbers which are places of other classes: labels of samples are
    places, and nothing would say that they mean something else."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.domain != CLASSIC:
            continue
        called: list[int] = [n for a in node.attribute if a.name == "classlabels_int64s" for n in a.ints]
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in constants:
            array = numpy_helper.to_array(constants[node.input[0]]).reshape(-1)
            called = array.tolist() if array.dtype.kind in "iu" else []
        if any(number != place and 0 <= number < len(called) for place, number in enumerate(called)):
            raise ModelError(
                f"{name} calls its classes {listed([str(number) for number in called], 5)}, and labels of samples are "
                f"taken as their places, 0 to {len(called) - 1}; number the classes so when the model is trained."
            )


def _cut(model: onnx.ModelProto, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    """The model with this output alone, the nodes that it needs, and the initializers that these read."""
    needed, kept = {output.name}, []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update((*node.input, *captured(node)))
    found = onnx.ModelProto()
    found.CopyFrom(model)
    graph = found.graph
    _refill(graph.node, reversed(kept))
    _refill(graph.output, [output])
    _refill(graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in needed])
    return found


def _refill(field: object, values: Iterable[object]) -> None:
    """Put these into a repeated field instead of what it holds."""
    values = list(values)
    del field[:]  # type: ignore[attr-defined]
    field.extend(values)  # type: ignore[attr-defined]
