"""Quantised models that are not read: one sentence a kind, with the node, the problem and a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from tests.support.onnx_models import node
from tests.support.quantised_graphs import DEQUANTISED, IMAGE, KERNEL, LINEAR, MS, W8, WEIGHT, S, f, graph, qdq, u8

AGAIN = "quantise the model again"
INTEGER_INPUT = (TensorProto.UINT8, TensorProto.FLOAT)


def scaled(scale: float) -> onnx.ModelProto:
    return graph(*qdq("q", "x", "y"), s=f(scale), z=u8(0))


def weights(**changes: Any) -> onnx.ModelProto:
    return graph(DEQUANTISED, node("MatMul", "x wd", "y"), **WEIGHT | changes)


def linear(*nodes: onnx.NodeProto, **changes: Any) -> onnx.ModelProto:
    return graph(
        node("QuantizeLinear", "x s z", "q"), *nodes, node("DequantizeLinear", "o t u", "y"), **LINEAR | changes
    )


def floats8() -> onnx.ModelProto:
    return weights(
        w=helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, (4, 3), [1.0] * 12),
        wz=helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, (), [0.0]),
    )


# Name: (model, what the message must contain)
REFUSALS: dict[str, tuple[onnx.ModelProto, list[str]]] = {
    **{
        f"scale {shown}": (
            scaled(scale),
            [
                f"'q_node' (QuantizeLinear): its scale input 's' holds {shown}; a scale must be "
                f"positive, finite and no subnormal number: {AGAIN}"
            ],
        )
        for scale, shown in (
            (0.0, "0"),
            (np.nan, "nan"),
            (np.inf, "inf"),
            (-0.5, "-0.5"),
            (2.0**-140, f"{2.0**-140:g}"),
        )
    },
    "a scale of weights among others": (
        graph(node("DequantizeLinear", "w ws", "wd", axis=1), node("MatMul", "x wd", "y"), w=W8, ws=f(1, 0, 2)),
        ["'wd_node' (DequantizeLinear): its scale input 'ws' holds 0"],
    ),
    "scale of float16": (
        weights(ws=np.array(0.5, np.float16)),
        [f"its scale input 'ws' is float16; supported is float32: {AGAIN}"],
    ),
    "zero point of another type": (
        weights(wz=u8(0)),
        [f"'wd_node' (DequantizeLinear): its zero point input 'wz' is uint8, and what it goes with int8; {AGAIN}"],
    ),
    "zero points and one scale": (
        weights(wz=np.zeros(3, np.int8)),
        [f"its zero point has shape (3,) and its scale (); {AGAIN}"],
    ),
    "scales that do not fit": (
        weights(ws=f(1, 2), wz=np.zeros(2, np.int8)),
        [f"a scale or zero point of shape (2,) does not fit a tensor of shape (4, 3) along axis 1; {AGAIN}"],
    ),
    "blocks that do not fit": (
        graph(
            node("DequantizeLinear", "w ws", "wd", axis=0, block_size=3),
            node("MatMul", "x wd", "y"),
            w=W8,
            ws=np.ones((3, 3), np.float32),
        ),
        ["of shape (3, 3) does not fit a tensor of shape (4, 3) along axis 0 in blocks of 3"],
    ),
    "scales of a computed tensor that do not fit": (
        graph(*qdq("q", "x", "y", axis=1), s=f(1, 2, 3), z=np.zeros(3, np.uint8)),
        ["'q_node' (QuantizeLinear): a scale or zero point of shape (3,) does not fit a tensor of shape (1, 4)"],
    ),
    "integers of another kind": (
        weights(w=W8.astype(np.int64), wz=np.array(0, np.int64)),
        ["input 'w' is int64; supported are integers of 2, 4, 8 and 16 bits, and int32 for biases"],
    ),
    "weights of float8": (
        floats8(),
        ["'wd_node' (DequantizeLinear): input 'w' is float8_e4m3fn; supported are integers of"],
    ),
    "another scale than before": (
        graph(node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q t z", "y"), **S, t=f(1)),
        [
            "'y_node' (DequantizeLinear): it reads input 'q' with another scale or zero point than it was made with; "
            f"supported are the same: {AGAIN}"
        ],
    ),
    "another zero point in a kernel": (
        linear(node("QLinearMatMul", "q s u w ws wz t u", "o")),
        ["'o_node' (QLinearMatMul): it reads input 'q' with another scale or zero point"],
    ),
    "another zero point for sums": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("MatMulInteger", "q w u wz", "y"),
            ends=(1, TensorProto.INT32),
            **LINEAR,
        ),
        ["'y_node' (MatMulInteger): it reads input 'q' with another zero point than it was made with"],
    ),
    "a scale that is computed": (
        graph(node("QuantizeLinear", "x x z", "q"), node("DequantizeLinear", "q s z", "y"), shape=(1,), **S),
        ["'q_node' (QuantizeLinear): input 'x' depends on the network's input; it must be a constant"],
    ),
    "packed weights": (
        graph(
            node("MatMulNBits", "x w ws", "y", domain=MS, K=4, N=3, bits=4, block_size=16),
            w=np.zeros((3, 1, 8), np.uint8),
            ws=np.ones(3, np.float32),
        ),
        ["(MatMulNBits): the operator is not supported (its weights are in a packed form of onnxruntime; export them"],
    ),
    "LeakyRelu of integers": (
        linear(node("QLinearLeakyRelu", "q t u t u", "o", domain=MS)),
        ["'o_node' (QLinearLeakyRelu): it reads input 'q' with another scale or zero point"],
    ),
    "Concat of integers": (
        linear(node("QLinearConcat", "t u q s z", "o", domain=MS, axis=0)),
        ["it joins along the batch axis"],
    ),
    "a kernel with channels last": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QLinearConv", "q s z w ws wz t u", "o", domain=MS, channels_last=1),
            node("DequantizeLinear", "o t u", "y"),
            shape=IMAGE,
            **KERNEL,
        ),
        ["'o_node' (QLinearConv): the operator is not supported (give the model as it was before onnxruntime opt"],
    ),
    "a pool with channels last": (
        linear(node("QLinearGlobalAveragePool", "q s z t u", "o", domain=MS, channels_last=1)),
        ["its channels come last; supported is channels first: give the model as it was before"],
    ),
    "an input with several scales": (
        graph(
            node("QuantizeLinear", "x s z", "q", axis=1),
            node("QLinearConv", "q s z w ws wz t u", "o"),
            node("DequantizeLinear", "o t u", "y"),
            shape=IMAGE,
            **KERNEL | {"s": f(1, 2), "z": np.zeros(2, np.uint8)},
        ),
        ["'o_node' (QLinearConv): input 'q' has 2 scales; supported is one"],
    ),
    "a bias of another type": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("QGemm", "q s z w ws wz b t u", "o", domain=MS),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
            b=np.zeros(3, np.int8),
        ),
        [f"its bias input 'b' is int8; supported is int32: {AGAIN}"],
    ),
    "arithmetic on integers": (
        linear(node("Add", "q z", "o")),
        [
            "'o_node' (Add): it computes with the integers of input 'q', which is for DequantizeLinear and the "
            "operators of quantised tensors; put a DequantizeLinear before it"
        ],
    ),
    "integers as numbers": (
        graph(node("QuantizeLinear", "x s z", "q"), node("Cast", "q", "y", to=TensorProto.FLOAT), **S),
        ["'y_node' (Cast): it casts the integers of a quantised tensor; supported is DequantizeLinear"],
    ),
    "a clip that leaves out 0": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("Clip", "q low", "c"),
            node("DequantizeLinear", "c s z", "y"),
            **S,
            low=u8(130),
        ),
        ["'c_node' (Clip): the integers that it keeps leave out the zero point; supported are ranges that hold it"],
    ),
    "Softmax between integers": (
        linear(
            node("QLinearSoftmax", "q s z s z", "p", domain=MS, axis=1),
            node("QLinearMatMul", "p s z w ws wz t u", "o"),
        ),
        ["'o_node' (QLinearMatMul): it follows a Softmax, which is supported only at the end of the network"],
    ),
    "output of float16": (
        graph(
            node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y", output_dtype=10), opset=23, **S
        ),
        ["'y_node' (DequantizeLinear): it gives float16; supported is float32"],
    ),
    "precision of float16": (
        graph(
            node("QuantizeLinear", "x s z", "q", precision=10), node("DequantizeLinear", "q s z", "y"), opset=23, **S
        ),
        ["'q_node' (QuantizeLinear): its precision is not float32; supported is float32"],
    ),
    "an input of int32": (
        graph(node("DequantizeLinear", "x s", "y"), ends=(TensorProto.INT32, TensorProto.FLOAT), s=f(1)),
        ["input 'x' is int32; supported are float32 and float64, and integers of 8 or 16 bits where a Dequantize"],
    ),
    "an input that two scales read": (
        graph(
            node("DequantizeLinear", "x s z", "a"),
            node("DequantizeLinear", "x t z", "b"),
            node("Add", "a b", "y"),
            ends=INTEGER_INPUT,
            **S,
            t=f(1),
        ),
        ["'b_node' (DequantizeLinear): it reads the network's input with another scale or zero point than another"],
    ),
    "an input whose scale nothing says": (
        graph(node("MatMulInteger", "x w z", "y"), ends=(TensorProto.UINT8, TensorProto.INT32), **LINEAR),
        ["'y_node' (MatMulInteger): supported is a tensor made by QuantizeLinear on the left and a constant"],
    ),
    "an input that is the output": (
        graph(node("Identity", "x", "y"), ends=(TensorProto.UINT8, TensorProto.UINT8)),
        ["output 'y' is the input itself; there is nothing to verify"],
    ),
    "numbers that are dequantised": (
        graph(
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "a"),
            node("QLinearMatMul", "a s z w ws wz t u", "o"),
            node("DequantizeLinear", "o t u", "y"),
            **LINEAR,
        ),
        ["'o_node' (QLinearMatMul): input 'a' holds no integers; it must come from a QuantizeLinear"],
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_problem_and_the_way_out(name: str) -> None:
    built, parts = REFUSALS[name]
    with pytest.raises(UnsupportedModel) as caught:
        load(built)
    message = str(caught.value)
    assert message.startswith("the model uses what qverify does not support: ") and "\n" not in message
    assert not [part for part in parts if part not in message], message
    assert len(caught.value.problems) == 1, caught.value.problems
