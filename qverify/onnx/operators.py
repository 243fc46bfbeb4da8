"""The ONNX operators that are read: a function each, from a node to layers, and the attributes that it knows.

A function takes the node and the layers built so far, and returns the node's first output. It consumes
every input and attribute of the node or raises `Refusal` (the table says which attributes it knows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qverify.onnx import classifiers, views
from qverify.onnx import moving_operators as moving
from qverify.onnx import normalisation_operators as normalisation
from qverify.onnx import quantised_operators as quantised
from qverify.onnx.activation_operators import activation, gelu, prelu, softplus
from qverify.onnx.arithmetic import arithmetic, clip, maximum, negated, relu
from qverify.onnx.dense_operators import gemm, matmul
from qverify.onnx.dynamic import dynamic_quantize_linear
from qverify.onnx.fusing import THRESHOLD
from qverify.onnx.graph import DOMAINS
from qverify.onnx.image_operators import batch_normalisation, global_average_pool, global_max_pool
from qverify.onnx.largest_operators import reduce_largest
from qverify.onnx.outputs import CLASSIC
from qverify.onnx.reduce_operators import reduce_mean, reduce_sum
from qverify.onnx.resize_operators import resize, upsample
from qverify.onnx.root_operators import power, reciprocal, sqrt
from qverify.onnx.transposed_operators import conv_transpose
from qverify.onnx.volume_operators import average_pool, conv, max_pool

if TYPE_CHECKING:
    from collections.abc import Callable

    from qverify.onnx.graph import NetworkBuilder, Node, Value


@dataclass(frozen=True)
class Operator:
    """`read` consumes the node; an attribute that is not listed is refused, and so is a domain."""

    read: Callable[[Node, NetworkBuilder], Value | list[Value]]
    attributes: frozenset[str]
    domains: tuple[str, ...]


ONNXRUNTIME = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def _entry(
    read: Callable[[Node, NetworkBuilder], Value | list[Value]],
    attributes: str = "",
    domains: tuple[str, ...] = DOMAINS,
) -> Operator:
    return Operator(read, frozenset(attributes.split()), domains)


def _own(read: Callable[[Node, NetworkBuilder], Value | list[Value]], attributes: str = "") -> Operator:
    return _entry(read, attributes, (ONNXRUNTIME,))


def _classic(read: Callable[[Node, NetworkBuilder], Value | list[Value]], attributes: str = "") -> Operator:
    return _entry(read, attributes, (CLASSIC,))


# of which some only matter in modes that are refused
_RESIZE = """
    antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value
    keep_aspect_ratio_policy mode nearest_mode
"""
_WINDOW = "auto_pad dilations kernel_shape pads strides"

OPERATORS: dict[str, Operator] = {
    "Abs": _entry(activation),
    "Add": _entry(arithmetic),
    "ArgMax": _entry(classifiers.argmax, "axis keepdims select_last_index"),
    "ArrayFeatureExtractor": _classic(classifiers.class_names),
    "AveragePool": _entry(average_pool, f"{_WINDOW} ceil_mode count_include_pad"),
    # momentum only matters in training, which is refused
    "BatchNormalization": _entry(batch_normalisation, "epsilon momentum spatial training_mode"),
    "Cast": _entry(views.cast, "round_mode saturate to"),  # two of them only matter for float8
    "CastLike": _entry(views.cast_like, "round_mode saturate"),
    "Celu": _entry(activation, "alpha"),
    "Clip": _entry(clip, "max min"),
    "Concat": _entry(moving.concat, "axis"),
    "Conv": _entry(conv, f"{_WINDOW} group"),
    "ConvInteger": _entry(quantised.conv_integer, f"{_WINDOW} group"),
    "ConvTranspose": _entry(conv_transpose, f"{_WINDOW} group output_padding output_shape"),
    "DepthToSpace": _entry(moving.depth_to_space, "blocksize mode"),
    "DequantizeLinear": _entry(quantised.dequantize_linear, "axis block_size output_dtype", (*DOMAINS, ONNXRUNTIME)),
    "Div": _entry(arithmetic),
    "Dropout": _entry(views.dropout, "ratio seed"),  # both only matter in training
    "DynamicQuantizeLinear": _entry(dynamic_quantize_linear),
    "Elu": _entry(activation, "alpha"),
    "Erf": _entry(activation),
    "Exp": _entry(activation),
    "Expand": _entry(moving.expand),
    "Flatten": _entry(views.flatten, "axis"),
    "Gather": _entry(moving.gather, "axis"),
    "Gelu": _entry(gelu, "approximate", (*DOMAINS, ONNXRUNTIME)),
    "Gemm": _entry(gemm, "alpha beta transA transB"),
    "GlobalAveragePool": _entry(global_average_pool),
    "GlobalMaxPool": _entry(global_max_pool),
    "GroupNormalization": _entry(normalisation.group_normalisation, "epsilon num_groups stash_type"),
    "HardSigmoid": _entry(activation, "alpha beta"),
    "HardSwish": _entry(activation),
    "Identity": _entry(views.identity),
    "InstanceNormalization": _entry(normalisation.instance_normalisation, "epsilon"),
    "LayerNormalization": _entry(normalisation.layer_normalisation, "axis epsilon stash_type"),
    "LeakyRelu": _entry(activation, "alpha"),
    "LogSoftmax": _entry(views.softmax, "axis"),
    "MatMul": _entry(matmul),
    "MatMulInteger": _entry(quantised.matmul_integer),
    "MatMulIntegerToFloat": _own(quantised.matmul_integer_to_float),
    "Max": _entry(maximum),
    "MaxPool": _entry(max_pool, f"{_WINDOW} ceil_mode storage_order"),
    "Min": _entry(maximum),
    "Mul": _entry(arithmetic),
    "Neg": _entry(negated),
    "PRelu": _entry(prelu),
    "Pad": _entry(moving.pad, "mode pads value"),
    "Pow": _entry(power),
    "QGemm": _own(quantised.qgemm, "alpha transA transB"),
    "QLinearAdd": _own(quantised.qlinear_add),
    "QLinearAveragePool": _own(quantised.qlinear_average_pool, f"{_WINDOW} ceil_mode channels_last count_include_pad"),
    "QLinearConcat": _own(quantised.qlinear_concat, "axis"),
    "QLinearConv": _entry(quantised.qlinear_conv, f"{_WINDOW} group"),
    "QLinearGlobalAveragePool": _own(quantised.qlinear_global_average_pool, "channels_last"),
    "QLinearLeakyRelu": _own(quantised.qlinear_leaky_relu, "alpha"),
    "QLinearMatMul": _entry(quantised.qlinear_matmul),
    "QLinearMul": _own(quantised.qlinear_mul),
    "QLinearSigmoid": _own(quantised.qlinear_sigmoid),
    "QLinearSoftmax": _own(quantised.qlinear_softmax, "axis opset"),
    "QuantizeLinear": _entry(
        quantised.quantize_linear, "axis block_size output_dtype precision saturate", (*DOMAINS, ONNXRUNTIME)
    ),
    "Reciprocal": _entry(reciprocal),
    "ReduceMax": _entry(reduce_largest, "axes keepdims noop_with_empty_axes"),
    "ReduceMean": _entry(reduce_mean, "axes keepdims noop_with_empty_axes"),
    "ReduceMin": _entry(reduce_largest, "axes keepdims noop_with_empty_axes"),
    "ReduceSum": _entry(reduce_sum, "axes keepdims noop_with_empty_axes"),
    "Relu": _entry(relu),
    "Reshape": _entry(views.reshape, "allowzero"),
    "Resize": _entry(resize, _RESIZE),
    "Scaler": _classic(classifiers.scaler, "offset scale"),
    "Selu": _entry(activation, "alpha gamma"),
    "Shape": _entry(views.shape, "end start"),
    "Sigmoid": _entry(activation),
    "Size": _entry(views.size),
    "Slice": _entry(moving.slice_, "axes ends starts"),
    "Softmax": _entry(views.softmax, "axis"),
    "Softplus": _entry(softplus, THRESHOLD),
    "Softsign": _entry(activation),
    "SpaceToDepth": _entry(moving.space_to_depth, "blocksize"),
    "Split": _entry(moving.split, "axis num_outputs split"),
    "Sqrt": _entry(sqrt),
    "Squeeze": _entry(views.squeeze, "axes"),
    "Sub": _entry(arithmetic),
    "Tanh": _entry(activation),
    "Tile": _entry(moving.tile),
    "Transpose": _entry(moving.transpose, "perm"),
    "Unsqueeze": _entry(views.unsqueeze, "axes"),
    "Upsample": _entry(upsample, "mode scales"),
    "ZipMap": _classic(classifiers.zip_map, "classlabels_int64s classlabels_strings"),
}
