"""A TFLite file as plain data: tensors, operators with their options, what goes in and what comes out.

Everything that the flatbuffer says is checked here against the bytes that are there, so what reads a `Model` meets no
index that leads nowhere and no constant of the wrong length. Raises ModelError for whatever is missing or damaged.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.errors import ModelError, PackageMissing
from qverify.files import user as user_files
from qverify.files.user import Kind
from qverify.text.brief import Brief
from qverify.text.shortened import first_line, quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from qverify.arrays import Array

IDENTIFIER = b"TFL3"
"""What stands at byte 4 of every TFLite file."""

_KIND = Kind("the .tflite file", "check the path of the model", ModelError)
_MOST_BYTES = 1 << 31
"""Of a compressed file when it is unpacked: a flatbuffer is no longer."""

# What the readers of flatbuffers raise where the bytes make no sense.
_DAMAGE = (struct.error, IndexError, KeyError, ValueError, TypeError, OverflowError, AttributeError, MemoryError)

RANGES = {"INT4": (-8, 7), "INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-(1 << 15), (1 << 15) - 1)}
"""Smallest and largest number of the types that are quantised."""

DTYPES = {
    "FLOAT32": "<f4",
    "FLOAT16": "<f2",
    "FLOAT64": "<f8",
    "INT8": "<i1",
    "UINT8": "<u1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
}
"""The types of constants that are read, as numpy stores them; INT4 besides, two in a byte."""

_WINDOW = ("Padding", "StrideH", "StrideW", "FusedActivationFunction")
_DILATION = ("DilationHFactor", "DilationWFactor")
_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, *_DILATION)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, *_DILATION)),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat")),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterHeight", "FilterWidth")),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "GELU": ("GeluOptions", ("Approximate",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "RESHAPE": ("ReshapeOptions", ("NewShapeAsNumpy",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
}
"""Of the operators that have options: their table in the schema, and the fields that are read."""

ABSENT = -1
"""The index of an optional tensor that is not given."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class TensorInfo(Brief):
    """A tensor of the file.

    `shape` is as recorded, the batch first; `values` (shape) are integers as stored, or floats, and None where the
    tensor is computed. `scales` and `zeros`, one or one an index of `axis`, are empty where the tensor is not
    quantised; scales are positive normal float32 numbers, zeros fit the type. `oddity`: what cannot be read of it.
    """

    index: int
    name: str
    kind: str
    shape: tuple[int, ...]
    scales: Array
    zeros: Array
    axis: int
    values: np.ndarray | None
    oddity: str = ""

    @property
    def label(self) -> str:
        """The word for the tensor in messages."""
        return f"tensor {quoted(self.name)}" if self.name else f"tensor {self.index}"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class OperatorInfo(Brief):
    """An operator: its kind as the schema spells it, indices of tensors, and options by their names in the schema."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Model(Brief):
    """The first subgraph of a file, in the order in which its operators run. `content`: the whole file, unpacked."""

    content: bytes
    tensors: tuple[TensorInfo, ...]
    operators: tuple[OperatorInfo, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_model(path: Path) -> Model:
    """The model in a file, which may be compressed by gzip. Raises ModelError, and PackageMissing without `tflite`."""
    name = user_files.shown_path(path)
    try:
        content = user_files.unzipped(user_files.read(path, _KIND), _MOST_BYTES)
    except OverflowError:
        raise ModelError(f"{name} unpacks to more than 2 GiB; give the .tflite file.") from None
    except OSError as error:
        raise ModelError(f"{name} is damaged or was cut short ({first_line(error)}); download it again.") from error
    return parsed(content, name)


def parsed(content: bytes, name: str) -> Model:
    """The model in the bytes of a file called `name` in messages. Raises ModelError, and PackageMissing."""
    if content[4:8] != IDENTIFIER:
        raise ModelError(f"{name} is no TFLite file; give one, or an .onnx file.")
    try:
        import tflite
    except ImportError as error:
        raise PackageMissing(
            f"Reading TFLite files needs a package that cannot be loaded ({first_line(error)}); "
            "pip install 'qverify[tflite]'."
        ) from error
    try:
        return _Parser(tflite, content, name).model()
    except ModelError:
        raise
    except _DAMAGE as error:
        raise ModelError(f"{name} is damaged or was cut short; export or download it again.") from error


class _Parser:
    """Reads tables of the schema; raises ModelError or one of `_DAMAGE`."""

    def __init__(self, schema: Any, content: bytes, name: str) -> None:
        self.schema, self.content, self.name = schema, content, name
        self.file = schema.Model.GetRootAs(content, 0)
        self.kinds = {value: key for key, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
        self.types = {value: key for key, value in vars(schema.TensorType).items() if isinstance(value, int)}

    def model(self) -> Model:
        """The first subgraph; others are called by operators alone, and no such operator is read."""
        self._counted(self.file.SubgraphsLength(), 1)
        graph = self.file.Subgraphs(0)
        tensors = tuple(self._tensor(graph.Tensors(i), i) for i in range(self._counted(graph.TensorsLength())))
        count = len(tensors)
        return Model(
            content=self.content,
            tensors=tensors,
            operators=tuple(
                self._operator(graph.Operators(i), i, count) for i in range(self._counted(graph.OperatorsLength()))
            ),
            inputs=self._indices(graph.InputsAsNumpy(), count),
            outputs=self._indices(graph.OutputsAsNumpy(), count),
        )

    def _counted(self, length: int, least: int = 0) -> int:
        """The length of a vector of tables, whose offsets alone take four bytes each."""
        if not least <= length <= len(self.content) // 4:
            raise IndexError
        return length

    def _indices(self, given: Any, count: int) -> tuple[int, ...]:
        """Indices of tensors, each there or `ABSENT`; a vector that is not there is read as 0."""
        found = () if isinstance(given, int) else tuple(int(i) for i in given)
        if any(not ABSENT <= i < count for i in found):
            raise IndexError
        return found

    def _operator(self, table: Any, index: int, tensors: int) -> OperatorInfo:
        if not 0 <= table.OpcodeIndex() < self._counted(self.file.OperatorCodesLength()):
            raise IndexError
        code = self.file.OperatorCodes(table.OpcodeIndex())
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = self.kinds.get(number, f"operator {number}")
        if kind == "CUSTOM":
            kind = f"custom operator {quoted(code.CustomCode() or b'')}"
        outputs = self._indices(table.OutputsAsNumpy(), tensors)
        if not outputs or ABSENT in outputs:
            raise IndexError
        return OperatorInfo(
            index=index,
            kind=kind,
            inputs=self._indices(table.InputsAsNumpy(), tensors),
            outputs=outputs,
            options=self._options(table, kind),
        )

    def _options(self, table: Any, kind: str) -> dict[str, Any]:
        """The fields that `_OPTIONS` names; of an operator without options, what the schema says they are then."""
        if kind not in _OPTIONS:
            return {}
        name, names = _OPTIONS[kind]
        options, given = getattr(self.schema, name)(), table.BuiltinOptions()
        if given is None:
            return {}
        if table.BuiltinOptionsType() != getattr(self.schema.BuiltinOptions, name):
            raise ValueError
        options.Init(given.Bytes, given.Pos)
        return {field: getattr(options, field)() for field in names}

    def _tensor(self, table: Any, index: int) -> TensorInfo:
        kind = self.types.get(table.Type(), f"type {table.Type()}")
        shape = () if table.ShapeIsNone() else tuple(int(n) for n in table.ShapeAsNumpy())
        if any(n < 0 for n in shape):
            raise ValueError
        name = shortened(table.Name() or b"", 1000)
        quantised = kind in RANGES or kind in ("INT32", "INT64")  # floats may have ranges left over from training
        scales, zeros, axis, oddity = self._quantisation(table.Quantization() if quantised else None)
        if table.Sparsity() is not None:
            oddity = "its numbers are stored as a sparse tensor; export the model with dense weights"
        label = f"{self.name}: tensor {quoted(name)}"
        _check_quantisation(label, kind, scales, zeros)
        if len(scales) > 1 and not (0 <= axis < len(shape) and len(scales) == shape[axis]):
            raise ModelError(f"{label} has {len(scales)} scales, which do not fit its shape {shape}; export it again.")
        values = None if oddity else self._values(table.Buffer(), kind, shape, label)
        return TensorInfo(
            index=index,
            name=name,
            kind=kind,
            shape=shape,
            scales=scales,
            zeros=zeros,
            axis=axis,
            values=values,
            oddity=oddity,
        )

    def _quantisation(self, table: Any) -> tuple[Array, Array, int, str]:
        """Scales, zero points, their axis, and what of it is not supported; zero points default to 0."""
        none = np.zeros(0)
        if table is None:
            return none, none, 0, ""
        oddity = ""
        if table.DetailsType():
            oddity = "it is quantised in blocks or in a way of its own; quantise it per tensor or per channel"
        scales = none if table.ScaleIsNone() else table.ScaleAsNumpy().astype(np.float64)
        zeros = 0.0 * scales if table.ZeroPointIsNone() else table.ZeroPointAsNumpy().astype(np.float64)
        if not len(scales):
            zeros = none
        if len(zeros) == 1:
            zeros = np.repeat(zeros, len(scales))
        return scales, zeros, int(table.QuantizedDimension()), oddity

    def _values(self, buffer: int, kind: str, shape: tuple[int, ...], label: str) -> np.ndarray | None:
        """The constant in a buffer, None if that is empty or of a type that no layer reads."""
        if not 0 <= buffer < self._counted(self.file.BuffersLength()):
            raise IndexError
        table = self.file.Buffers(buffer)
        if table.Offset() > 1:
            raise ModelError(f"{self.name} keeps weights behind its flatbuffer, which is not supported.")
        if table.DataIsNone() or not table.DataLength() or not (kind in DTYPES or kind == "INT4"):
            return None
        data = np.frombuffer(table.DataAsNumpy(), np.uint8)
        count, bits = prod(shape), 4 if kind == "INT4" else 8 * np.dtype(DTYPES[kind]).itemsize
        if len(data) != -(-count * bits // 8):
            raise ModelError(f"{label} has shape {shape} and {len(data)} bytes, which do not fit; export it again.")
        if kind == "INT4":  # two in a byte, the lower half first
            halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
            return np.where(halves > 7, halves - 16, halves).astype(np.int8).reshape(shape)
        return data.view(DTYPES[kind]).reshape(shape)


def _check_quantisation(label: str, kind: str, scales: Array, zeros: Array) -> None:
    """Raise ModelError for scales that are no positive normal numbers, and zero points outside the type."""
    if len(zeros) != len(scales):
        raise ModelError(f"{label} has {len(scales)} scales and {len(zeros)} zero points; export it again.")
    wrong = scales[~(np.isfinite(scales) & (scales >= np.finfo(np.float32).tiny))]
    if len(wrong):
        raise ModelError(
            f"{label} has the scale {wrong[0]:.3g}, but scales are positive, finite and normal numbers; quantise the "
            "model again."
        )
    lowest, highest = RANGES.get(kind, (0, 0))
    outside = zeros[(zeros < lowest) | (zeros > highest)]
    if len(outside):
        raise ModelError(
            f"{label} of type {kind} has the zero point {outside[0]:.0f}, which that type does not have; quantise the "
            "model again."
        )
