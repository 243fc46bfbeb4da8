"""TFLite files built by hand with LiteRT's own schema, and LiteRT to run them: nothing of qverify is in here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs the extra tflite")
flatbuffers = pytest.importorskip("flatbuffers", reason="needs the extra tflite")

Array = np.ndarray
RANGES = {"INT4": (-8, 7), "INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-(1 << 15), (1 << 15) - 1)}
DTYPES = {"FLOAT32": "f4", "FLOAT16": "f2", "INT8": "i1", "UINT8": "u1", "INT16": "i2", "INT32": "i4", "INT64": "i8"}
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "GELU": "GeluOptions",
    "RESHAPE": "ReshapeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
NONE, RELU, RELU_N1, RELU6 = 0, 1, 2, 3
SAME, VALID = 0, 1
WINDOW = {"padding": SAME, "strideH": 1, "strideW": 1, "fusedActivationFunction": NONE}


def mlperf(name: str) -> Path:
    """A file of MLPerf Tiny; skips where the data are not."""
    path = Path(os.environ.get("QVERIFY_DATA", "data")) / "mlperf_tiny" / name
    if not path.exists():
        pytest.skip("MLPerf Tiny is not here")
    return path


class Graph:
    """A graph being written. Methods give indices of tensors; the first tensor is the input, the last the output."""

    def __init__(self, kind: str, shape: tuple[int, ...], scale: float = 0.02, zero: int = 0) -> None:
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.kind = kind
        self.given = self.tensor(kind, shape, scale, zero)

    def tensor(self, kind: str, shape: tuple[int, ...], scale: Any = 0.02, zero: Any = 0, axis: int = 0) -> int:
        """A tensor that an operator gives; quantised unless it is a float."""
        made = schema.TensorT()
        made.name, made.type = f"t{len(self.graph.tensors)}".encode(), getattr(schema.TensorType, kind)
        made.shape, made.buffer = list(shape), 0
        if kind in (*RANGES, "INT32", "INT64") and scale is not None:
            quantised = schema.QuantizationParametersT()
            quantised.scale = np.atleast_1d(np.asarray(scale, np.float32))
            quantised.zeroPoint = np.broadcast_to(np.asarray(zero, np.int64), quantised.scale.shape).copy()
            quantised.quantizedDimension = axis
            made.quantization = quantised
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def constant(self, kind: str, values: Any, scale: Any = None, zero: Any = 0, axis: int = 0) -> int:
        """A constant: integers as stored, or floats."""
        array, buffer = np.asarray(values), schema.BufferT()
        if kind == "INT4":
            nibbles = np.resize(array.reshape(-1) & 15, -(-array.size // 2) * 2).astype(np.uint8)
            buffer.data = nibbles[::2] | (nibbles[1::2] << 4)
        else:
            buffer.data = np.frombuffer(array.astype("<" + DTYPES[kind]).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        index = self.tensor(kind, array.shape, scale, zero, axis)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def add(self, kind: str, inputs: list[int], output: int, **options: Any) -> int:
        """An operator with its options by the names of the schema; gives `output`."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [output]
        if kind in OPTIONS:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[kind])
            operator.builtinOptions = getattr(schema, f"{OPTIONS[kind]}T")()
            for name, value in options.items():
                assert hasattr(operator.builtinOptions, name), name
                setattr(operator.builtinOptions, name, value)
        self.graph.operators.append(operator)
        return output

    def content(self, output: int | None = None) -> bytes:
        """The file's bytes; its output is that of the last operator unless another is named."""
        self.graph.inputs = [self.given]
        self.graph.outputs = [self.graph.operators[-1].outputs[0] if output is None else output]
        return self.packed()

    def packed(self) -> bytes:
        """The bytes, whatever the inputs and outputs are."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def stored(content: bytes, folder: Path, name: str = "model.tflite") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


class LiteRT:
    """A file in LiteRT's reference kernels, or in those that it takes by itself.

    Samples lie channels first; real numbers go in and out.
    """

    def __init__(self, content: bytes, reference: bool = True) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO,
            experimental_preserve_all_tensors=reference,
            num_threads=1,
        )
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]

    def logits(self) -> int:
        """The tensor that goes into the last operator if that is a SOFTMAX, else the output."""
        last = self.interpreter._get_ops_details()[-1]
        return int((last["inputs"] if last["op_name"] == "SOFTMAX" else last["outputs"])[0])

    def step(self, index: int) -> float:
        """The step of a tensor, 0 for floats."""
        found = next(each for each in self.interpreter.get_tensor_details() if each["index"] == index)
        return float(found["quantization"][0])

    def run(self, samples: Array, index: int) -> Array:
        """(N, *sample) -> (N, size): a tensor, images flattened channels first."""
        return np.array([self._one(sample, index) for sample in samples])

    def _one(self, sample: Array, index: int) -> Array:
        scale, zero = self.input["quantization"]
        given = sample.transpose(1, 2, 0) if sample.ndim == 3 else sample
        if scale:
            limits = np.iinfo(self.input["dtype"])
            given = np.clip(np.rint(given / scale) + zero, limits.min, limits.max)
        self.interpreter.set_tensor(self.input["index"], given.reshape(self.input["shape"]).astype(self.input["dtype"]))
        self.interpreter.invoke()
        found = np.asarray(self.interpreter.get_tensor(index)).astype(np.float64)
        details = next(each for each in self.interpreter.get_tensor_details() if each["index"] == index)
        scale, zero = details["quantization"]
        real = (found - zero) * scale if scale else found
        return (real[0].transpose(2, 0, 1) if real.ndim == 4 else real).reshape(-1)
