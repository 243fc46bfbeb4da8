"""Models outside the supported subset: every refusal names the node, the problem and a way out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qverify.arrays import Array
from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from tests.support.onnx_models import model, node, weights


def _numbers(*shape: int) -> Array:
    return weights(np.random.default_rng(5), *shape)


def _chain(
    *nodes: onnx.NodeProto, shape: list[int | str] | tuple[str, int] = ("N", 4), opset: int = 17, **constants: Any
) -> onnx.ModelProto:
    return model(nodes, constants, shape, opset)


def _image(
    kind: str,
    weight: Array | None = None,
    shape: list[int | str] | tuple[str, int, int, int] = ("N", 2, 5, 4),
    **attributes: Any,
) -> onnx.ModelProto:
    constants = {} if weight is None else {"w": weight}
    return model([node(kind, "x w" if constants else "x", "y", **attributes)], constants, shape, 22)


def _with_outputs(*names: str) -> onnx.ModelProto:
    built = _chain(node("Relu", "x", "a"), node("Neg", "a", "y"))
    for name in names:
        built.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]))
    return built


def _sparse() -> onnx.ModelProto:
    built = _chain(node("Gemm", "x w", "y"))
    values, indices = (
        numpy_helper.from_array(np.asarray([1, 2], dtype=np.float32), "w"),
        numpy_helper.from_array(np.array([0, 3]), "i"),
    )
    built.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 2]))
    return built


def _annotated() -> onnx.ModelProto:
    built = _chain(node("Relu", "x", "y"))
    built.graph.quantization_annotation.add().tensor_name = "x"
    return built


def _custom_domain() -> onnx.ModelProto:
    built = _chain(node("Relu", "x", "y"))
    built.graph.node[0].domain = "com.example"
    built.opset_import.append(helper.make_opsetid("com.example", 1))
    return built


def _half() -> onnx.ModelProto:
    nodes = [node("Gemm", "x w", "y")]
    return model(nodes, {"w": _numbers(4, 2)}, ["N", 4], dtype=np.float16)


def _damaged_initializer() -> onnx.ModelProto:
    built = _chain(node("Gemm", "x w", "y"), w=_numbers(4, 2))
    built.graph.initializer[0].data_type = 85
    return built


def _unused_output() -> onnx.ModelProto:
    built = _chain(node("Dropout", "x", "y"), node("Relu", "mask", "z"))
    built.graph.node[0].output.append("mask")
    return built


def _two_opsets() -> onnx.ModelProto:
    built = _chain(node("Relu", "x", "y"))
    built.opset_import.append(helper.make_opsetid("ai.onnx", 8))
    return built


def _overloaded() -> onnx.ModelProto:
    built = _chain(node("Relu", "x", "y"))
    built.graph.node[0].overload = "other"
    return built


def _referring() -> onnx.ModelProto:
    built = _chain(node("Gemm", "x w", "y", transB=1), w=W)
    built.graph.node[0].attribute[0].ref_attr_name = "of_no_function"
    return built


def _branching() -> onnx.ModelProto:
    """An If whose branches read x, and nothing else does."""
    branch = helper.make_graph(
        [node("Relu", "x", "r")], "branch", [], [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    )
    return _chain(node("If", "c", "y", then_branch=branch, else_branch=branch), c=np.array(True))


W, V = _numbers(4, 3), _numbers(3, 4)
STATISTICS = {"scale": _numbers(4), "offset": _numbers(4), "mean": _numbers(4), "variance": np.abs(_numbers(4))}
BN = "scale offset mean variance"

# Name: (model, what the message must contain)
REFUSALS = {
    "activation": (_chain(node("ThresholdedRelu", "x", "y")), ["'y_node' (ThresholdedRelu)", "it jumps"]),
    "places of maxima": (
        _chain(helper.make_node("MaxPool", ["x"], ["y", "places"], kernel_shape=[2, 2]), shape=["N", 2, 3, 4]),
        ["MaxPool", "the places of the largest numbers, too"],
    ),
    "dilated max pool": (_image("MaxPool", kernel_shape=[2, 2], dilations=[1, 2]), ["(MaxPool)", "has dilations"]),
    "order of places": (_image("MaxPool", kernel_shape=[2, 2], storage_order=1), ["(MaxPool)", "storage_order 1"]),
    "maximum of padding": (
        _image("MaxPool", kernel_shape=[1, 1], pads=[0, 0, 1, 0]),
        ["(MaxPool)", "lie wholly in the padding"],
    ),
    "max pool with large strides": (
        _image("MaxPool", kernel_shape=[1, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        ["(MaxPool)", "runtimes disagree on auto_pad"],
    ),
    "other operator": (
        _chain(node("Det", "x", "y")),
        ["(Det)", "not supported; supported are Abs, Add, ArgMax, ArrayFeatureExtractor, AveragePool"],
    ),
    "unknown attribute": (_chain(node("Relu", "x", "y", __slope=1)), ["attribute __slope", "supported are: none"]),
    "unused node": (
        _chain(node("Relu", "x", "y"), node("Relu", "x", "left")),
        ["'left_node' (Relu): nothing uses its output; remove"],
    ),
    "second output used": (_unused_output(), ["its output 'mask' is used"]),
    "several outputs": (
        _with_outputs("a"),
        ["2 outputs ('y', 'a'); supported is one: name it with --output"],
    ),
    "constant output": (
        _chain(node("Constant", "", "y", value_floats=[1.0, 2.0]), node("Relu", "x", "z")),
        ["'y' does not depend on the input", "nothing uses its output"],
    ),
    "quantisation annotations": (
        _annotated(),
        [
            "quantisation annotations, which say steps that no node applies: export the model with QuantizeLinear and "
            "DequantizeLinear, or verify the float model it was made from"
        ],
    ),
    "sparse weights": (_sparse(), ["sparse initializers; supported are dense ones"]),
    "another domain": (_custom_domain(), ["'y_node' (Relu): operator domain 'com.example' is not supported"]),
    "old opset": (_chain(node("Relu", "x", "y"), opset=6), ["opset 6: supported is 7 and newer; convert the model"]),
    "float16": (_half(), ["'x' is float16", "'w' is float16; weights must be float32", "export the model in float32"]),
    "integer input": (
        model([node("Relu", "x", "y")], {}, ["N", 4], dtype=np.int32),
        ["input 'x' is int32; supported are float32 and float64"],
    ),
    "open axes": (
        _chain(node("Relu", "x", "y"), shape=["N", 3, "L"]),
        ["shape (N, 3, L)", "only the first", "export it with the others fixed"],
    ),
    "two opsets": (_two_opsets(), ["two opsets of the standard operators [8, 17]; export the model with one"]),
    "an overload that is no function's": (_overloaded(), ["it is written as part of a function, but is in none"]),
    "an attribute of no function": (_referring(), ["it is written as part of a function, but is in none"]),
    "output that is an input's constant": (
        _chain(node("Constant", "", "y", value_floats=[1.0, 2.0]), node("Relu", "x", "z")),
        ["output 'y' does not depend on the input"],
    ),
    "open vector": (_chain(node("Relu", "x", "y"), shape=["N"]), ["shape (N)", "only the first of several axes"]),
    "control flow": (_branching(), ["'y_node' (If): the operator is not supported (control flow must be unrolled"]),
    "classes at the end": (
        _chain(node("Hardmax", "x", "y", axis=1)),
        ["(Hardmax): the operator is not supported (export the model without it"],
    ),
    "statistics of the sample": (
        _chain(node("LpNormalization", "x", "y")),
        ["use BatchNormalization, whose statistics are constants"],
    ),
    "cast to integers": (
        _chain(node("Cast", "x", "c", to=TensorProto.INT32), node("Cast", "c", "y", to=TensorProto.FLOAT)),
        ["'c_node' (Cast): it casts to int32; supported are float32 and float64: export the model in float32"],
    ),
    "Clip of no numbers": (
        _chain(node("Clip", "x low high", "y"), low=6.0, high=0.0),
        ["lower end is above its upper"],
    ),
    "concave Elu": (_chain(node("Elu", "x", "y", alpha=-1.0)), ["its alpha or gamma is not positive"]),
    "falling HardSigmoid": (_chain(node("HardSigmoid", "x", "y", alpha=-1.0)), ["its alpha is not positive"]),
    "PRelu of another shape": (
        _chain(node("PRelu", "x s", "y"), s=_numbers(3)),
        ["slope of shape (3,) does not broadcast to the input of shape (1, 4)"],
    ),
    "mean over all": (
        _image("ReduceMean"),
        ["it is taken over axes (0, 1, 2, 3) of shape (1, 2, 5, 4), the batch axis among them"],
    ),
    "image without a batch axis": (
        _chain(node("GlobalAveragePool", "x", "y"), shape=[3, 5, 4]),
        ["has shape (3, 5, 4) at batch 1", "export it with a first axis for the batch that is open or 1"],
    ),
    "fixed batch": (
        _chain(node("MatMul", "x w", "y"), shape=[8, 4], w=W),
        ["8 rows at once", "export with batch size 1 or a symbolic batch axis"],
    ),
    "stack of matrices": (_chain(node("MatMul", "v x", "y"), shape=["N", 2, 4, 5], v=V), ["a stack of matrices"]),
    "stack of weights": (_chain(node("MatMul", "v x", "y"), shape=["N", 2, 4, 5], v=_numbers(2, 3, 4)), ["stack"]),
    "stack of constants": (
        _chain(node("MatMul", "x v", "y"), shape=["N", 4], v=_numbers(2, 4, 3)),
        ["shape (2, 4, 3); supported is one matrix"],
    ),
    "misfit weight": (_chain(node("MatMul", "x v", "y"), v=V), ["(4, 3) does not fit the input of shape (1, 4)"]),
    "Gemm of vectors": (_chain(node("Gemm", "x w", "y"), shape=[4], w=W), ["[1, 2] axes; both must be matrices"]),
    "transposed product": (
        _chain(node("Gemm", "v x", "y", transB=1), shape=[5, 4], v=V),
        ["transB on a computed matrix of shape (5, 4)"],
    ),
    "two computed factors": (_chain(node("MatMul", "x x", "y"), shape=[4, 4]), ["one factor must be a constant"]),
    "quotient of branches": (_chain(node("Div", "x x", "y")), ["it divides two computed tensors"]),
    "division by the input": (_chain(node("Div", "c x", "y"), c=_numbers(4)), ["it divides by a computed tensor"]),
    "division by zero": (_chain(node("Div", "x c", "y"), c=np.array([1.0, 0, 2, 3])), ["holds zeros"]),
    "constant that enlarges": (
        _chain(node("Add", "x c", "y"), c=_numbers(3, 4)),
        ["(3, 4) does not broadcast to the input of shape (1, 4)"],
    ),
    "branches that broadcast": (
        _chain(node("Transpose", "x", "t"), node("Add", "x t", "y"), shape=[1, 4]),
        ["repeats a tensor of shape (1, 4) along the batch axis"],
    ),
    "subtracted from itself": (_chain(node("Sub", "x x", "y")), ["it subtracts a tensor from itself"]),
    "bad perm": (_chain(node("Transpose", "x", "y", perm=[0, 2])), ["perm (0, 2) does not fit"]),
    "bad reshape": (_chain(node("Reshape", "x s", "y"), s=np.array([3, 2])), ["(3, 2) does not hold the 4 elements"]),
    "reshape to nothing": (
        _chain(node("Reshape", "x s", "y", allowzero=1), s=np.array([0, 4])),
        ["(0, 4) does not hold the 4 elements"],
    ),
    "bad squeeze": (_chain(node("Squeeze", "x s", "y"), s=np.array([1])), ["does not hold the 4 elements"]),
    "bad axis": (_chain(node("Flatten", "x", "y", axis=3)), ["axis 3 does not exist: the tensor has 2 axes"]),
    "axis twice": (_chain(node("Unsqueeze", "x s", "y"), s=np.array([0, 0])), ["name an axis twice"]),
    "computed shape": (
        _chain(node("Reshape", "x x", "y")),
        ["'x' depends on the network's input; it must be a constant"],
    ),
    "softmax inside": (
        _chain(node("Softmax", "x", "p"), node("MatMul", "p w", "y"), w=W),
        ["'y_node' (MatMul): it follows a Softmax", "only at the end"],
    ),
    "softmax over part": (_chain(node("Softmax", "x", "y"), shape=["N", 3, 4]), ["supported is one over all outputs"]),
    "old softmax over the batch": (_chain(node("Softmax", "x", "y", axis=2), shape=["N", 3, 4], opset=12), ["axis 2"]),
    "dropout in training": (
        _chain(node("Dropout", "x r t", "y"), r=0.5, t=np.array(True)),
        ["training_mode is true; export the model for inference"],
    ),
    "normalisation in training": (
        _chain(node("BatchNormalization", f"x {BN}", "y", training_mode=1), **STATISTICS),  # type: ignore[arg-type]
        ["it is in training mode"],
    ),
    "normalisation per element": (
        _chain(node("BatchNormalization", f"x {BN}", "y", spatial=0), opset=8, **STATISTICS),  # type: ignore[arg-type]
        ["spatial=0"],
    ),
    "negative variance": (
        _chain(node("BatchNormalization", f"x {BN}", "y"), **STATISTICS | {"variance": -(_numbers(4) ** 2)}),  # type: ignore[arg-type]
        ["its variance is not positive"],
    ),
    "misfit normalisation": (
        _chain(node("BatchNormalization", f"x {BN}", "y"), **STATISTICS | {"mean": _numbers(3)}),  # type: ignore[arg-type]
        ["one number for each of the 4 channels"],
    ),
    "4-d convolution": (
        _image("Conv", _numbers(3, 2, 1, 2, 2, 2), shape=["N", 2, 1, 5, 4, 3]),
        ["supported is (1, channels"],
    ),
    "misfit kernel": (_image("Conv", _numbers(3, 3, 2, 2)), ["in 1 groups does not fit 2 channels"]),
    "kernel too large": (
        _image("Conv", _numbers(3, 2, 6, 2)),
        ["its kernel (6, 2) does not fit into the padded image"],
    ),
    "misfit strides": (_image("Conv", _numbers(3, 2, 2, 2), strides=[1]), ["must fit an image with 2 axes"]),
    "pads twice": (
        _image("Conv", _numbers(3, 2, 2, 2), auto_pad="SAME_UPPER", pads=[1, 1, 1, 1]),
        ["both pads [1, 1, 1, 1] and auto_pad SAME_UPPER"],
    ),
    "unknown auto_pad": (_image("Conv", _numbers(3, 2, 2, 2), auto_pad="SAME"), ["auto_pad 'SAME' is not supported"]),
    "padding by itself": (
        _image("Conv", _numbers(3, 2, 2, 2), auto_pad="SAME_UPPER", dilations=[2, 1]),
        ["runtimes disagree on auto_pad SAME_UPPER with dilations; write the pads out"],
    ),
    "pool padded by itself": (
        _image("AveragePool", kernel_shape=[1, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
        ["runtimes disagree on auto_pad with strides larger than the kernel"],
    ),
    "empty average": (
        _image("AveragePool", kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        ["wholly in the padding, where an average is not defined"],
    ),
    "string constant": (
        _chain(node("Constant", "", "c", value_string="a"), node("Add", "x c", "y")),
        ["'c_node' (Constant)", "is not a tensor of numbers"],
    ),
    "random constant": (
        _chain(node("RandomNormal", "", "c", shape=[4]), node("Add", "x c", "y")),
        ["operator RandomNormal on constants is not supported"],
    ),
    "misfit constants": (
        _chain(node("Add", "a b", "c"), node("Add", "x c", "y"), a=_numbers(4), b=_numbers(3)),
        ["'c_node' (Add): its constant inputs cannot be evaluated"],
    ),
    "empty constant": (_chain(node("MatMul", "x w", "y"), w=np.zeros((4, 0))), ["input 'w' is empty"]),
    "integer weight": (
        _chain(node("Cast", "w", "v", to=TensorProto.INT32), node("MatMul", "x v", "y"), w=W),
        ["input 'v' is int32; weights must be float32 or float64"],
    ),
    "initializer of no type": (_damaged_initializer(), ["initializer 'w' is damaged"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_names_the_problem_and_the_way_out(name: str) -> None:
    built, parts = REFUSALS[name]
    with pytest.raises(UnsupportedModel) as caught:
        load(built)
    message = str(caught.value)
    assert message.startswith("the model uses what qverify does not support: ") and "\n" not in message
    assert not [part for part in parts if part not in message], message
    assert caught.value.problems and all(problem in message for problem in caught.value.problems)
    assert isinstance(caught.value, (ValueError, NotImplementedError)) and caught.value.exit_code == 2


def test_nodes_without_name_are_called_by_their_output() -> None:
    built = _chain(node("ThresholdedRelu", "x", "y"))
    built.graph.node[0].name = ""
    with pytest.raises(UnsupportedModel, match="ThresholdedRelu giving 'y': the operator is not supported"):
        load(built)
