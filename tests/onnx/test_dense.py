"""Gemm, MatMul, constants and branches as the loader reads them, against onnxruntime and numpy by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from qverify.layers import Conv, Dense
from qverify.onnx.reader import load
from tests.support.networks import known_layers
from tests.support.onnx_models import agree, kinds, model, node, weights

# --- what is a Relu, too ----------------------------------------------------------------------------------

LARGEST = float(np.finfo(np.float32).max)
# Name: (opset, inputs after x, constants, attributes, layers read)
RECTIFIERS: dict[str, tuple[Any, ...]] = {
    "Clip from 0": (17, "low", {"low": 0.0}, {}, "Relu"),
    "Clip from -0": (17, "low", {"low": -0.0}, {}, "Relu"),
    "Clip from [0]": (17, "low", {"low": np.array([0.0])}, {}, "Relu"),
    "Clip from 0 to the largest": (17, "low high", {"low": 0.0, "high": LARGEST}, {}, "Relu"),
    "Clip from 0 to infinity": (17, "low high", {"low": 0.0, "high": np.inf}, {}, "Relu"),
    "Clip without ends": (17, "", {}, {}, ""),
    "Clip with absent ends": (17, "- -", {}, {}, ""),
    "Clip to the largest": (17, "- high", {"high": LARGEST}, {}, ""),
    "old Clip from 0": (10, "", {}, {"min": 0.0}, "Relu"),
    "old Clip from 0 to the largest": (10, "", {}, {"min": 0.0, "max": LARGEST}, "Relu"),
    "old Clip without ends": (8, "", {}, {}, ""),
    "Max with 0": (17, "zero", {"zero": 0.0}, {}, "Relu"),
    "Max with zeros": (17, "zero one", {"zero": np.zeros(4), "one": np.zeros((1, 4))}, {}, "Relu"),
    "Max of one": (17, "", {}, {}, ""),
}


@pytest.mark.parametrize("name", RECTIFIERS)
def test_rectifiers(name: str, rng: np.random.Generator) -> None:
    """After a Mul, so that there is a layer where nothing is cut off."""
    opset, inputs, constants, attributes, layers = RECTIFIERS[name]
    kind = "Clip" if "Clip" in name else "Max"
    nodes = [node("Mul", "x c", "m"), node(kind, f"m {inputs}", "y", **attributes)]
    built = model(nodes, {"c": weights(rng, 4), **constants}, ["N", 4], opset)
    network = load(built)
    assert kinds(network) == f"Scale {layers}".strip()
    assert not layers or network.layers[2].name == "y_node"
    agree(network, built, rng)


def test_max_with_0_in_front_and_a_shape_of_more_axes(rng: np.random.Generator) -> None:
    nodes = [node("Max", "zero x", "r"), node("MatMul", "r w", "y")]
    built = model(nodes, {"zero": np.zeros((1, 1, 1)), "w": weights(rng, 4, 3)}, ["N", 4])
    network = load(built)
    assert kinds(network) == "Relu Dense"
    agree(network, built, rng)


def test_a_clip_of_a_double_model_reaches_further(rng: np.random.Generator) -> None:
    """float32's largest number is an end like any other there."""
    constants = {"low": 0.0, "high": LARGEST}
    network = load(model([node("Clip", "x low high", "y")], constants, ["N", 4], dtype=np.float64))
    assert kinds(network) == "Activation" and np.isclose(known_layers(network)[1].parameters[1], LARGEST).all()
    built = model([node("Clip", "x low", "y")], {"low": 0.0}, ["N", 4], dtype=np.float64)
    assert kinds(load(built)) == "Relu"
    agree(load(built), built, rng)


# --- Gemm and MatMul --------------------------------------------------------------------------------------

# Name: (shape of x, inputs of the node, shape of w, shape of c, attributes, layers read)
GEMMS: dict[str, tuple[Any, ...]] = {
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
def test_gemm_by_hand(name: str, rng: np.random.Generator) -> None:
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
MATMULS: dict[str, tuple[Any, ...]] = {
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
def test_matmul_by_hand(name: str, rng: np.random.Generator) -> None:
    shape, inputs, w_shape, layers = MATMULS[name]
    w = weights(rng, *w_shape)
    built = model([node("MatMul", inputs, "y")], {"w": w}, shape)
    network = load(built)
    assert kinds(network) == layers and not known_layers(network)[1].has_bias
    agree(network, built, rng)
    x = weights(rng, *(1 if length == "N" else length for length in shape))
    wanted = x @ w if inputs[0] == "x" else w @ x
    np.testing.assert_allclose(network.evaluate(x.reshape(1, -1))[0], wanted.reshape(-1), rtol=0, atol=1e-13)


@pytest.mark.parametrize("inputs", ["p b", "b p"])
@pytest.mark.parametrize("b_shape", [(3,), (1, 3), ()])
def test_matmul_and_add_is_one_layer_with_bias(inputs: str, b_shape: tuple[int, ...], rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, *b_shape)}
    built = model([node("MatMul", "x w", "p"), node("Add", inputs, "y")], constants, ["N", 4])
    network = load(built)
    assert kinds(network) == "Dense" and known_layers(network)[1].has_bias and known_layers(network)[1].name == "p_node"
    np.testing.assert_array_equal(known_layers(network)[1].bias, np.broadcast_to(constants["b"], (1, 3))[0])
    agree(network, built, rng)


def test_matmul_minus_constant_is_a_bias_and_the_second_constant_a_scale(rng: np.random.Generator) -> None:
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "c": weights(rng, 3)}
    nodes = [node("MatMul", "x w", "p"), node("Sub", "p b", "q"), node("Add", "c q", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Scale"
    np.testing.assert_array_equal(known_layers(network)[1].bias, -constants["b"])
    agree(network, built, rng)


def test_a_constant_added_to_a_value_that_others_read_is_no_bias(rng: np.random.Generator) -> None:
    """Else the other reader would see the bias, too."""
    constants = {"w": weights(rng, 4, 3), "b": weights(rng, 3), "v": weights(rng, 3, 3)}
    nodes = [node("MatMul", "x w", "p"), node("Add", "p b", "q"), node("MatMul", "p v", "r"), node("Add", "q r", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Dense Scale Dense Add"
    agree(network, built, rng)


# --- constants and branches -------------------------------------------------------------------------------

ARITHMETIC = [
    (kind, inputs, shape)
    for kind, inputs, shape in product(["Add", "Sub", "Mul", "Div"], ["x c", "c x"], [(), (3,), (2, 1), (1, 2, 3)])
    if (kind, inputs) != ("Div", "c x")
]
HAND = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}


@pytest.mark.parametrize(("kind", "inputs", "shape"), ARITHMETIC)
def test_constant_arithmetic_by_hand(kind: str, inputs: str, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    c = weights(rng, *shape)
    network = load(model([node(kind, inputs, "y")], {"c": c}, ["N", 2, 3]))
    assert kinds(network) == "Scale"
    x = weights(rng, 4, 2, 3)
    wanted = HAND[kind](x, c) if inputs == "x c" else HAND[kind](c, x)
    np.testing.assert_allclose(network.evaluate(x), wanted.reshape(4, 6), rtol=1e-14, atol=1e-14)


def test_constants_one_after_the_other_are_one_scale(rng: np.random.Generator) -> None:
    """Pixel normalisation and its relatives: ((3 - 2 (x / 255 - mean)) / deviation."""
    constants = {"m": weights(rng, 2, 1, 1), "d": weights(rng, 2, 1, 1), "s": 255.0, "two": 2.0, "three": 3.0}
    nodes = [node("Div", "x s", "a"), node("Sub", "a m", "b"), node("Mul", "two b", "c"), node("Sub", "three c", "d0")]
    network = load(built := model([*nodes, node("Div", "d0 d", "y")], constants, ["N", 2, 3, 4]))
    assert kinds(network) == "Scale" and network.layers[1].name == "a_node"
    agree(network, built, rng)


def test_scales_that_others_read_are_not_merged(rng: np.random.Generator) -> None:
    constants = {"c": weights(rng, 4), "d": weights(rng, 4)}
    nodes = [node("Mul", "x c", "a"), node("Mul", "a d", "b"), node("Add", "a b", "y")]
    network = load(built := model(nodes, constants, ["N", 4]))
    assert kinds(network) == "Scale Scale Add"
    agree(network, built, rng)


def test_residual_branches(rng: np.random.Generator) -> None:
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
    np.testing.assert_array_equal(known_layers(network)[6].scale, -np.ones(3))
    agree(network, built, rng)


def test_a_neg_is_an_exact_scale(rng: np.random.Generator) -> None:
    built = model([node("MatMul", "x w", "a"), node("Neg", "a", "y")], {"w": weights(rng, 4, 3)}, ["N", 4])
    network = load(built)
    assert kinds(network) == "Dense Scale"
    agree(network, built, rng)


def test_products_of_branches(rng: np.random.Generator) -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Mul", "a b", "c"), node("Mul", "c c", "y")]
    built = model(nodes, {"w": weights(rng, 4, 3), "v": weights(rng, 4, 3)}, ["N", 4])
    network = load(built)
    assert kinds(network) == "Dense Dense Product Product"
    agree(network, built, rng)
