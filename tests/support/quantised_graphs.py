"""Quantised graphs written by hand, and onnxruntime as their judge.

With scales that are powers of two float32 is exact, so that every value counts, ties among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qverify.onnx.reader import load
from tests.support.onnx_models import node
from tests.support.sessions import NONE, exact_session

Array = np.ndarray
RNG = np.random.default_rng(3)
W8 = RNG.integers(-127, 128, (4, 3)).astype(np.int8)
K8 = RNG.integers(-127, 128, (3, 2, 2, 2)).astype(np.int8)
B32 = RNG.integers(-4000, 4000, 3).astype(np.int32)
IMAGE = ("N", 2, 4, 3)
MS = "com.microsoft"


def f(*values: float) -> Array:
    """float32, a scalar if it is one number."""
    return np.asarray(values if len(values) > 1 else values[0], dtype=np.float32)


def i8(value: int) -> Array:
    return np.array(value, dtype=np.int8)


def u8(value: int) -> Array:
    return np.array(value, dtype=np.uint8)


def graph(
    *nodes: onnx.NodeProto,
    shape: tuple[Any, ...] = ("N", 4),
    opset: int = 21,
    rank: int = 0,
    ends: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    **constants: Any,
) -> onnx.ModelProto:
    """From `x` to `y`, of these types; constants as they are, or as TensorProto."""
    tensors = [t if isinstance(t, TensorProto) else numpy_helper.from_array(t, n) for n, t in constants.items()]
    for name, tensor in zip(constants, tensors, strict=True):
        tensor.name = name
    shapes = (shape, ["?" * (axis + 1) for axis in range(rank or len(shape))])
    values = [helper.make_tensor_value_info(n, kind, s) for n, kind, s in zip("xy", ends, shapes, strict=True)]
    built = helper.make_graph(list(nodes), "g", values[:1], values[1:], tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(built, opset_imports=imports, ir_version=10 if opset < 25 else 12)


def by_onnxruntime(built: onnx.ModelProto, x: Array) -> Array:
    """(N, outputs), a sample at a time, node by node."""
    session = exact_session(built, NONE)
    shape = [axis.dim_value or 1 for axis in built.graph.input[0].type.tensor_type.shape.dim]
    return np.stack([np.ravel(session.run(None, {"x": row.reshape(shape)})[0]) for row in x])


def samples(built: onnx.ModelProto, count: int = 60) -> Array:
    """Multiples of 1/64 in [-8, 8], so that many lie on ties."""
    size = int(np.prod([axis.dim_value or 1 for axis in built.graph.input[0].type.tensor_type.shape.dim]))
    return (np.random.default_rng(9).integers(-512, 513, (count, size)) / 64).astype(np.float32)


def qdq(name: str, source: str, out: str, scale: str = "s", zero: str = "z", **more: Any) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear."""
    return [
        node("QuantizeLinear", f"{source} {scale} {zero}", name, **more),
        node("DequantizeLinear", f"{name} {scale} {zero}", out, **more),
    ]


S: dict[str, Any] = {"s": f(1 / 16), "z": u8(120)}
WEIGHT: dict[str, Any] = {"w": W8, "ws": f(1 / 64), "wz": i8(0)}
DEQUANTISED = node("DequantizeLinear", "w ws wz", "wd")
LINEAR: dict[str, Any] = {
    "s": f(1 / 16),
    "z": u8(120),
    "w": W8,
    "ws": f(1 / 64),
    "wz": i8(5),
    "t": f(1 / 2),
    "u": u8(100),
}
KERNEL: dict[str, Any] = LINEAR | {"w": K8, "wz": i8(0)}


def int4(values: list[int], shape: tuple[int, ...], kind: int = TensorProto.INT4) -> onnx.TensorProto:
    return helper.make_tensor("t", kind, shape, values)


def small_image(*nodes: onnx.NodeProto, **own: Any) -> onnx.ModelProto:
    """A graph for images (1, 4, 3) with a kernel `k`, a weight `w`, their scales and those between; `own`: the rest."""
    rng = np.random.default_rng(6)
    return graph(
        *nodes,
        shape=("N", 1, 4, 3),
        rank=2,
        s=f(0.013),
        z=u8(128),
        k=rng.integers(-127, 128, (2, 1, 2, 2)).astype(np.int8),
        ks=f(0.011),
        t=f(0.027),
        u=u8(131),
        v=f(0.05),
        w=rng.integers(-127, 128, (12, 3)).astype(np.int8),
        ws=f(0.004),
        r=f(0.061),
        **own,
    )


def integer_operators() -> onnx.ModelProto:
    """A convolution, a sum and a dense layer by operators on integers."""
    return small_image(
        node("QuantizeLinear", "x s z", "q0"),
        node("QLinearConv", "q0 s z k ks kz t u b", "q1"),
        node("QLinearAdd", "q1 t u q1 t u v u", "q3", domain="com.microsoft"),
        node("Flatten", "q3", "g"),
        node("QGemm", "g v u w ws kz bias r u", "q4", domain="com.microsoft"),
        node("DequantizeLinear", "q4 r u", "y"),
        kz=i8(0),
        b=np.array([2100, -2800], np.int32),
        bias=np.array([1000, -1500, 500], np.int32),
    )


def remarks(model: onnx.ModelProto) -> list[str]:
    """What the comparison with onnxruntime says; that pairs may saturate elsewhere (pairs.py) is no part of it."""
    return [note for note in load(model).notes if "may leave int16" not in note]
