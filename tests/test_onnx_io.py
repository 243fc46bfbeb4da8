"""What the loader reads, against onnxruntime and against numpy written out by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from networks import convolve
from onnx import helper, numpy_helper
from onnx_models import NEWEST_OPSET, agree, kinds, model, node, run, weights

from qverify.network import Conv, Dense
from qverify.onnx_io import load

# --- Gemm and MatMul --------------------------------------------------------------------------------------

# Name: (shape of x, inputs of the node, shape of w, shape of c, attributes, layers read)
GEMMS = {
    "plain": (["N", 4], "x w c", (4, 3), (3,), {}, "Dense"),
    "transB": (["N", 4], "x w c", (3, 4), (3,), {"transB": 1}, "Dense"),
    "no bias": (["N", 4], "x w", (3, 4), None, {"transB": 1}, "Dense"),
    "alpha and beta": (["N", 4], "x w c", (4, 3), (1, 3), {"alpha": -1.5, "beta": 0.25}, "Dense"),
    "beta zero": (["N", 4], "x w c", (4, 3), (3,), {"beta": 0.0}, "Dense"),
    "scalar bias": (["N", 4], "x w c", (4, 3), (), {}, "Dense"),
    "transA": ([4, 1], "x w c", (4, 3), (3,), {"transA": 1}, "Dense"),
    "both transposed": ([4, 1], "x w c", (3, 4), (3,), {"transA": 1, "transB": 1, "alpha": 0.5}, "Dense"),
    "from the left": ([4, 1], "w x c", (3, 4), (3, 1), {}, "Dense"),
    "from the left, transA": ([4, 1], "w x c", (4, 3), (3, 1), {"transA": 1}, "Dense"),
    "from the left, transB": ([1, 4], "w x c", (3, 4), (3, 1), {"transB": 1, "beta": -2.0}, "Dense"),
    "from the left, columns": ([4, 5], "w x c", (3, 4), (3, 1), {"alpha": 2.0}, "Conv"),
    "from the left, one bias per element": ([4, 5], "w x c", (3, 4), (3, 5), {}, "Conv Scale"),
    "from the left, one bias per column": ([4, 5], "w x c", (3, 4), (1, 5), {}, "Conv Scale"),
    "one weight, transB": ([5, 1], "w x", (3, 1), None, {"transB": 1}, "Conv"),
}


@pytest.mark.parametrize("name", GEMMS)
def test_gemm_by_hand(name, rng):
    shape, inputs, w_shape, c_shape, attributes, layers = GEMMS[name]
    constants = {"w": weights(rng, *w_shape)} | ({} if c_shape is None else {"c": weights(rng, *c_shape)})
    built = model([node("Gemm", inputs, "y", **attributes)], constants, shape)
    network = load(built)
    assert kinds(network) == layers
    first = network.layers[1]
    assert isinstance(first, (Dense, Conv)) and first.quantised and first.name == "y_node"
    assert first.has_bias == (c_shape is not None and attributes.get("beta") != 0.0 and layers != "Conv Scale")
    agree(network, built, rng)
    x = weights(rng, *(1 if length == "N" else length for length in shape))
    left, right = (x, constants["w"]) if inputs[0] == "x" else (constants["w"], x)
    left = left.T if attributes.get("transA") else left
    right = right.T if attributes.get("transB") else right
    wanted = attributes.get("alpha", 1.0) * left @ right + attributes.get("beta", 1.0) * constants.get("c", 0.0)
    np.testing.assert_allclose(network.evaluate(x.reshape(1, -1))[0], wanted.reshape(-1), rtol=0, atol=1e-13)


# Name: (shape of x, inputs, shape of w, layers read)
MATMULS = {
    "right": (["N", 4], "x w", (4, 3), "Dense"),
    "right, vector": (["N", 4], "x w", (4,), "Dense"),
    "right, of a stack": ([1, 1, 4], "x w", (1, 4, 3), "Dense"),
    "right, vector times matrix": ([4], "x w", (4, 3), "Dense"),
    "right, vector times stack": ([4], "x w", (1, 4, 3), "Dense"),
    "left": ([4, 1], "w x", (3, 4), "Dense"),
    "left, times vector": ([4], "w x", (3, 4), "Dense"),
    "left, vector": (["N", 4, 5], "w x", (4,), "Conv"),
    "left, columns": (["N", 4, 5], "w x", (3, 4), "Conv"),
    "left, of a stack": (["N", 1, 4, 5], "w x", (1, 3, 4), "Conv"),
    "both vectors": ([4], "x w", (4,), "Dense"),
}


@pytest.mark.parametrize("name", MATMULS)
def test_matmul_by_hand(name, rng):
    shape, inputs, w_shape, layers = MATMULS[name]
    w = weights(rng, *w_shape)
    built = model([node("MatMul", inputs, "y")], {"w": w}, shape)
    network = load(built)
    assert kinds(network) == layers and not network.layers[1].has_bias
    agree(network, built, rng)
    x = weights(rng, *(1 if length == "N" else length for length in shape))
    wanted = x @ w if inputs[0] == "x" else w @ x
    np.testing.assert_allclose(network.evaluate(x.reshape(1, -1))[0], wanted.reshape(-1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("inputs", ["p b", "b p"])
@pytest.mark.parametrize("b_shape", [(3,), (1, 3), ()])
def test_matmul_and_add_is_one_layer_with_bias(inputs, b_shape, rng):
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, *b_shape)}
    built = model([node("MatMul", "x w", "p"), node("Add", inputs, "y")], constants, ["N", 4])
    network = load(built)
    assert kinds(network) == "Dense" and network.layers[1].has_bias and network.layers[1].name == "p_node"
    np.testing.assert_array_equal(network.layers[1].bias, np.broadcast_to(constants["b"], (1, 3))[0])
    agree(network, built, rng)


def test_matmul_minus_constant_is_a_bias_and_the_second_constant_a_scale(rng):
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "c": weights(rng, 3)}
    nodes = [node("MatMul", "x w", "p"), node("Sub", "p b", "q"), node("Add", "c q", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Scale"
    np.testing.assert_array_equal(network.layers[1].bias, -constants["b"])
    agree(network, built, rng)


def test_a_constant_added_to_a_value_that_others_read_is_no_bias(rng):
    """Else the other reader would see the bias, too."""
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "v": weights(rng, 3, 3)}
    nodes = [node("MatMul", "x w", "p"), node("Add", "p b", "q"), node("MatMul", "p v", "r"), node("Add", "q r", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Scale Dense Add"
    agree(network, built, rng)


# --- Conv -------------------------------------------------------------------------------------------------

# Name: (channels and sizes of x, shape of w, attributes, pads read as (top, left, bottom, right))
CONVS = {
    "1-d": ((2, 7), (3, 2, 3), {}, (0, 0, 0, 0)),
    "1-d, strides, pads, dilation": (
        (2, 7),
        (3, 2, 3),
        {"strides": [2], "pads": [1, 3], "dilations": [2]},
        (0, 1, 0, 3),
    ),
    "1-d, SAME_LOWER": ((1, 6), (2, 1, 3), {"strides": [2], "auto_pad": "SAME_LOWER"}, (0, 1, 0, 0)),
    "2-d": ((2, 5, 4), (3, 2, 2, 3), {"kernel_shape": [2, 3]}, (0, 0, 0, 0)),
    "strides": ((1, 6, 7), (2, 1, 2, 3), {"strides": [3, 2]}, (0, 0, 0, 0)),
    "asymmetric pads": ((1, 4, 3), (2, 1, 3, 2), {"pads": [2, 0, 1, 1]}, (2, 0, 1, 1)),
    "dilations": ((1, 6, 7), (2, 1, 2, 3), {"dilations": [3, 2]}, (0, 0, 0, 0)),
    "groups": ((4, 3, 4), (6, 2, 2, 2), {"group": 2}, (0, 0, 0, 0)),
    "depthwise": ((3, 3, 4), (6, 1, 2, 1), {"group": 3, "strides": [1, 2]}, (0, 0, 0, 0)),
    "SAME_UPPER": ((1, 5, 6), (2, 1, 2, 4), {"auto_pad": "SAME_UPPER"}, (0, 1, 1, 2)),
    "SAME_LOWER": ((1, 5, 6), (2, 1, 2, 4), {"auto_pad": "SAME_LOWER"}, (1, 2, 0, 1)),
    "SAME_UPPER, strides": ((1, 5, 6), (2, 1, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 0, 1, 1)),
    "SAME_UPPER, long strides": ((1, 5, 6), (2, 1, 1, 1), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (0, 0, 0, 0)),
    "VALID": ((1, 5, 6), (2, 1, 3, 3), {"auto_pad": "VALID", "strides": [2, 1]}, (0, 0, 0, 0)),
    "everything": (
        (4, 6, 5),
        (2, 2, 2, 2),
        {"strides": [1, 2], "pads": [1, 0, 0, 2], "dilations": [3, 1], "group": 2},
        (1, 0, 0, 2),
    ),
}


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", CONVS)
def test_conv(name, with_bias, rng):
    """Oracles: onnxruntime, and loops over all taps for the layer's numbers as read."""
    shape, w_shape, attributes, pads = CONVS[name]
    constants = {"w": weights(rng, *w_shape)} | ({"b": weights(rng, w_shape[0])} if with_bias else {})
    built = model([node("Conv", "x w b" if with_bias else "x w", "y", **attributes)], constants, ["N", *shape])
    network = load(built)
    layer = network.layers[1]
    assert kinds(network) == "Conv" and layer.has_bias == with_bias and layer.pads == pads and layer.quantised
    agree(network, built, rng)
    x = rng.normal(size=(2, network.input_size))
    wanted = convolve(layer, np.stack([layer.weight] * 2), np.stack([layer.bias] * 2), x)
    np.testing.assert_allclose(network.evaluate(x), wanted, rtol=0, atol=1e-12)


# Name: (shape of the constant, layers read) added to a convolution (3, 4, 2) without bias
CONV_BIASES = {
    "per channel": ((3, 1, 1), "Conv"),
    "per channel, full rank": ((1, 3, 1, 1), "Conv"),
    "scalar": ((), "Conv"),
    "per row": ((4, 1), "Conv Scale"),
    "per column": ((2,), "Conv Scale"),
    "per element": ((3, 4, 2), "Conv Scale"),
}


@pytest.mark.parametrize("name", CONV_BIASES)
def test_constant_added_to_a_convolution(name, rng):
    b_shape, layers = CONV_BIASES[name]
    constants = {"w": weights(rng, 3, 1, 2, 3), "b": weights(rng, *b_shape)}
    built = model([node("Conv", "x w", "c"), node("Add", "c b", "y")], constants, ["N", 1, 5, 4])
    network = load(built)
    assert kinds(network) == layers and network.layers[1].has_bias == (layers == "Conv")
    agree(network, built, rng)


# --- BatchNormalization -----------------------------------------------------------------------------------

BN = "scale offset mean variance"


def _statistics(rng, channels):
    names = dict(zip(BN.split(), weights(rng, 4, channels), strict=True))
    return names | {"variance": np.abs(names["variance"])}


def test_batch_normalisation_after_gemm_by_hand(rng):
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), **_statistics(rng, 3)}
    nodes = [node("Gemm", "x w b", "g"), node("BatchNormalization", f"g {BN}", "y", epsilon=0.5)]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense" and network.layers[1].name == "g_node"
    assert network.notes == ("y_node: folded into layer 'g_node', so radii describe the folded weights.",)
    scale, offset, mean, variance = (constants[name] for name in BN.split())
    x = weights(rng, 5, 4)
    wanted = (x @ constants["w"] + constants["b"] - mean) / np.sqrt(variance + 0.5) * scale + offset
    np.testing.assert_allclose(network.evaluate(x), wanted, rtol=0, atol=1e-12)
    agree(network, built, rng)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("shape,w_shape", [((2, 5, 4), (3, 2, 2, 3)), ((2, 5), (3, 2, 2))])
def test_batch_normalisation_is_folded_into_a_convolution(shape, w_shape, with_bias, rng):
    constants = {"w": weights(rng, *w_shape), **_statistics(rng, 3)} | ({"b": weights(rng, 3)} if with_bias else {})
    first = node("Conv", "x w b" if with_bias else "x w", "c", pads=[1, 0] * len(shape[1:]))
    built = model([first, node("BatchNormalization", f"c {BN}", "y")], constants, ["N", *shape])
    network = load(built)
    assert kinds(network) == "Conv" and network.layers[1].has_bias and len(network.notes) == 1
    agree(network, built, rng)


def test_batch_normalisation_of_a_reshaped_dense_layer(rng):
    """Three channels with two positions each: every statistic applies to two rows of the weight."""
    constants = {"w": weights(rng, 4, 6), "s": np.array([-1, 3, 2]), **_statistics(rng, 3)}
    nodes = [node("MatMul", "x w", "m"), node("Reshape", "m s", "r"), node("BatchNormalization", f"r {BN}", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense"
    agree(network, built, rng)


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 2, 4)])
def test_batch_normalisation_alone_is_a_depthwise_layer(shape, rng):
    built = model([node("BatchNormalization", f"x {BN}", "y")], _statistics(rng, 3), ["N", *shape])
    network = load(built)
    layer = network.layers[1]
    assert kinds(network) == "Conv" and layer.groups == 3 and layer.quantised and layer.weight.shape == (3, 1, 1, 1)
    assert network.notes == () and layer.shape == shape
    agree(network, built, rng)


def test_batch_normalisation_of_a_value_that_others_read_stands_alone(rng):
    constants = {"w": weights(rng, 4, 3), **_statistics(rng, 3)}
    nodes = [node("MatMul", "x w", "m"), node("BatchNormalization", f"m {BN}", "n"), node("Add", "m n", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Conv Add"
    agree(network, built, rng)


def test_batch_normalisation_is_not_folded_into_average_pooling(rng):
    nodes = [node("AveragePool", "x", "p", kernel_shape=[2, 3]), node("BatchNormalization", f"p {BN}", "y")]
    network = load(built := model(nodes, _statistics(rng, 3), ["N", 3, 4, 5]))
    assert kinds(network) == "Conv Conv" and [la.quantised for la in network.layers[1:]] == [False, True]
    agree(network, built, rng)


# --- constants and branches -------------------------------------------------------------------------------

ARITHMETIC = [
    (kind, inputs, shape)
    for kind, inputs, shape in product(["Add", "Sub", "Mul", "Div"], ["x c", "c x"], [(), (3,), (2, 1), (1, 2, 3)])
    if (kind, inputs) != ("Div", "c x")
]
HAND = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


@pytest.mark.parametrize("kind,inputs,shape", ARITHMETIC)
def test_constant_arithmetic_by_hand(kind, inputs, shape, rng):
    c = weights(rng, *shape)
    network = load(model([node(kind, inputs, "y")], {"c": c}, ["N", 2, 3]))
    assert kinds(network) == "Scale"
    x = weights(rng, 4, 2, 3)
    wanted = HAND[kind](x, c) if inputs == "x c" else HAND[kind](c, x)
    np.testing.assert_allclose(network.evaluate(x), wanted.reshape(4, 6), rtol=1e-14, atol=1e-14)


def test_constants_one_after_the_other_are_one_scale(rng):
    """Pixel normalisation and its relatives: ((3 - 2 (x / 255 - mean)) / deviation."""
    constants = {"m": weights(rng, 2, 1, 1), "d": weights(rng, 2, 1, 1), "s": 255.0, "two": 2.0, "three": 3.0}
    nodes = [node("Div", "x s", "a"), node("Sub", "a m", "b"), node("Mul", "two b", "c"), node("Sub", "three c", "d0")]
    network = load(built := model([*nodes, node("Div", "d0 d", "y")], constants, ["N", 2, 3, 4]))
    assert kinds(network) == "Scale" and network.layers[1].name == "a_node"
    agree(network, built, rng)


def test_scales_that_others_read_are_not_merged(rng):
    constants = {"c": weights(rng, 4), "d": weights(rng, 4)}
    nodes = [node("Mul", "x c", "a"), node("Mul", "a d", "b"), node("Add", "a b", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Scale Scale Add"
    agree(network, built, rng)


def test_residual_branches(rng):
    constants = {"w": weights(rng, 4, 3), "v": weights(rng, 3, 3), "b": weights(rng, 3), "u": weights(rng, 4, 3)}
    nodes = [
        node("Gemm", "x w b", "stem"),
        node("Relu", "stem", "r"),
        node("MatMul", "r v", "branch"),
        node("Add", "branch r", "sum"),
        node("MatMul", "x u", "skip"),
        node("Sub", "sum skip", "difference"),
        node("Add", "difference difference", "y"),
    ]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Relu Dense Add Dense Scale Add Scale"
    np.testing.assert_array_equal(network.layers[6].scale, -np.ones(3))
    agree(network, built, rng)


# --- pooling ----------------------------------------------------------------------------------------------

# Name: (channels and sizes, kernel, attributes, layers read at the newest opset)
POOLS = {
    "1-d": ((2, 7), [3], {"strides": [2]}, "Conv"),
    "2-d": ((2, 5, 6), [2, 3], {"strides": [2, 1]}, "Conv"),
    "pads, not counted": ((2, 4, 5), [2, 3], {"pads": [1, 0, 0, 2]}, "Conv Scale"),
    "pads, counted": ((2, 4, 5), [2, 3], {"pads": [1, 0, 0, 2], "count_include_pad": 1}, "Conv"),
    "SAME_UPPER": ((1, 4, 5), [2, 2], {"auto_pad": "SAME_UPPER"}, "Conv Scale"),
    "SAME_LOWER": ((1, 4, 5), [2, 2], {"auto_pad": "SAME_LOWER", "count_include_pad": 1}, "Conv"),
    "VALID": ((1, 4, 5), [2, 2], {"auto_pad": "VALID", "strides": [2, 2]}, "Conv"),
    "ceil_mode": ((1, 6, 5), [3, 2], {"strides": [2, 2], "ceil_mode": 1}, "Conv Scale"),
    "ceil_mode, even": ((1, 5, 4), [3, 2], {"strides": [2, 2], "ceil_mode": 1}, "Conv"),
    "ceil_mode, pads": ((1, 6, 5), [3, 2], {"strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 0]}, "Conv Scale"),
    "ceil_mode, counted": (
        (2, 6, 5),
        [3, 2],
        {"strides": [2, 2], "ceil_mode": 1, "pads": [0, 1, 1, 1], "count_include_pad": 1},
        "Conv",
    ),
    "ceil_mode, counted, window beyond the pads": (
        (1, 7),
        [3],
        {"strides": [3], "ceil_mode": 1, "pads": [1, 0], "count_include_pad": 1},
        "Conv Scale",
    ),
    "dilations": ((1, 6, 7), [2, 3], {"dilations": [3, 2], "pads": [1, 0, 0, 1]}, "Conv Scale"),
}


SINCE = {"dilations": 19, "ceil_mode": 10}
POOLS_BY_OPSET = [
    (name, opset)
    for name, opset in product(POOLS, [8, 10, 17, NEWEST_OPSET])
    if all(opset >= SINCE.get(attribute, 0) for attribute in POOLS[name][2])
]


@pytest.mark.parametrize("name,opset", POOLS_BY_OPSET)
def test_average_pool(name, opset, rng):
    shape, kernel, attributes, layers = POOLS[name]
    built = model([node("AveragePool", "x", "y", kernel_shape=kernel, **attributes)], {}, ["N", *shape], opset)
    network = load(built)
    assert kinds(network) == layers and not network.layers[1].quantised and not network.shares_weights
    agree(network, built, rng)


def test_average_pool_by_hand():
    attributes = {"kernel_shape": [2], "pads": [1, 1], "strides": [2]}
    x = np.array([[[2.0, 4.0, 10.0, 6.0]]])
    network = load(model([node("AveragePool", "x", "y", **attributes)], {}, ["N", 1, 4]))
    np.testing.assert_allclose(network.evaluate(x), [[2.0, 7.0, 6.0]], rtol=0, atol=1e-15)
    network = load(model([node("AveragePool", "x", "y", count_include_pad=1, **attributes)], {}, ["N", 1, 4]))
    np.testing.assert_allclose(network.evaluate(x), [[1.0, 7.0, 3.0]], rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4), (3, 2, 3, 2)])
def test_global_average_pool(shape, rng):
    network = load(built := model([node("GlobalAveragePool", "x", "y")], {}, ["N", *shape]))
    assert kinds(network) == "Conv" and not network.layers[1].quantised
    x = rng.normal(size=(2, *shape))
    np.testing.assert_allclose(network.evaluate(x), x.reshape(2, 3, -1).mean(2), rtol=0, atol=1e-14)
    agree(network, built, rng)


# --- whole models -----------------------------------------------------------------------------------------


def _classic(rng, opset, batch):
    """An image classifier with every node that some opset spells differently."""
    constants = {"w": weights(rng, 2, 1, 3, 2), "v": weights(rng, 12, 5), "b": weights(rng, 5), **_statistics(rng, 2)}
    constants["shape"] = np.array([0, -1, 4, 1])
    squeeze, unsqueeze = node("Squeeze", "s axis", "t"), node("Unsqueeze", "h axes", "e")
    dropout = node("Dropout", "e ratio training", "d")
    if opset < 13:
        squeeze, unsqueeze = node("Squeeze", "s", "t", axes=[3]), node("Unsqueeze", "h", "e", axes=[1, 3])
    else:
        constants |= {"axis": np.array([3]), "axes": np.array([1, -1])}
    if opset < 12:
        dropout = node("Dropout", "e", "d", ratio=0.25)
    else:
        constants |= {"ratio": 0.25, "training": np.array(False)}
    nodes = [
        node("Conv", "x w", "c", pads=[1, 0, 0, 1]),
        node("BatchNormalization", f"c {BN}", "n", epsilon=0.1),
        node("Relu", "n", "r"),
        node("AveragePool", "r", "a", kernel_shape=[1, 2], strides=[2, 2]),
        node("Identity", "a", "i"),
        node("Reshape", "i shape", "s"),
        squeeze,
        node("Flatten", "t", "f"),
        node("MatMul", "f v", "m"),
        node("Add", "m b", "h"),
        unsqueeze,
        dropout,
        node("Relu", "d", "r2"),
        node("Flatten", "r2", "f2", axis=1),
        node("Constant", "", "k", value=numpy_helper.from_array(weights(rng, 5, 3).astype(np.float32))),
        node("MatMul", "f2 k", "y"),
    ]
    return model(nodes, constants, [batch, 1, 6, 5], opset)


@pytest.mark.parametrize("batch", ["N", 1])
@pytest.mark.parametrize("opset", range(8, NEWEST_OPSET + 1))
def test_classic_model_in_every_opset(opset, batch, rng):
    built = _classic(rng, opset, batch)
    network = load(built)
    assert kinds(network) == "Conv Relu Conv Dense Relu Dense"
    assert network.input_shape == (1, 6, 5)
    assert [layer.shape for layer in network.layers] == [
        (1, 6, 5),
        (2, 5, 5),
        (2, 5, 5),
        (2, 3, 2),
        (5,),
        (1, 5, 1),
        (3,),
    ]
    names = [f"{name}_node" for name in ("c", "r", "a", "m", "r2", "y")]
    assert [layer.name for layer in network.layers] == ["x", *names]
    agree(network, built, rng)


def test_model_without_batch_axis(rng):
    nodes = [node("Unsqueeze", "x zero", "u"), node("Conv", "u w", "c"), node("Squeeze", "c", "y")]
    built = model(nodes, {"zero": np.array([0]), "w": weights(rng, 2, 3, 2, 2)}, [3, 5, 4])
    network = load(built)
    assert network.input_shape == (3, 5, 4) and network.layers[1].out_shape == (2, 4, 3)
    agree(network, built, rng)


def test_flatten_as_pytorch_writes_it(rng):
    """x.view(x.size(0), -1): Shape, Gather, Unsqueeze and Concat are constants at batch 1."""
    constants = {"w": weights(rng, 2, 1, 2, 2), "v": weights(rng, 12, 3), "zero": np.array(0), "axis": np.array([0])}
    nodes = [
        node("Conv", "x w", "c"),
        node("Shape", "c", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axis", "u"),
        node("Concat", "u rest", "t", axis=0),
        node("Reshape", "c t", "f"),
        node("Gemm", "f v", "y"),
    ]
    network = load(built := model(nodes, constants | {"rest": np.array([-1])}, ["N", 1, 4, 3]))
    assert kinds(network) == "Conv Dense"
    agree(network, built, rng)


def test_a_shape_node_does_not_keep_a_layer_from_its_bias(rng):
    constants = {"w": weights(rng, 4, 6), "b": weights(rng, 6), "start": np.array([0]), "end": np.array([1])}
    nodes = [
        node("MatMul", "x w", "m"),
        node("Shape", "m", "s"),
        node("Slice", "s start end", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Add", "m b", "a"),
        node("Reshape", "a t", "y"),
    ]
    network = load(built := model(nodes, constants | {"rest": np.array([3, 2])}, ["N", 4]))
    assert kinds(network) == "Dense" and network.layers[1].has_bias
    agree(network, built, rng)


# Name: (nodes from m of shape (1, 2, 1, 3) to y, integer constants)
VIEWS = {
    "flatten": ([node("Flatten", "m", "y")], {}),
    "flatten, negative axis": ([node("Flatten", "m", "y", axis=-1)], {}),
    "reshape, zero copies": ([node("Reshape", "m s", "y")], {"s": np.array([0, 3, -1])}),
    "reshape, allowzero": ([node("Reshape", "m s", "y", allowzero=1)], {"s": np.array([1, 6])}),
    "squeeze all": ([node("Squeeze", "m", "y")], {}),
    "squeeze one": ([node("Squeeze", "m s", "y")], {"s": np.array([-2])}),
    "unsqueeze": ([node("Unsqueeze", "m s", "y")], {"s": np.array([-1, 1])}),
    "transpose an axis of one": ([node("Transpose", "m", "y", perm=[2, 0, 1, 3])], {}),
    "identity": ([node("Identity", "m", "y")], {}),
    "dropout": ([node("Dropout", "m", "y")], {}),
}


@pytest.mark.parametrize("name", VIEWS)
def test_nodes_that_only_change_a_shape_leave_no_trace(name, rng):
    """A constant of the shape that onnxruntime finds is multiplied to it, so a wrong shape is seen."""
    nodes, constants = VIEWS[name]
    nodes = [node("Relu", "x", "m"), *nodes]
    shape = run(model(nodes, constants, [1, 2, 1, 3]), np.zeros((1, 2, 1, 3))).shape
    last = node("Mul", "view c", "y")
    view = onnx.NodeProto.FromString(nodes[-1].SerializeToString())
    view.output[0], view.name = "view", "view"
    built = model([nodes[0], view, last], constants | {"c": weights(rng, *shape)}, [1, 2, 1, 3])
    network = load(built)
    assert kinds(network) == "Relu Scale" and network.layers[2].shape in (shape, shape[1:])
    agree(network, built, rng)


@pytest.mark.parametrize("opset", [8, 12, 13, NEWEST_OPSET])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
def test_softmax_at_the_end_is_dropped_and_noted(kind, opset, rng):
    constants, gemm = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "s": np.array([0, 3])}, node("Gemm", "x w b", "z")
    nodes = [gemm, node(kind, "z", "p"), node("Reshape", "p s", "y")]
    network = load(model(nodes, constants, ["N", 4], opset))
    assert network.notes == (f"p_node: {kind} dropped; outputs are the logits, in the same order.",)
    gemm.output[0] = "y"
    agree(network, model([gemm], {"w": constants["w"], "b": constants["b"]}, ["N", 4]), rng)


@pytest.mark.parametrize(
    "attribute",
    [
        {"value": numpy_helper.from_array(np.float32([1.5, -2.0, 0.5]))},
        {"value_floats": [1.5, -2.0, 0.5]},
        {"value_float": -1.5},
    ],
)
def test_constant_nodes(attribute, rng):
    nodes = [node("Constant", "", "k", **attribute), node("Neg", "k", "n"), node("Mul", "x n", "y")]
    network = load(built := model(nodes, {}, ["N", 3]))
    np.testing.assert_array_equal(network.layers[1].scale, -np.ones(3) * list(_numbers(attribute)))
    agree(network, built, rng)


def _numbers(attribute):
    """The numbers of a Constant, once more."""
    value = next(iter(attribute.values()))
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.atleast_1d(value)


def test_an_initializer_used_twice_is_noted(rng):
    """Also through a node: the second layer holds the transpose of what the first holds."""
    nodes = [
        node("MatMul", "x w", "a"),
        node("Transpose", "w", "t"),
        node("MatMul", "a t", "b"),
        node("Add", "b b", "y"),
    ]
    network = load(built := model(nodes, {"w": weights(rng, 4, 3)}, ["N", 4]))
    note = "w: used by layers 'a_node', 'b_node', each of which is quantised on its own."
    assert network.notes == (note,)
    agree(network, built, rng)


def test_equal_names_are_numbered(rng):
    """onnxruntime wants node names to differ, so only nodes without name and the input can clash."""
    nodes = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")]
    nodes[0].name, nodes[1].name = "x", ""
    assert [layer.name for layer in load(model(nodes, {}, [3])).layers] == ["x", "x_2", "b", "y_node"]


def test_initializers_listed_as_inputs(rng):
    """As files before IR version 4 have it."""
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 4, 3)}, ["N", 4], opset=11)
    built.graph.input.insert(0, helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 3]))
    built.ir_version = 3
    assert kinds(load(built)) == "Dense"


def test_double_precision_is_kept(rng):
    built = model([node("Gemm", "x w", "y")], {"w": rng.normal(size=(4, 3))}, ["N", 4], dtype=np.float64)
    network = load(built)
    np.testing.assert_array_equal(network.layers[1].weight.T, numpy_helper.to_array(built.graph.initializer[0]))
    agree(network, built, rng)


def test_a_file_and_its_external_data(tmp_path, rng):
    built = model([node("Gemm", "x w", "y")], {"w": weights(rng, 40, 30)}, ["N", 40])
    path = tmp_path / "net.onnx"
    onnx.save_model(built, path, save_as_external_data=True, location="net.data", size_threshold=0)
    network = load(path)
    assert network.source == "net.onnx" and (tmp_path / "net.data").stat().st_size >= 4800
    agree(network, onnx.load(path), rng)
