"""Network -> ONNX, so that networks and the witnesses found for them can be run elsewhere.

The model has one input `input` (N, *input_shape), or the several of the model that the network was read from, and one
output `output` (N, output_size), opset 17. Nodes are called as their layers. A `Relu` with an offset becomes Relu,
Add, Relu.

In float32 weights are rounded to the nearest float32, and `load` reads the model again; of `quantised`, only
that average pooling is not survives, where an AveragePool can say what the layer does (ONNX has no such mark).
In float64 nothing is rounded: what to replay a witness with. onnxruntime has no Conv in double on the CPU, so
there a Conv is written as Pad, Gather (of what each output position looks at), MatMul and Transpose. `load` does
not read that form.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qverify.activations.layer import Activation
from qverify.errors import ModelError, UsageError
from qverify.gather import Gather
from qverify.kinds import NETWORK, expected, path_like
from qverify.layers import Add, Conv, Dense, DynamicRounding, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.network import Network
from qverify.onnx.activation_writer import write_activation
from qverify.onnx.input_writer import declared, entered, part_layers
from qverify.text.escapes import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from os import PathLike

OPSET, IR_VERSION = 17, 8  # what every onnxruntime since 1.12 (2022) runs
_TYPES: dict[str, tuple[Any, int]] = {
    "float32": (np.float32, TensorProto.FLOAT),
    "float64": (np.float64, TensorProto.DOUBLE),
}
_Shape = tuple[int, ...]


def save(network: Network, path: str | PathLike[str], dtype: str = "float32") -> None:
    """Write `to_onnx(network, dtype)`; raises what that raises, and ModelError if the file cannot be written."""
    path_like(path, "The file to write", "the path of an .onnx file", ModelError)
    model = to_onnx(network, dtype)
    try:
        onnx.save_model(model, path, format="protobuf")
    except OSError as error:
        raise ModelError(f"{path} cannot be written ({error.strerror}); choose another place.") from error
    except ValueError:  # a NUL in it
        raise ModelError(f"{shown(path)} cannot be the path of a file; choose another place.") from None


def to_onnx(network: Network, dtype: str = "float32") -> onnx.ModelProto:
    """The network as an ONNX model, in "float32" or "float64".

    Raises UsageError for another dtype, and ModelError if a weight is too large for float32, or an input is called
    as the output.
    """
    expected(network, Network, "The network to write", NETWORK)
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise UsageError(f"dtype {shown(dtype)} is unknown; choose 'float32' or 'float64'.")
    own = part_layers(network)
    writer = Writer(dtype, network, own)
    writer.values.append(entered(writer, network))
    for index, layer in enumerate(network.layers[1:], start=1):
        if index in own and network.parts is not None:
            part = network.parts[own[index]]
            writer.values.append((part.name, part.shape))
        else:
            writer.values.append(_WRITERS[type(layer)](writer, layer))
    writer.finish(network.output_size)
    kind = _TYPES[dtype][1]
    graph = helper.make_graph(
        writer.nodes,
        "qverify",
        declared(network, kind),
        [helper.make_tensor_value_info("output", kind, ["N", network.output_size])],
        list(writer.constants.values()),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="qverify"
    )


class Writer:
    """A model being written: nodes and constants. `values`: one a layer, (N, *shape), by name and shape."""

    def __init__(self, dtype: str, network: Network, own: Mapping[int, int]) -> None:
        self.number, self.double = _TYPES[dtype][0], dtype == "float64"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.values: list[tuple[str, _Shape]] = []
        inputs = ["input"] if network.parts is None else [part.name for part in network.parts]
        names = [layer.name for index, layer in enumerate(network.layers) if index and index not in own]
        self._taken = {*inputs, "output", *names}
        self._given = {*inputs, "", "output"}

    def _fresh(self, name: str) -> str:
        """A name not taken yet: this one, or with a number appended if a layer, a node or a constant has it."""
        unique, count = name, 2
        while unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self._taken.add(unique)
        return unique

    def constant(self, name: str, values: Any) -> str:
        """An initializer: integers as int64, all else in the number type of the model. Returns its name."""
        array = np.asarray(values)
        with np.errstate(over="ignore"):
            array = array.astype(np.int64 if array.dtype.kind == "i" else self.number)
        if not np.isfinite(array).all():
            raise ModelError(f"{name} holds numbers too large for float32; export in float64.")
        unique = self._fresh(name)
        self.constants[unique] = numpy_helper.from_array(np.ascontiguousarray(array), unique)
        return unique

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append the node that gives a layer's output and has its name; returns the name of the output."""
        # An empty name means "absent" in ONNX.
        output = self._fresh(f"{name}/output") if name in self._given else name
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def step(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node on the way to a layer's output; onnxruntime wants its name to be unique, too."""
        return self.node(kind, inputs, self._fresh(name), **attributes)

    def cast(self, x: str, name: str, double: bool) -> str:
        """A Cast to float64 or float32."""
        return self.step("Cast", [x], name, to=_TYPES["float64" if double else "float32"][1])

    def shaped(self, value: tuple[str, _Shape], shape: _Shape) -> str:
        """This value as (N, *shape), by Flatten or Reshape where it has another shape."""
        name, have = value
        if have == shape:
            return name
        if len(shape) == 1:
            return self.step("Flatten", [name], f"{name}/flat", axis=1)
        return self.step("Reshape", [name, self.constant(f"{name}/shape", [-1, *shape])], f"{name}/shaped")

    def input(self, layer: Layer, shape: _Shape, which: int = 0) -> str:
        """The name of a value that the layer reads, brought to (N, *shape)."""
        return self.shaped(self.values[layer.inputs[which]], shape)

    def finish(self, size: int) -> None:
        """Give the last layer's value the shape (N, size) and the name `output`."""
        self.shaped(self.values[-1], (size,))
        self.nodes[-1].output[0] = "output"  # no node reads the last layer, and it was written last


def _dense(writer: Writer, layer: Dense) -> tuple[str, _Shape]:
    inputs = [writer.input(layer, (layer.fan_in,)), writer.constant(f"{layer.name}.weight", layer.weight)]
    if layer.has_bias or layer.bias.any():
        inputs.append(writer.constant(f"{layer.name}.bias", layer.bias))
    return writer.node("Gemm", inputs, layer.name, transB=1), (layer.size,)


def _conv(writer: Writer, layer: Conv) -> tuple[str, _Shape]:
    """Conv or AveragePool, over one axis where the layer's shape says so."""
    if writer.double:
        return _gathered_conv(writer, layer)
    top, _, bottom, _ = layer.pads
    flat = len(layer.shape) == 2 and layer.in_shape[1] == layer.weight.shape[2] == 1 and top == bottom == 0
    first = 1 if flat else 0
    kernel, (channels, *sizes) = layer.weight.shape[2:][first:], layer.in_shape
    window: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": layer.strides[first:],
        "pads": layer.pads[:2][first:] + layer.pads[2:][first:],
    }
    x, out = writer.input(layer, (channels, *sizes[first:])), layer.out_shape
    shape = (out[0], *out[1:][first:])
    if _is_average(layer):
        return writer.node("AveragePool", [x], layer.name, count_include_pad=1, **window), shape
    inputs = [x, writer.constant(f"{layer.name}.weight", layer.weight.reshape(*layer.weight.shape[:2], *kernel))]
    if layer.has_bias or layer.bias.any():
        inputs.append(writer.constant(f"{layer.name}.bias", layer.bias))
    window |= {"dilations": layer.dilations[first:], "group": layer.groups}
    return writer.node("Conv", inputs, layer.name, **window), shape


def _is_average(layer: Conv) -> bool:
    """Whether AveragePool of opset 17 computes this layer, so that `load` knows the weights are not quantised."""
    kernel = layer.weight.shape[2:]
    depthwise = layer.groups == layer.in_shape[0] == layer.weight.shape[0]
    even = (layer.weight == 1.0 / prod(kernel)).all() and not layer.bias.any()
    # onnxruntime refuses pads that a whole window fits into.
    fits = layer.dilations == (1, 1) and all(p < k for p, k in zip(layer.pads, kernel * 2, strict=True))
    return bool(not layer.quantised and not layer.has_bias and depthwise and even and fits)


def _gathered_conv(writer: Writer, layer: Conv) -> tuple[str, _Shape]:
    """A Conv by a gather: a zero before the flat image, (N, groups, positions, fan_in) picked, times the kernels."""
    name, size = layer.name, prod(layer.in_shape)
    pads = writer.constant(f"{name}/pads", [0, 1, 0, 0])
    padded = writer.step("Pad", [writer.input(layer, (size,)), pads], f"{name}/padded")
    taps = writer.constant(f"{name}/taps", _taps(layer))
    patches = writer.step("Gather", [padded, taps], f"{name}/patches", axis=1)
    kernels = layer.weight.reshape(layer.groups, -1, layer.fan_in)
    weight = writer.constant(f"{name}.weight", kernels.transpose(0, 2, 1))
    product = writer.step("MatMul", [patches, weight], f"{name}/product")
    shape = (layer.groups, kernels.shape[1], layer.positions)
    out = writer.step("Transpose", [product], f"{name}/transposed", perm=[0, 1, 3, 2])
    bias = writer.constant(f"{name}.bias", layer.bias.reshape(*shape[:2], 1))
    return writer.node("Add", [out, bias], name), shape


def _taps(layer: Conv) -> np.ndarray:
    """(groups, positions, fan_in): 1 + the index of the input that an output position sees there, 0 for padding.

    Written without `Conv.patches`: a replay should not repeat a mistake of `Network.evaluate`.
    """
    channels, height, width = layer.in_shape
    _, rows, columns = layer.out_shape
    kernel_h, kernel_w = layer.weight.shape[2:]
    row = np.arange(rows)[:, None] * layer.strides[0] + np.arange(kernel_h) * layer.dilations[0] - layer.pads[0]
    column = np.arange(columns)[:, None] * layer.strides[1] + np.arange(kernel_w) * layer.dilations[1] - layer.pads[1]
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    channel = np.arange(channels).reshape(layer.groups, 1, 1, -1, 1, 1)
    taps = np.where(inside[:, :, None], 1 + (channel * height + row[:, :, None]) * width + column[:, :, None], 0)
    return taps.reshape(layer.groups, rows * columns, layer.fan_in)


def _scale(writer: Writer, layer: Scale) -> tuple[str, _Shape]:
    shape = layer.shape
    scale = writer.constant(f"{layer.name}.scale", layer.scale.reshape(shape))
    shift = writer.constant(f"{layer.name}.shift", layer.shift.reshape(shape))
    scaled = writer.node("Mul", [writer.input(layer, shape), scale], layer.name)
    return writer.step("Add", [scaled, shift], f"{layer.name}/shifted"), shape  # `load` calls both as the first


def _relu(writer: Writer, layer: Relu) -> tuple[str, _Shape]:
    x, name, shape = writer.input(layer, layer.shape), layer.name, layer.shape
    if layer.offset is not None:
        offset = writer.constant(f"{name}.offset", layer.offset.reshape(shape))
        x = writer.step("Add", [writer.step("Relu", [x], f"{name}/exact"), offset], f"{name}/moved")
    return writer.node("Relu", [x], name), shape


def _activation(writer: Writer, layer: Activation) -> tuple[str, _Shape]:
    shape = layer.shape
    return write_activation(writer, layer, writer.input(layer, shape), shape), shape


def _rounding(writer: Writer, layer: Rounding) -> tuple[str, _Shape]:
    """The parts of the layer's definition, one node each."""
    x, name, shape = writer.input(layer, layer.shape), layer.name, layer.shape

    def constant(word: str, values: np.ndarray) -> str:
        return writer.constant(f"{name}.{word}", values.reshape(shape))

    def step(kind: str, word: str, *inputs: str) -> str:
        return writer.step(kind, list(inputs), f"{name}/{word}")

    y = x if layer.offset is None else step("Add", "moved", x, constant("offset", layer.offset))
    low, high = constant("low", layer.low), constant("high", layer.high)
    keeps, zero = layer.dead >= 0, constant("zero", np.zeros(layer.size))
    if keeps.any():  # where 0 is not kept, the ends stand for it, to which all is clipped
        above = step("Max", "above", y, constant("least", np.where(keeps, 0.0, layer.low)))
        below = step("Min", "below", y, constant("most", np.where(keeps, 0.0, layer.high)))
        signed = step("Where", "signed", step("Greater", "positive", x, zero), above, below)
        distance = step("Abs", "distance", x)
        alive = step("Greater", "alive", distance, constant("dead", layer.dead))
        y = step("Where", "kept", alive, signed, zero)
    if (layer.step > 0).any():
        grid = constant("step", np.where(layer.step > 0, layer.step, 1.0))
        rounded = step("Mul", "rounded", step("Round", "whole", step("Div", "steps", y, grid)), grid)
        on_grid = step("Greater", "gridded", constant("grid", layer.step), zero)
        y = step("Where", "snapped", on_grid, rounded, y)
    y = step("Max", "raised", y, low)
    return writer.node("Min", [y, high], name), shape


def _max_pool(writer: Writer, layer: MaxPool) -> tuple[str, _Shape]:
    """MaxPool, over one axis where the layer's shape says so; in float64, which onnxruntime's takes as well."""
    top, _, bottom, _ = layer.pads
    flat = len(layer.shape) == 2 and layer.in_shape[1] == layer.kernel[0] == 1 and top == bottom == 0
    first = 1 if flat else 0
    (channels, *sizes), out = layer.in_shape, layer.out_shape
    spans = [(n - 1) * s + k for n, s, k in zip(out[1:], layer.strides, layer.kernel, strict=True)]
    # onnxruntime refuses pads that a whole window fits into, used or not.
    ends = [max(0, span - begin - n) for span, begin, n in zip(spans, layer.pads[:2], sizes, strict=True)]
    pads = [*layer.pads[:2][first:], *ends[first:]]
    window: dict[str, Any] = {"kernel_shape": layer.kernel[first:], "strides": layer.strides[first:], "pads": pads}
    x = writer.input(layer, (channels, *sizes[first:]))
    return writer.node("MaxPool", [x], layer.name, **window), (out[0], *out[1:][first:])


def _dynamic_rounding(writer: Writer, layer: DynamicRounding) -> tuple[str, _Shape]:
    raise ModelError(f"Layer {layer.name!r} rounds to steps of its own input; keep the file that it was read from.")


def _add(writer: Writer, layer: Add) -> tuple[str, _Shape]:
    inputs = [writer.input(layer, layer.shape, which) for which in (0, 1)]
    return writer.node("Add", inputs, layer.name), layer.shape


def _product(writer: Writer, layer: Product) -> tuple[str, _Shape]:
    inputs = [writer.input(layer, layer.shape, which) for which in (0, 1)]
    return writer.node("Mul", inputs, layer.name), layer.shape


def _gather(writer: Writer, layer: Gather) -> tuple[str, _Shape]:
    """Concat of several flat layers, and a Gather unless they stay in order; a constant behind them is read where one
    stands, and where there are several they are added, behind a 0."""
    name, sizes = layer.name, [prod(writer.values[i][1]) for i in layer.inputs]
    flat = [writer.shaped(writer.values[i], (size,)) for i, size in zip(layer.inputs, sizes, strict=True)]
    x = flat[0] if len(flat) == 1 else writer.step("Concat", flat, f"{name}/joined", axis=1)
    index, fills = np.array(layer.index), np.unique(layer.fill[layer.constant])
    if layer.constant.any():
        index[layer.constant] = sum(sizes)
        pads = writer.constant(f"{name}/pads", [0, 0, 0, 1])
        value = [writer.constant(f"{name}/value", fills[0])] if len(fills) == 1 else []
        x = writer.step("Pad", [x, pads, *value], f"{name}/padded")
    places = writer.constant(f"{name}/index", index.reshape(layer.shape))
    if len(fills) <= 1:
        return writer.node("Gather", [x, places], name, axis=1), layer.shape
    x = writer.step("Gather", [x, places], f"{name}/picked", axis=1)
    return writer.node("Add", [x, writer.constant(f"{name}.fill", layer.fill.reshape(layer.shape))], name), layer.shape


_WRITERS: dict[type[Layer], Callable[[Writer, Any], tuple[str, _Shape]]] = {
    Dense: _dense,
    Conv: _conv,
    Scale: _scale,
    Relu: _relu,
    Activation: _activation,
    Rounding: _rounding,
    MaxPool: _max_pool,
    DynamicRounding: _dynamic_rounding,
    Add: _add,
    Product: _product,
    Gather: _gather,
}
