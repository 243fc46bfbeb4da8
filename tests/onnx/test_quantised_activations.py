"""Activations other than Relu, and products, in files of onnxruntime's quantiser: read, bounded, and run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from qverify.activations.layer import Activation
from qverify.arrays import Array
from qverify.bounds.refinement import backward_outputs
from qverify.errors import ModelError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.rules import file_points
from qverify.layers import Product, Rounding
from qverify.network import Network
from qverify.onnx.reader import load
from tests.support.gated_models import ACTIVATIONS, dense, gated
from tests.support.onnx_models import node
from tests.support.quantised_graphs import MS, f, graph, i8, qdq, u8
from tests.support.toolchain import FORMS, Form, outputs, quantised

Rng = np.random.Generator
QDQ, QOPERATOR, WIDE = FORMS[0], FORMS[-2], replace(FORMS[2], weight="QInt8")
SIGNED = replace(QDQ, activation="QInt8")


def converted(built: onnx.ModelProto, opset: int = 17) -> onnx.ModelProto:
    built.opset_import[0].version = opset
    return built


# --- all integers through one function ---------------------------------------------------------------------------

S_X, S_Y = float(np.float32(0.037)), float(np.float32(0.011))


def alone(name: str, integers: Any) -> onnx.ModelProto:
    """A function between two rounding points in QDQ form, or as an operator on integers."""
    shape = ("N", 256)
    if name.startswith("QLinear"):
        attributes = {"alpha": 0.3} if "Leaky" in name else {}
        nodes = [
            node("QuantizeLinear", "x s z", "q"),
            node(name, "q s z t u", "o", domain=MS, **attributes),
            node("DequantizeLinear", "o t u", "y"),
        ]
        return graph(*nodes, shape=shape, s=f(S_X), z=integers(120), t=f(S_Y), u=integers(40))
    nodes = [
        *qdq("q", "x", "a"),
        node(name, "a", "b", **({"alpha": 0.3} if name == "LeakyRelu" else {})),
        node("QuantizeLinear", "b t u", "o"),
        node("DequantizeLinear", "o t u", "y"),
    ]
    return graph(*nodes, shape=shape, s=f(S_X), z=integers(120), t=f(S_Y), u=integers(40))


ALONE: dict[str, Any] = {
    "QLinearSigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "QLinearLeakyRelu": lambda x: np.where(x < 0, np.float32(0.3) * x, x),
    "LeakyRelu": lambda x: np.where(x < 0, np.float32(0.3) * x, x),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
    "Elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "Softsign": lambda x: x / (1 + abs(x)),
    "HardSwish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
}


@pytest.mark.parametrize("integers", [u8, i8])
@pytest.mark.parametrize("name", ALONE)
def test_all_integers_through_one_function(name: str, integers: Any) -> None:
    built = alone(name, integers)
    network = load(built)
    assert [type(layer).__name__ for layer in network.layers] == ["Input", "Rounding", "Activation", "Rounding"]
    first, last = network.layers[1], network.layers[3]
    assert isinstance(first, Rounding) and isinstance(last, Rounding)
    x = first.low + S_X * np.arange(256)
    exact = np.clip(ALONE[name](x), last.low, last.high)
    points = file_points(network, "float32")
    for optimised in (True, False):
        found = outputs(built, x[None], optimised)[0]
        assert (abs(found - exact) <= np.ravel(points[last.name].radius)).all()
        assert (abs(found - network.evaluate(x[None])[0]) < 1e-3 * S_Y).mean() > 0.99
    assert abs(found - exact).max() > 0.45 * S_Y and len(np.unique(found)) > 20


# --- files of the quantiser --------------------------------------------------------------------------------------


def file_of(built: onnx.ModelProto, form: Form, rng: Rng) -> tuple[onnx.ModelProto, Array]:
    """What the quantiser makes of a model, and samples for it."""
    shape = [axis.dim_value for axis in built.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.asarray(rng.normal(size=(140, *shape)), dtype=np.float32).astype(np.float64)
    return quantised(built, x[:40], form), x[40:]


def holds(network: Network, file: onnx.ModelProto, x: Array, rule: str = "float32") -> None:
    """onnxruntime's outputs lie within bounds on every runtime of the file; what it makes is what was read."""
    model, bounds = bounded(network, x, rule)
    lower, upper = (end.numpy() for end in backward_outputs(model, bounds))
    step = max(layer.step.max() for layer in network.layers[-1:] if isinstance(layer, Rounding))
    for optimised in (True, False):
        theirs = outputs(file, x, optimised)
        slack = 1e-3 * step + 2.0**-22 * abs(theirs)  # of dequantising in float32
        assert ((lower - slack <= theirs) & (theirs <= upper + slack)).all()
        assert (abs(network.evaluate(x) - theirs) < 0.01 * step).mean() > 0.5  # slopes of 1/10 make ties
    assert rule != "float32" or (upper - lower).mean() < (60 * step if step > 1e-3 else 0.5)


def bounded(network: Network, x: Array, rule: str) -> Any:
    from qverify.bounds.interval import interval_bounds
    from qverify.bounds.tensors import BoundModel

    family = Family.of(network, Radii.of_file(network, rule))  # type: ignore[arg-type]
    model = BoundModel.of(family)
    lower, upper = family.box(network.flat(x.astype(np.float64)))
    return model, interval_bounds(model, model.tensor(lower), model.tensor(upper))


@pytest.mark.parametrize("form", [QDQ, QOPERATOR], ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_gated_network_is_the_file(name: str, form: Form, rng: Rng) -> None:
    file, x = file_of(converted(gated(rng, name)), form, rng)
    network = load(file)
    assert any(isinstance(layer, Product) for layer in network.layers)
    assert any(isinstance(layer, Activation) for layer in network.layers)
    holds(network, file, x)


@pytest.mark.parametrize("form", [SIGNED, WIDE, replace(QDQ, centred=True, activation="QInt8")], ids=str)
@pytest.mark.parametrize("name", ["Sigmoid", "hard swish", "LeakyRelu"])
def test_other_forms(name: str, form: Form, rng: Rng) -> None:
    file, x = file_of(converted(gated(rng, name, "HardSigmoid")), form, rng)
    holds(load(file), file, x)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_random_files(seed: int) -> None:
    """Any activations behind each other, in any form."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(list(ACTIVATIONS), rng.integers(1, 4))]
    built = dense(rng, names) if seed % 2 else gated(rng, names[0], str(rng.choice(["Sigmoid", "HardSigmoid", "Tanh"])))
    form = FORMS[int(rng.integers(len(FORMS)))]
    file, x = file_of(converted(built), form, rng)
    holds(load(file), file, x, str(rng.choice(["float32", "double", "any"])))


# --- what the bounds rest on -------------------------------------------------------------------------------------


def test_verdicts_hold_for_what_onnxruntime_gives(rng: Rng) -> None:
    import qverify

    file, x = file_of(dense(rng, ["LeakyRelu", "Sigmoid"]), QOPERATOR, rng)
    network = load(file)
    theirs = {optimised: outputs(file, x, optimised).argmax(1) for optimised in (True, False)}
    labels = network.evaluate(x).argmax(1)
    found = qverify.verify(network, x, labels, Radii.of_file(network, "float32"))
    proved = np.array([verdict.status == "verified" for verdict in found])
    assert proved.mean() > 0.5
    for classes in theirs.values():
        assert (classes[proved] == labels[proved]).all()


def test_a_table_of_another_slope_is_noticed() -> None:
    """A reader that took another alpha would not pass."""
    built = alone("QLinearLeakyRelu", u8)
    load(built)
    (leaky,) = [one for one in built.graph.node if one.op_type == "QLinearLeakyRelu"]
    leaky.attribute.append(onnx.helper.make_attribute("beta", 0.3))
    with pytest.raises(ModelError, match="beta"):
        load(built)


@pytest.mark.parametrize("operator", ["Tanh", "LeakyRelu"])
def test_between_dynamic_tensors_they_are_refused(operator: str) -> None:
    nodes = [
        onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", "q w z", "i"),
        node("Cast", "i", "k", to=1),
        node("Mul", "s t", "m"),
        node("Mul", "k m", "n"),
        node(operator, "n", "y"),
    ]
    built = graph(*nodes, w=np.arange(12, dtype=np.int8).reshape(4, 3), t=f(0.1))
    with pytest.raises(ModelError, match="beside tensors quantised dynamically, where what runtimes get wrong"):
        load(built)
