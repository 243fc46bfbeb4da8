"""Normalisations over a sample's own numbers, as operators and written out: onnxruntime, and members within bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch

from qverify.activations.layer import Activation
from qverify.bounds.interval import interval_bounds
from qverify.bounds.refinement import backward_margins, backward_outputs, tightened_bounds
from qverify.bounds.tensors import BoundModel
from qverify.errors import UnsupportedModel
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Product
from qverify.network import Network
from qverify.onnx import load, to_onnx
from tests.support.bounds import assert_contained, assert_margins_hold, box_ends
from tests.support.networks import inputs, sample_members
from tests.support.onnx_models import agree, model, node, run, weights

Rng = np.random.Generator
IMAGE: list[int | str] = ["N", 4, 3, 2]


def kinds(network: Network) -> list[str]:
    return [la.function if isinstance(la, Activation) else type(la).__name__ for la in network.layers[1:]]


OPERATORS: dict[str, tuple[Any, dict[str, Any], list[int | str], int]] = {
    "last axis": (lambda: [node("LayerNormalization", "x s b", "y")], {"s": 5, "b": 5}, ["N", 5], 17),
    "without a bias": (lambda: [node("LayerNormalization", "x s", "y", epsilon=0.1)], {"s": 5}, ["N", 3, 5], 17),
    "several axes": (
        lambda: [node("LayerNormalization", "x s b", "y", axis=1, epsilon=1e-3)],
        {"s": (4, 3, 2), "b": (4, 3, 2)},
        IMAGE,
        17,
    ),
    "one number": (lambda: [node("LayerNormalization", "x s b", "y", axis=-2)], {"s": (), "b": 2}, IMAGE, 17),
    "instances": (lambda: [node("InstanceNormalization", "x s b", "y")], {"s": 4, "b": 4}, IMAGE, 17),
    "groups": (
        lambda: [node("GroupNormalization", "x s b", "y", num_groups=2, epsilon=1e-2)],
        {"s": 4, "b": 4},
        IMAGE,
        21,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str, rng: Rng) -> None:
    nodes, shapes, shape, opset = OPERATORS[name]
    constants = {key: weights(rng, *np.atleast_1d(size).astype(int)) if size else 0.7 for key, size in shapes.items()}
    built = model(nodes(), constants, shape, opset)
    network = load(built)
    assert kinds(network).count("rsqrt") == 1
    agree(network, built, rng)


WRITTEN = {
    "by torch": ["Pow c two d", "Div c r y"],
    "a product": ["Mul c c d", "Div c r y"],
    "an inverse": ["Pow c two d", "Reciprocal r i", "Mul c i y"],
    "one over": ["Mul c c d", "Div one r i", "Mul i c y"],
    "three over": ["Mul c c d", "Div three r i", "Mul i c y"],
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_out(name: str, rng: Rng) -> None:
    square, *rest = (line.split() for line in WRITTEN[name])
    nodes = [node("ReduceMean", "x", "m", axes=[-1]), node("Sub", "x m", "c")]
    nodes += [node(square[0], " ".join(square[1:-1]), square[-1]), node("ReduceMean", "d", "v", axes=[-1])]
    nodes += [node("Add", "v e", "a"), node("Sqrt", "a", "r")]
    nodes += [node(kind, " ".join(given), made) for kind, *given, made in rest]
    used = {name for one in nodes for name in one.input}
    constants = {"two": 2.0, "one": 1.0, "three": np.array([3.0]), "e": np.array(1e-5)}
    built = model(nodes, {k: v for k, v in constants.items() if k in used}, ["N", 3, 5], 13)
    network = load(built)
    assert "sqrt" not in kinds(network) and kinds(network).count("rsqrt") == 1
    agree(network, built, rng)


def test_a_root_that_is_also_an_output(rng: Rng) -> None:
    """The standard deviation, which is divided by and read beside: two layers."""
    nodes = [node("Mul", "x x", "d"), node("ReduceMean", "d", "v", axes=[-1]), node("Add", "v e", "a")]
    nodes += [node("Sqrt", "a", "r"), node("Div", "x r", "q"), node("Concat", "q r", "y", axis=1)]
    built = model(nodes, {"e": np.array(0.01)}, ["N", 5], 13)
    network = load(built)
    assert {"sqrt", "rsqrt"} <= set(kinds(network))
    agree(network, built, rng)


def test_powers_of_halves(rng: Rng) -> None:
    nodes = [node("Abs", "x", "a"), node("Add", "a e", "b"), node("Pow", "b h", "r"), node("Pow", "b g", "i")]
    built = model([*nodes, node("Add", "r i", "y")], {"e": 0.25, "h": 0.5, "g": -0.5}, ["N", 4], 13)
    network = load(built)
    assert {"sqrt", "rsqrt"} <= set(kinds(network))
    agree(network, built, rng)


@pytest.mark.parametrize(
    ("before", "above"),
    [
        ([node("Relu", "x", "p")], True),
        ([node("Mul", "x x", "p")], True),
        ([node("Sigmoid", "x", "p")], True),
        ([node("Abs", "x", "q"), node("Relu", "x", "r"), node("Mul", "q r", "p")], True),
        ([node("Softplus", "x", "q"), node("Concat", "q q", "p", axis=1)], True),
        ([node("Abs", "x", "q"), node("Mul", "q w", "r"), node("Add", "r r", "p")], True),
        ([node("Tanh", "x", "p")], False),
        ([node("Neg", "x", "q"), node("Abs", "q", "r"), node("Mul", "r n", "p")], False),
        ([node("Relu", "x", "q"), node("Gemm", "q g", "p")], False),
        ([node("Mul", "x x", "q"), node("Sub", "q w", "p")], False),
        ([node("Relu", "x", "q"), node("Mul", "q x", "p")], False),
    ],
)
def test_a_root_is_one_of_what_is_above_0(before: list[onnx.NodeProto], above: bool, rng: Rng) -> None:
    nodes = [*before, node("Add", "p e", "a"), node("Sqrt", "a", "y")]
    used = {name for one in nodes for name in one.input}
    constants = {"e": np.array(0.125), "w": np.array(0.5), "n": np.array(-0.5), "g": np.abs(weights(rng, 4, 4))}
    built = model(nodes, {k: v for k, v in constants.items() if k in used}, ["N", 4], 13)
    if above:
        agree(load(built), built, rng)
        return
    with pytest.raises(UnsupportedModel, match="it is the root of what may be 0 or negative"):
        load(built)


@pytest.mark.parametrize(
    ("nodes", "constants", "words"),
    [
        ([node("Mul", "x x", "p"), node("Sqrt", "p", "y")], {}, "plus a constant above 0"),
        ([node("Pow", "x c", "y")], {"c": 3.0}, "supported are the exponents 2, 0.5 and -0.5"),
        ([node("Pow", "x x", "y")], {}, "it must be a constant"),
        ([node("Abs", "x", "p"), node("Reciprocal", "p", "y")], {}, "division by a constant, or by a Sqrt"),
        ([node("LayerNormalization", "x s", "y", axis=0)], {"s": 1.0}, "supported are others than the batch"),
        ([node("LayerNormalization", "x s", "y", epsilon=0.0)], {"s": 1.0}, "its epsilon is 0"),
        ([node("LayerNormalization", "x s", "y")], {"s": np.ones(3)}, "does not fit what is normalised"),
    ],
)
def test_refusals(nodes: list[onnx.NodeProto], constants: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel) as caught:
        load(model(nodes, constants, ["N", 4], 17))
    assert words in str(caught.value)


def normalised(rng: Rng, epsilon: float = 1e-5) -> Network:
    """A layer, a LayerNormalization, a Relu and a layer."""
    nodes = [
        node("Gemm", "x v u", "p", transB=1),
        node("LayerNormalization", "p s b", "q", epsilon=epsilon),
        node("Relu", "q", "r"),
        node("Gemm", "r w c", "y", transB=1),
    ]
    constants = {"v": weights(rng, 6, 4), "u": weights(rng, 6), "s": weights(rng, 6), "b": weights(rng, 6)}
    return load(model(nodes, constants | {"w": weights(rng, 3, 6), "c": weights(rng, 3)}, ["N", 4], 17))


@pytest.mark.parametrize("size", [1e-3, 0.02, 0.3])
@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
def test_members_are_within_bounds(size: float, epsilon: float, rng: Rng) -> None:
    network = normalised(rng, epsilon)
    family, samples = Family.of(network, Radii(size, size, size, size)), inputs(network, rng)
    model_of = BoundModel.of(family)
    rough = interval_bounds(model_of, *box_ends(model_of, family.box(samples)))
    fine = tightened_bounds(model_of, rough)
    lower, upper = backward_outputs(model_of, fine)
    labels = torch.tensor(network.evaluate(samples).argmax(1))
    margins = backward_margins(model_of, fine, labels)
    for row, x in enumerate(samples):
        for corner in (True, False):
            values = sample_members(family, x, rng, 900, corner)
            for bounds in (rough, fine):
                assert_contained(bounds, row, [v.min(0) for v in values])
                assert_contained(bounds, row, [v.max(0) for v in values])
            assert (values[-1] >= lower[row].numpy() - 1e-12).all() and (values[-1] <= upper[row].numpy() + 1e-12).all()
            assert_margins_hold(margins[row], values[-1], int(labels[row]))
    if size == 1e-3:  # and they are of use
        assert float((upper - lower)[0].max()) < 1.0


def test_activation_radii_are_not_those_of_the_arithmetic(rng: Rng) -> None:
    network = normalised(rng)
    (root,) = (i for i in network.activations)
    name = network.layers[root].name
    family = Family.of(network, Radii(activation=0.5))
    assert not family.activation[root].any() and family.activation[network.relus[0]].all()
    stated = Family.of(network, Radii(layers={name: {"activation": 0.25}}))
    assert (stated.activation[root] == 0.25).all()
    ranged = Radii.from_bits(8, "channel", "nearest", network, rng.normal(size=(30, 4)))
    assert name not in ranged.points and network.layers[network.relus[0]].name in ranged.points


def test_written_networks_are_read_again(rng: Rng) -> None:
    network = normalised(rng)
    x = rng.normal(size=(4, 4))
    again = to_onnx(network)
    read = load(again)
    assert kinds(read).count("rsqrt") == 1 and kinds(read).count("Product") == 2
    wanted = network.evaluate(x)
    assert abs(read.evaluate(x) - wanted).max() <= 1e-4 * abs(wanted).max()
    double = run(to_onnx(network, "float64"), x)
    assert abs(double - wanted).max() <= 1e-11 * max(1.0, abs(wanted).max())


def test_a_square_is_a_product_of_one_layer(rng: Rng) -> None:
    built = model([node("Pow", "x c", "y")], {"c": 2.0}, ["N", 4], 13)
    network = load(built)
    assert isinstance(network.layers[1], Product) and network.layers[1].inputs == (0, 0)
    agree(network, built, rng)
