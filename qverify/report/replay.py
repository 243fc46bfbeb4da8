"""A stored network run again by onnxruntime: what a witness answers, by none of the code that found it.

`onnx_export` writes float64 networks for this; those with convolutions `onnx_io` does not read back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from qverify.errors import DataError
from qverify.onnx import session as onnx_session
from qverify.onnx.inputs import FLOATS

if TYPE_CHECKING:
    from pathlib import Path

    from qverify.arrays import Array

_OPERATORS = frozenset(
    {
        "Abs",
        "Add",
        "AveragePool",
        "Cast",
        "Celu",
        "Clip",
        "Concat",
        "Conv",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Flatten",
        "Gather",
        "Gemm",
        "Greater",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "PRelu",
        "Pad",
        "Relu",
        "Reshape",
        "Round",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "Transpose",
        "Where",
    }
)  # all that onnx_export writes: none that loops, or reads another file


def outputs(path: Path, x: Array) -> Array:
    """The outputs (K,) float64, all finite, K > 1, of the model at `path` for one input x of any shape that fits.

    Raises DataError if the file is no network such as `onnx_export` writes, or does not answer such an input.
    """
    model = _read(path)
    failures: tuple[type[Exception], ...] = (ValueError, KeyError, StopIteration, RuntimeError, *onnx_session.errors())
    try:
        session = onnx_session.open_session(model.SerializeToString())
        (wanted,) = session.get_inputs()
        sizes = wanted.shape[1:]
        if not all(isinstance(size, int) for size in sizes) or np.prod(sizes, dtype=int) != x.size:
            raise ValueError("another shape")
        kind = FLOATS[next(i for i in model.graph.input if i.name == wanted.name).type.tensor_type.elem_type]
        (found,) = session.run(None, {wanted.name: x.reshape(1, *sizes).astype(kind)})
    except failures as error:
        raise DataError(f"{path.name} does not answer the input stored with it.") from error
    return _answer(path, found)


def _read(path: Path) -> onnx.ModelProto:
    """The model, all of it in this file and of operators that are known. Raises DataError."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except (OSError, DecodeError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read.") from error
    known = all(node.op_type in _OPERATORS and not node.domain for node in model.graph.node)
    elsewhere = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    if not known or elsewhere or model.functions or model.graph.sparse_initializer:
        raise DataError(f"{path.name} is not a network that qverify wrote.")
    return model


def _answer(path: Path, found: Any) -> Array:
    values = np.asarray(found)
    if values.dtype.kind != "f" or values.ndim != 2 or values.shape[0] != 1 or values.shape[1] < 2:
        raise DataError(f"{path.name} gives no outputs of classes.")
    if not np.isfinite(values).all():
        raise DataError(f"{path.name} gives outputs that are not finite.")
    return np.array(values[0], dtype=np.float64)
