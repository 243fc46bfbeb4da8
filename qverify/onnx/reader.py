"""ONNX -> Network, and the way back (`to_onnx`, `save`, from `writer.py`).

The network is the ONNX model run at batch 1: a first input axis that is symbolic or 1 is the batch if there are
others, else the model is unbatched and the whole shape is one sample. Of several inputs the numbers are joined, in the
order of the graph (inputs.py). Everything a model holds is consumed or
refused; all refusals are collected and raised together, one a kind. At last the result is compared with onnxruntime.
What is made from something refused is judged only by what holds whatever it is.

Decisions a user of radii should know:

- Radii describe the weights *after folding*, as int8 toolchains quantise them: alpha and beta of Gemm and a
  BatchNormalization after a Dense or Conv layer are inside that layer's weight and bias. A BatchNormalization
  with no such layer to itself becomes a depthwise Conv of kernel 1, quantised like any other.
- A constant added to a layer without bias, one number an output or channel, is its bias; so is a scalar, each
  output then having its own copy. Any other constant arithmetic is an exact `Scale`; average pooling is exact.
- An initializer that two weighted layers use is quantised in each on its own; `Network.notes` says where.
- What a quantiser wrote keeps its numbers: weights on their grid, to which nothing is folded, and a `Rounding` layer
  where a tensor is rounded. Tensors of integers are the numbers that they stand for.
- A Softmax or LogSoftmax at the end is dropped, as it keeps the order of the classes; the notes say so.
- A layer is called as its node, or as the node's first output if that has no name; MatMul + Add as the MatMul,
  merged Scales as the first. `_2`, `_3`, ... is appended to a name that is taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qverify.errors import ModelError, UnsupportedModel
from qverify.files.user import shown_path
from qverify.kinds import path_like
from qverify.layers import Rounding
from qverify.network import Network
from qverify.onnx.activation_operators import refuse_between
from qverify.onnx.check import compare, quantised
from qverify.onnx.file import checked, read_model
from qverify.onnx.folding import FOLDABLE, fold
from qverify.onnx.functions import inlined
from qverify.onnx.fusing import fused
from qverify.onnx.gathers import pruned
from qverify.onnx.graph import (
    DOMAINS,
    Constant,
    Node,
    Refusal,
    Step,
    Tensor,
    Unknown,
    UnknownOperator,
    Value,
    label,
)
from qverify.onnx.inputs import FLOATS, given_inputs, read_inputs
from qverify.onnx.integers import LINEAR, fold_linear
from qverify.onnx.operators import ONNXRUNTIME, OPERATORS
from qverify.onnx.order import captured, in_order
from qverify.onnx.outputs import CLASSIC, with_one_output
from qverify.onnx.pairs import saturating_pairs
from qverify.onnx.refusals import Refusals
from qverify.onnx.ways_out import HINTS, OPTIMISED
from qverify.onnx.writer import save, to_onnx
from qverify.remarks import remark
from qverify.text.escapes import printable
from qverify.text.shortened import first_line, listed, quoted, shortened

if TYPE_CHECKING:
    from os import PathLike

    from qverify.onnx.graph import NetworkBuilder

__all__ = ["load", "save", "to_onnx"]

OLDEST_OPSET = 7
DYNAMIC = "DynamicQuantizeLinear"
_WANTED = "the path of an .onnx file, or an onnx.ModelProto (torch.onnx.export writes a torch module as one)"

# What these make of a computed tensor does not depend on its numbers.
_SHAPE_ONLY = frozenset(["EyeLike", "RandomNormalLike", "RandomUniformLike", "Shape", "Size"])


def load(source: str | PathLike[str] | onnx.ModelProto, output: str | None = None) -> Network:
    """Read an ONNX file, or a model in memory, as a `Network` (conventions above; input and output flat).

    `output`: which of several outputs it is to have; else the only one, or that beside labels of classes.

    Guarantees that `Network.evaluate` agrees with onnxruntime on eight inputs (`check.TOLERANCES`), a quantised network
    at each of its rounding points, on what onnxruntime has before it. What of the
    model a person should know is in `Network.notes`, and a QVerifyWarning each. Raises UnsupportedModel with every kind
    of unsupported detail, and ModelError if the file is missing, damaged, not ONNX, holds NaN, or if onnxruntime
    refuses or contradicts the result.
    """
    if isinstance(source, onnx.ModelProto):
        name, short, model = "the model", "model", source
    else:
        path_like(source, "The model", _WANTED, ModelError)
        name, short, model = shown_path(source), shortened(Path(source).name), read_model(Path(source))
    try:
        model, notes = with_one_output(checked(in_order(model, name), name), name, output)
        with np.errstate(all="ignore"):  # what overflows is refused by the comparison
            network = _network(model, name, short)
        network = replace(network, notes=(*map(printable, notes), *network.notes))
    except MemoryError as error:
        raise ModelError(f"{name} needs more memory than there is here ({first_line(error)}).") from error
    remark(f"{network.source}: {note}" for note in network.notes)
    return network


def _network(model: onnx.ModelProto, name: str, short: str) -> Network:
    """The network of a checked model, compared with it; `short` is what it is called."""
    flat = inlined(model, name)
    walk = _Walk(fused(flat))
    output = walk.run()
    if walk.refusals or walk.operators:
        supported = list(OPERATORS) if walk.operators else []
        raise UnsupportedModel(name, walk.refusals.sentences + walk.operators.sentences, supported)
    builder = walk.builder
    output = pruned(builder, output)
    if output.layer != len(builder.layers) - 1:  # only its Shape is read, perhaps
        raise ModelError(f"{short}: the output of layer {builder.layers[-1].name!r} is never used.")
    network = Network(tuple(builder.layers), short)
    if not quantised(network):  # what toolchains would do to it
        network = replace(
            network,
            notes=tuple(_shared(builder)),
            added_biases=tuple(builder.added_biases),
            batchnorms=tuple(builder.batchnorms),
            oddities=tuple(builder.oddities),
            composed=tuple(builder.composed) or None,
        )
    made = {name for node in model.graph.node for name in node.output}
    asked = {point.tensor for point in (builder.dynamic or {}).values()}
    asked |= {point.tensor for point in builder.points.values()} | ({output.logits.name} if output.logits else set())
    notes = [*builder.notes, *network.notes, *compare(model if asked <= made else flat, network, builder, output)]
    notes += saturating_pairs(network, model)
    return replace(network, notes=tuple(printable(note) for note in notes))


class _Walk:
    """A pass over a checked model without functions: resolves inputs, calls operators, collects refusals."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph, self.imports = model.graph, model.opset_import
        self.annotated = bool(model.graph.quantization_annotation)
        self.refusals, self.operators = Refusals(), Refusals()
        self.opset = max((o.version for o in model.opset_import if o.domain in DOMAINS), default=0)
        self.values: dict[str, Value] = {"": None}
        outputs = [o.name for o in self.graph.output]
        self.readers: dict[str, set[str]] = defaultdict(set, {name: {""} for name in outputs})
        for name, kind in ((name, n.op_type) for n in self.graph.node for name in (*n.input, *captured(n))):
            self.readers[name].add(kind)
        self.reads = Counter([name for n in self.graph.node for name in (*n.input, *captured(n))] + outputs)
        # Shape reads no value, so it does not keep a layer from taking up a bias.
        readers = [n for n in self.graph.node if n.op_type != "Shape"]
        self.value_reads = Counter([name for n in readers for name in (*n.input, *captured(n))] + outputs)

    def run(self) -> Tensor:
        """The output, with `self.builder` filled; meaningless if there are refusals."""
        self._check_graph()
        initializers = [tensor for tensor in self.graph.initializer if self.reads[tensor.name]]
        for tensor in initializers:
            self.values[tensor.name] = self._read_initializer(tensor)
        self._read_inputs()
        self._ignore_unread()
        for node in self.graph.node:
            self._read_node(node)
        return self._read_output()

    def _read_initializer(self, tensor: TensorProto) -> Value:
        try:
            value = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            self.refusals.add(f"initializer {quoted(tensor.name)} is damaged ({first_line(error)})")
            return Unknown(computed=False)
        is_float = tensor.data_type in FLOATS
        return Constant(value, frozenset([tensor.name]) if is_float else frozenset())

    def _check_graph(self) -> None:
        """Refuse what is wrong with the model as a whole."""
        if len(versions := sorted({o.version for o in self.imports if o.domain in DOMAINS})) > 1:
            self.refusals.add(f"two opsets of the standard operators {versions}; export the model with one")
        if self.opset < OLDEST_OPSET:
            self.refusals.add(f"opset {self.opset}: supported is {OLDEST_OPSET} and newer; convert the model")
        if self.annotated:
            self.refusals.add(
                "quantisation annotations, which say steps that no node applies: "
                "export the model with QuantizeLinear and DequantizeLinear, or verify the float model it was made from"
            )
        sparse = [t.values.name for t in self.graph.sparse_initializer if self.reads[t.values.name]]
        if sparse:
            self.refusals.add(f"sparse initializers; supported are dense ones ({listed(list(map(quoted, sparse)), 5)})")
        self.values.update({name: Unknown(computed=False) for name in sparse})
        if len(self.graph.output) != 1:
            names = [quoted(o.name) for o in self.graph.output]
            advice = ": name it with --output (qverify.load(..., output=...))" if names else ""
            self.refusals.add(f"{len(names)} outputs ({listed(names, 5)}); supported is one{advice}")

    def _read_inputs(self) -> None:
        """The graph inputs that are no initializers."""
        self.values.update({i.name: Unknown(computed=True) for i in given_inputs(self.graph)})
        dynamic = any(n.op_type == DYNAMIC for n in self.graph.node)
        self.builder, tensors = read_inputs(self.graph, self.refusals, dynamic)
        self.values.update(tensors)
        unread = [shortened(name) for name in tensors if len(tensors) > 1 and not self.reads[name]]
        if unread:
            self.builder.notes.append(f"inputs that no node reads: {listed(unread, 5)}.")

    def _ignore_unread(self) -> None:
        """A note of the initializers that nothing reads."""
        names = [t.name for t in self.graph.initializer] + [t.values.name for t in self.graph.sparse_initializer]
        unread = [shortened(name) for name in names if not self.reads[name]]
        if unread:
            self.builder.notes.append(f"initializers that no node reads are ignored: {listed(unread, 5)}.")

    def _read_node(self, proto: onnx.NodeProto) -> None:
        inputs = [self._value(name) for name in proto.input]
        seen = inputs + [self.values.get(name) for name in captured(proto)]
        computed = any(isinstance(v, (Tensor, Step)) or (isinstance(v, Unknown) and v.computed) for v in seen)
        outputs: list[Value] = []
        try:
            self._check_node(proto, computed)
            if not any(isinstance(v, Unknown) for v in inputs):
                outputs = self._made(proto, inputs) if computed else [*self._folded(proto, inputs)]
        except UnknownOperator as refusal:
            self.operators.add(label(proto), f": {refusal}")
        except Refusal as refusal:
            self.refusals.add(label(proto), f": {refusal}")
        left = Unknown(computed and proto.op_type not in _SHAPE_ONLY)
        for index, name in enumerate(proto.output):
            if name:
                self.values[name] = outputs[index] if index < len(outputs) else left

    def _made(self, proto: onnx.NodeProto, inputs: list[Value]) -> list[Value]:
        """The first outputs of a node that depends on the network's input; raises Refusal."""
        made = OPERATORS[proto.op_type].read(self._node(proto, inputs), self.builder)
        return made if isinstance(made, list) else [made]

    def _node(self, proto: onnx.NodeProto, inputs: list[Value]) -> Node:
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        return Node(proto, tuple(inputs), self.opset, attributes, self.readers[proto.output[0]] == {"QuantizeLinear"})

    def _folded(self, proto: onnx.NodeProto, inputs: list[Value]) -> list[Constant]:
        """The outputs of a node whose inputs are constants; raises Refusal."""
        if proto.op_type in LINEAR:
            return [fold_linear(self._node(proto, inputs))]
        given = {n: v for n, v in zip(proto.input, inputs, strict=True) if isinstance(v, Constant)}
        return fold(proto, self.opset, given)

    def _value(self, name: str) -> Value:
        value = self.values[name]
        if isinstance(value, Tensor) and self.value_reads[name] > 1:
            self.builder.shared.add(value.layer)
            return replace(value, exclusive=False)
        return value

    def _check_node(self, node: onnx.NodeProto, computed: bool) -> None:
        """Check a node whatever its inputs are; raises Refusal."""
        known = OPERATORS.get(node.op_type)
        if node.domain not in (*DOMAINS, ONNXRUNTIME, CLASSIC):
            domain = quoted(node.domain)
            raise Refusal(
                f"operator domain {domain} is not supported; only operators of ONNX, and some of onnxruntime, are"
            )
        if node.overload or any(a.ref_attr_name for a in node.attribute):
            raise Refusal("it is written as part of a function, but is in none; export the model without functions")
        if not any(self.reads[name] for name in node.output):
            raise Refusal("nothing uses its output; remove the node")
        if not computed:
            if node.op_type not in LINEAR and (node.op_type not in FOLDABLE or node.domain not in DOMAINS):
                kind = shortened(node.op_type)
                raise Refusal(f"operator {kind} on constants is not supported: replace it by an initializer")
            return
        if known is None or node.domain not in known.domains:
            way = OPTIMISED if known is not None else HINTS.get(node.op_type)
            hint = f" ({way})" if way else ""
            raise UnknownOperator(f"the operator is not supported{hint}")
        found = [shortened(a.name) for a in node.attribute if a.name not in known.attributes]
        if found:
            supported = ", ".join(sorted(known.attributes)) or "none"
            raise Refusal(f"attribute {listed(found, 5)} is not supported; supported are: {supported}")
        extra = [name for name in node.output[1:] if self.reads[name] and node.op_type not in (DYNAMIC, "Split")]
        if extra:
            raise Refusal(f"its output {quoted(extra[0])} is used; supported is the use of its first output")

    def _read_output(self) -> Tensor:
        name = self.graph.output[0].name if self.graph.output else ""
        value = self.values.get(name)
        if isinstance(value, Step) or (isinstance(value, Tensor) and value.dynamic is not None):
            self.refusals.add(
                f"output {quoted(name)} holds integers of dynamic steps; end the model behind a Mul with the step"
            )
        if self.builder.dynamic and any(isinstance(layer, Rounding) for layer in self.builder.layers):
            self.refusals.add("fixed steps beside dynamic ones; supported is one kind: quantise the model again")
        refuse_between(self.builder, self.refusals)
        if isinstance(value, Tensor):
            if value.entry is not None:
                self.refusals.add(f"output {quoted(name)} is the input itself; there is nothing to verify")
            elif value.integers is not None and value.logits is None:
                self.builder.notes.append(f"{name}: integers in the file; outputs are the numbers that they stand for.")
            return value
        if isinstance(value, Constant) or (name and name not in self.values):
            self.refusals.add(f"output {quoted(name)} does not depend on the input")
        return Tensor(layer=0, shape=())


def _shared(builder: NetworkBuilder) -> list[str]:
    """A note for every constant that several weighted layers hold."""
    return [
        f"{shortened(source)}: used by layers {listed(list(map(repr, users)))}, each of which is quantised on its own."
        for source, users in builder.weight_uses.items()
        if len(users) > 1
    ]
