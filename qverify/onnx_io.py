"""ONNX -> Network, and the way back (`to_onnx`, `save`, from `onnx_export.py`).

The network is the ONNX model run at batch 1: a first input axis that is symbolic or 1 is the batch if there are
others, else the model is unbatched and the whole shape is one sample. Everything a model holds is consumed or
refused; all refusals are collected and raised together. At last the result is compared with onnxruntime.

Decisions a user of radii should know:

- Radii describe the weights *after folding*, as int8 toolchains quantise them: alpha and beta of Gemm and a
  BatchNormalization after a Dense or Conv layer are inside that layer's weight and bias. A BatchNormalization
  with no such layer to itself becomes a depthwise Conv of kernel 1, quantised like any other.
- A constant added to a layer without bias, one number an output or channel, is its bias; so is a scalar, each
  output then having its own copy. Any other constant arithmetic is an exact `Scale`; average pooling is exact.
- An initializer that two weighted layers use is quantised in each on its own; `Network.notes` says where.
- A Softmax or LogSoftmax at the end is dropped, as it keeps the order of the classes; the notes say so.
- A layer is called as its node, or as the node's first output if that has no name; MatMul + Add as the MatMul,
  merged Scales as the first. `_2`, `_3`, ... is appended to a name that is taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, checker, external_data_helper, helper, numpy_helper

from qverify.errors import ModelError, UnsupportedModel
from qverify.network import Network
from qverify.onnx_check import FLOATS, compare
from qverify.onnx_export import save, to_onnx
from qverify.onnx_graph import Builder, Constant, Node, Refusal, Shape, Tensor, Unknown, Value, first_line, fold, label
from qverify.onnx_operators import OPERATORS

__all__ = ["load", "save", "to_onnx"]

OLDEST_OPSET = 8
_DOMAINS = ("", "ai.onnx")

_HINTS = {
    "MaxPool": "use AveragePool or a strided Conv",
    **dict.fromkeys(
        ["Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Sigmoid", "Tanh"],
        "Relu is the only activation",
    ),
    **dict.fromkeys(["If", "Loop", "Scan"], "control flow must be unrolled at export"),
}


def load(source: str | PathLike[str] | onnx.ModelProto) -> Network:
    """Read an ONNX file, or a model in memory, as a `Network` (conventions above; input and output flat).

    Guarantees that `Network.evaluate` agrees with onnxruntime on eight inputs (`onnx_check.TOLERANCES`).
    Raises UnsupportedModel with every unsupported detail, and ModelError if the file is missing, damaged, not
    ONNX, holds NaN, or if onnxruntime refuses or contradicts the result.
    """
    if isinstance(source, onnx.ModelProto):
        name, model = "the model", source
    else:
        name, model = str(source), _read(Path(source))
    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ModelError(f"{name} is not a valid ONNX model ({first_line(error)}); export it again.") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{name} is damaged (a name in it is not text); export or download it again.") from error
    except (ValueError, EncodeError) as error:
        raise ModelError(f"{name} is larger than the 2 GB that ONNX can check ({first_line(error)}).") from error
    short = "model" if isinstance(source, onnx.ModelProto) else Path(source).name
    try:
        with np.errstate(all="ignore"):  # what overflows is refused by the comparison
            return _network(model, name, short)
    except MemoryError as error:
        raise ModelError(f"{name} needs more memory than there is here ({first_line(error)}).") from error


def _network(model: onnx.ModelProto, name: str, short: str) -> Network:
    """The network of a checked model, compared with it; `short` is what it is called."""
    walk = _Walk(model)
    output = walk.run()
    if walk.problems:
        raise UnsupportedModel(name, walk.problems)
    builder = walk.builder
    if output.layer != len(builder.layers) - 1:  # only its Shape is read, perhaps
        raise ModelError(f"{short}: the output of layer {builder.layers[-1].name!r} is never used.")
    notes = tuple(builder.notes + _shared(builder))
    network = Network(
        tuple(builder.layers),
        short,
        notes,
        tuple(builder.added_biases),
        tuple(builder.batchnorms),
        tuple(builder.oddities),
    )
    compare(model, network, builder.input_shape, output.logits)
    return network


def _read(path: Path) -> onnx.ModelProto:
    """The model with its external data; raises ModelError."""
    if path.is_dir():
        raise ModelError(f"{path} is a directory; give the .onnx file in it.")
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist; check the path of the model.") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if not data:
        raise ModelError(f"{path} is empty; export or download the model again.")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        torch = path.suffix in (".pt", ".pth")
        how = "write one with torch.onnx.export" if torch else "export or download the model again"
        raise ModelError(f"{path} is truncated or not an ONNX file; {how}.") from error
    try:
        external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, checker.ValidationError) as error:
        raise ModelError(
            f"{path} keeps weights in another file that is missing or damaged ({first_line(error)}); "
            "put that file beside it, or save the model as a single file."
        ) from error
    return model


class _Walk:
    """One pass over a checked model: resolves inputs, calls operators, collects problems."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.problems: list[str] = []
        self.opset = max((o.version for o in model.opset_import if o.domain in _DOMAINS), default=0)
        self.values: dict[str, Value] = {"": None}
        outputs = [o.name for o in self.graph.output]
        self.reads = Counter([name for n in self.graph.node for name in n.input] + outputs)
        # Shape reads no value, so it does not keep a layer from taking up a bias.
        readers = [n for n in self.graph.node if n.op_type != "Shape"]
        self.value_reads = Counter([name for n in readers for name in n.input] + outputs)
        self._shapes: dict[str, Shape] | None = None

    def run(self) -> Tensor:
        """The output, with `self.builder` filled; meaningless if there are problems."""
        self._check_graph()
        for tensor in self.graph.initializer:
            self.values[tensor.name] = self._read_initializer(tensor)
        self._read_input()
        for node in self.graph.node:
            self._read_node(node)
        return self._read_output()

    def _read_initializer(self, tensor: TensorProto) -> Value:
        try:
            value = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            self.problems.append(f"initializer {tensor.name!r} is damaged ({first_line(error)})")
            return Unknown()
        is_float = tensor.data_type in FLOATS
        return Constant(value, frozenset([tensor.name]) if is_float else frozenset())

    def _check_graph(self) -> None:
        """What is wrong with the model as a whole, and everything in it that nothing reads."""
        if self.opset < OLDEST_OPSET:
            self.problems.append(f"opset {self.opset}: supported is {OLDEST_OPSET} and newer; convert the model")
        if self.graph.sparse_initializer:
            self.problems.append("sparse initializers; supported are dense ones")
            self.values.update({t.values.name: Unknown() for t in self.graph.sparse_initializer})
        if self.graph.quantization_annotation:
            self.problems.append("quantisation annotations: verify the float model it was made from")
        if len(self.graph.output) != 1:
            names = ", ".join(repr(o.name) for o in self.graph.output)
            self.problems.append(f"{len(self.graph.output)} outputs ({names}); supported is one")
        unused = [repr(t.name) for t in self.graph.initializer if not self.reads[t.name]]
        if unused:
            self.problems.append(f"initializers that no node uses ({', '.join(unused)}); remove them")

    def _read_input(self) -> None:
        """The one graph input that is no initializer (old models list those as inputs, too)."""
        inputs = [i for i in self.graph.input if i.name not in self.values]
        if len(inputs) != 1:
            self.problems.append(f"{len(inputs)} inputs ({', '.join(repr(i.name) for i in inputs)}); supported is one")
        for extra in inputs[1:]:
            self.values[extra.name] = Unknown()
        if not inputs:
            self.builder = Builder("input", (1,), False)
            return
        name, kind = inputs[0].name, inputs[0].type.tensor_type
        if kind.elem_type not in FLOATS:
            known = kind.elem_type in TensorProto.DataType.values() and kind.elem_type
            found = TensorProto.DataType.Name(kind.elem_type).lower() if known else "no tensor of a known type"
            self.problems.append(f"input {name!r} is {found}; supported are float32 and float64")
        shape, batched = self._input_shape(name, kind)
        self.builder = Builder(name, shape, batched)
        self.values[name] = Tensor(0, shape)

    def _input_shape(self, name: str, kind: onnx.TypeProto.Tensor) -> tuple[Shape, bool]:
        """The full shape at batch 1, and whether its first axis is the batch."""
        if not kind.HasField("shape"):
            self.problems.append(f"input {name!r} has no shape; export the model with one")
            return (1,), False
        lengths = [d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in kind.shape.dim]
        batched = len(lengths) > 1 and lengths[0] in (None, 1)
        if None in lengths[1 if batched else 0 :] or 0 in lengths:
            shown = ", ".join(str(d.dim_param or d.dim_value or "?") for d in kind.shape.dim)
            self.problems.append(
                f"input {name!r} has shape ({shown}); only the first of several axes, the batch, may be open"
            )
        return tuple(length or 1 for length in lengths), batched

    def _read_node(self, proto: onnx.NodeProto) -> None:
        inputs = [self._value(name) for name in proto.input]
        outputs: list[Value] = []
        try:
            self._check_node(proto, inputs)
            if not any(isinstance(v, (Tensor, Unknown)) for v in inputs):
                given = {n: v for n, v in zip(proto.input, inputs, strict=True) if isinstance(v, Constant)}
                outputs.extend(fold(proto, self.opset, given))
            elif not any(isinstance(v, Unknown) for v in inputs):
                attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
                node = Node(proto, tuple(inputs), self.opset, attributes)
                outputs.append(OPERATORS[proto.op_type].read(node, self.builder))
        except Refusal as refusal:
            self.problems.append(f"{label(proto)}: {refusal}")
        for index, name in enumerate(proto.output):
            if name:
                self.values[name] = outputs[index] if index < len(outputs) else self._guess(name, inputs)

    def _value(self, name: str) -> Value:
        value = self.values[name]
        if isinstance(value, Tensor) and self.value_reads[name] > 1:
            return replace(value, exclusive=False)
        return value

    def _check_node(self, node: onnx.NodeProto, inputs: list[Value]) -> None:
        """What can be said against a node without the shapes of its inputs; raises Refusal."""
        if node.domain not in _DOMAINS:
            raise Refusal(f"operator domain {node.domain!r} is not supported; only standard ONNX operators are")
        if any(part in node.op_type.lower() for part in ("quantize", "qlinear", "integer")):
            raise Refusal("the model is already quantised; verify the float model it was made from")
        if not any(self.reads[name] for name in node.output):
            raise Refusal("nothing uses its output; remove the node")
        if not any(isinstance(v, (Tensor, Unknown)) for v in inputs):
            return
        known = OPERATORS.get(node.op_type)
        if known is None:
            hint = f" ({_HINTS[node.op_type]})" if node.op_type in _HINTS else ""
            raise Refusal(f"the operator is not supported{hint}; supported are {', '.join(OPERATORS)}")
        found = [a.name for a in node.attribute if a.name not in known.attributes]
        if found:
            supported = ", ".join(sorted(known.attributes)) or "none"
            raise Refusal(f"attribute {', '.join(found)} is not supported; supported are: {supported}")
        extra = [name for name in node.output[1:] if self.reads[name]]
        if extra:
            raise Refusal(f"its output {extra[0]!r} is used; supported is the use of its first output")

    def _guess(self, name: str, inputs: list[Value]) -> Value:
        """Stands for the output of a refused node, so that the nodes after it are looked at, too."""
        if not any(isinstance(v, Tensor) for v in inputs):
            return Unknown()  # perhaps a constant, whose value the nodes after it need
        if self._shapes is None:
            self._shapes = _inferred_shapes(self.model)
        shape = self._shapes.get(name)
        return Unknown() if shape is None else Tensor(0, shape, exclusive=False)

    def _read_output(self) -> Tensor:
        value = self.values[self.graph.output[0].name] if self.graph.output else Unknown()
        if isinstance(value, Tensor):
            return value
        if isinstance(value, Constant):
            self.problems.append(f"output {self.graph.output[0].name!r} does not depend on the input")
        return Tensor(0, ())


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """The shapes at batch 1 that onnx can infer."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for graph_input in fixed.graph.input:
        for axis in graph_input.type.tensor_type.shape.dim[:1]:
            axis.dim_value = axis.dim_value if axis.dim_value > 0 else 1
    del fixed.graph.output[:]
    shapes: dict[str, Shape] = {}
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed)
    except (onnx.shape_inference.InferenceError, ValueError):
        return shapes
    for info in inferred.graph.value_info:
        kind = info.type.tensor_type
        if kind.HasField("shape") and all(d.dim_value > 0 for d in kind.shape.dim):
            shapes[info.name] = tuple(d.dim_value for d in kind.shape.dim)
    return shapes


def _shared(builder: Builder) -> list[str]:
    """A note for every constant that several weighted layers hold."""
    return [
        f"{source}: used by layers {', '.join(repr(u) for u in users)}, each of which is quantised on its own."
        for source, users in builder.weight_uses.items()
        if len(users) > 1
    ]
