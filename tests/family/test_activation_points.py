"""Rounding points around activations other than Relu and products, against what onnxruntime's quantiser writes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qverify
from qverify.activations.layer import Activation
from qverify.bounds.refinement import backward_outputs
from qverify.errors import RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.schemes import rounded_places
from qverify.family.steps import Quantiser
from qverify.layers import Conv, Dense, Input, Layer, Product
from qverify.network import Network
from tests.support.gated_models import dense, gated
from tests.support.networks import may_give
from tests.support.toolchain import Array, Form, model, outputs, quantised

Rng = np.random.Generator
FORM = Form(channel=False)
ONNXRUNTIME = Quantiser(8, "tensor", "nearest", points="onnxruntime")
TFLITE = Quantiser(8, "tensor", "nearest", points="tflite")


def converted(built: onnx.ModelProto) -> onnx.ModelProto:
    built.opset_import[0].version = 17
    return built


def grids_of(file: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Every tensor that a QDQ file rounds, by its name in the float model: scale and zero point (uint8)."""
    given = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}
    nodes = [node for node in file.graph.node if node.op_type == "QuantizeLinear"]
    return {
        node.input[0].removesuffix("_QuantizeLinear_Input"): (float(given[node.input[1]]), int(given[node.input[2]]))
        for node in nodes
    }


def points_of(source: onnx.ModelProto, network: Network, family: Family) -> dict[str, Any]:
    """Every point of a family by the name of the tensor in the model that it stands on."""
    made = {node.name: node.output[0] for node in source.graph.node}
    found = {"x": family.entry}
    for index, point in family.points.items():
        name = family.network.layers[index].name.removesuffix("/rounded")
        found[made[name]] = point
    return found


def samples(built: onnx.ModelProto, rng: Rng, count: int = 40) -> Array:
    shape = [axis.dim_value for axis in built.graph.input[0].type.tensor_type.shape.dim][1:]
    return rng.normal(size=(count, *shape)).astype(np.float32)


def fits(point: Any, scale: float, zero: int, rng: Rng) -> bool:
    """Whether every number that a tensor may have is rounded by the file's grid as the family allows it."""
    one = point.mapped(lambda numbers: np.ravel(numbers)[0])
    low, high = -zero * scale, (255 - zero) * scale
    inside = one.low[0] <= low <= one.low[1] and one.high[0] <= high <= one.high[1]
    values = np.concatenate(
        [rng.uniform(1.5 * low - scale, 1.5 * high + scale, 800), (np.arange(-30, 30) + 0.5) * scale]
    )
    given = np.clip(np.rint(values / scale) * scale, low, high)
    return bool(inside and may_give(one, values, given).all())


CASES = {
    "LeakyRelu": lambda rng: dense(rng, ["LeakyRelu", "LeakyRelu"]),
    "Sigmoid": lambda rng: dense(rng, ["Sigmoid"]),
    "Tanh and Elu": lambda rng: dense(rng, ["Tanh", "Elu"]),
    "HardSwish": lambda rng: dense(rng, ["HardSwish"]),
    "mish": lambda rng: dense(rng, ["mish"]),
    "clip": lambda rng: dense(rng, ["clip", "Tanh"]),
    "gate": lambda rng: gated(rng, "LeakyRelu"),
    "gate of HardSigmoid": lambda rng: gated(rng, "Sigmoid", "HardSigmoid"),
    "gate of HardSwish": lambda rng: gated(rng, "HardSwish", "HardSigmoid"),
    "gate behind a clip": lambda rng: gated(rng, "clip"),
}


def check(built: onnx.ModelProto, rng: Rng) -> tuple[Network, Family, onnx.ModelProto, Array]:
    """The file has a point wherever the family has one, and nowhere else, and every one is inside."""
    x = samples(built, rng)
    network, file = qverify.load(built), quantised(built, x, FORM)
    family = Family.of(network, Radii.of(ONNXRUNTIME, network, x.astype(np.float64)))
    grids, points = grids_of(file), points_of(built, network, family)
    for view in [one for one in built.graph.node if one.op_type == "Flatten"]:
        assert grids.pop(view.output[0]) == grids[view.input[0]]
    assert set(grids) == set(points), set(grids) ^ set(points)
    for name, (scale, zero) in grids.items():
        assert fits(points[name], scale, zero, rng), name
    return network, family, file, x


@pytest.mark.parametrize("name", CASES)
def test_the_points_of_the_file_are_those_of_the_family(name: str, rng: Rng) -> None:
    check(converted(CASES[name](rng)), rng)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_points_of_random_files(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["LeakyRelu", "Sigmoid", "Tanh", "Elu", "HardSwish", "mish", "clip", "Softplus", "HardSigmoid"]
    chosen = [str(name) for name in rng.choice(names, rng.integers(1, 4))]
    check(converted(dense(rng, chosen)), rng)


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_what_the_file_gives(name: str, rng: Rng) -> None:
    network, family, file, x = check(converted(CASES[name](rng)), rng)
    from qverify.bounds.interval import interval_bounds
    from qverify.bounds.tensors import BoundModel

    bound_model = BoundModel.of(family)
    lower, upper = family.box(network.flat(x.astype(np.float64)))
    bounds = interval_bounds(bound_model, bound_model.tensor(lower), bound_model.tensor(upper))
    least, most = (end.numpy() for end in backward_outputs(bound_model, bounds))
    for optimised in (True, False):
        theirs = outputs(file, x, optimised)
        assert ((least - 1e-6 <= theirs) & (theirs <= most + 1e-6)).all()


def test_a_verdict_holds_for_the_file(rng: Rng) -> None:
    built = converted(dense(rng, ["LeakyRelu"], width=5))
    network, _, file, x = check(built, rng)
    labels = network.evaluate(x.astype(np.float64)).argmax(1)
    radii = Radii.of(ONNXRUNTIME, network, x.astype(np.float64))
    proved = [v.status == "verified" for v in qverify.verify(network, x.astype(np.float64), labels, radii)]
    assert np.mean(proved) > 0.3
    for optimised in (True, False):
        classes = outputs(file, x, optimised)
        best = np.where(np.arange(3) == labels[:, None], -np.inf, classes).max(1)
        assert (classes[np.arange(len(x)), labels] >= best)[proved].all()


# --- what is refused ---


ENDS = {"half": 0.5, "high": 1.0, "low": 0.2, "below": -1.0, "zero": 0.0}


def behind(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    start = helper.make_node("Gemm", ["x", "W", "b"], ["z"], name="fc", transB=1)
    return converted(model([start, *nodes], {"W": np.eye(4) + 0.1, "b": np.ones(4), **ENDS}, (4,), 4))


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"{output}_{kind.lower()}", **attributes)


REFUSED = {
    "onnxruntime rounds before or between the nodes that compute it": [
        behind(node("Sigmoid", "z", "s"), node("Mul", "z s", "y")),
        dense(np.random.default_rng(0), ["hard swish"]),
        behind(node("Max", "z zero", "c"), node("Gemm", "c W", "y")),
        behind(node("Min", "z high", "c"), node("Gemm", "c W", "y")),
    ],
    "a LeakyRelu is rounded there and a PRelu is not": [behind(node("LeakyRelu", "z", "y"))],
    "the range behind it holds 0 and its own does not": [
        behind(node("Clip", "z low high", "c"), node("Gemm", "c W", "y"))
    ],
    "what it reads may be left in floating point": [
        behind(node("ReduceMean", "z", "m", axes=[1]), node("Tanh", "m", "a"), node("Add", "a z", "y")),
        behind(node("Mul", "z half", "m"), node("LeakyRelu", "m", "a"), node("Gemm", "a W", "y")),
        converted(model([node("Tanh", "x", "a"), node("Gemm", "a W", "y")], {"W": np.eye(4)}, (4,), 4)),
    ],
    "what it gives is rounded behind what reads it": [behind(node("Tanh", "z", "a"), node("Relu", "a", "y"))],
    "a Clip is fused where it is all that reads": [
        behind(node("Clip", "z below high", "c"), node("Add", "c z", "y")),
    ],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_not_known_is_refused(message: str, rng: Rng) -> None:
    for built in REFUSED[message]:
        network = qverify.load(converted(built))
        with pytest.raises(RadiiError, match=message):
            Radii.of(ONNXRUNTIME, network, rng.normal(size=(9, 4)))
        Radii.of(Quantiser(8, "tensor", "nearest"), network, rng.normal(size=(9, 4)))


def test_an_activation_at_the_end_that_stays_in_floats(rng: Rng) -> None:
    built = behind(node("Tanh", "z", "y"))
    network, _, _, _ = check(built, rng)
    assert rounded_places(network, "onnxruntime") == [1] and rounded_places(network, "tflite") == [1, 2]


# --- TensorFlow Lite ---


def small(function: str, *parameters: float) -> Network:
    layers: tuple[Layer, ...] = (
        Input("x", (), (3,)),
        Dense("fc", (0,), (3,), weight=np.eye(3), bias=np.zeros(3)),
        Activation("f", (1,), (3,), function, tuple(np.full(3, p) for p in parameters)),
        Product("gate", (1, 2), (3,)),
    )
    return Network(layers)


@pytest.mark.parametrize(("function", "scale", "zero"), [("sigmoid", 1 / 256, 0), ("tanh", 1 / 128, 128)])
def test_fixed_grids_of_tensorflow_lite(function: str, scale: float, zero: int, rng: Rng) -> None:
    network = small(function)
    family = Family.of(network, Radii.of(TFLITE, network, rng.normal(size=(20, 3))))
    assert set(family.points) == {2, 4, 6}
    assert fits(family.points[4], scale, zero, rng)
    assert family.points[4].radius.max() < 0.51 * scale
    assert not fits(family.points[4], scale * 1.05, zero, rng)


def test_kernels_of_tensorflow_lite_err_by_more(rng: Rng) -> None:
    x = rng.normal(size=(20, 3))

    def steps(function: str, rounding: str, *parameters: float) -> float:
        network = small(function, *parameters)
        family = Family.of(network, Radii.of(Quantiser(8, "tensor", rounding, points="tflite"), network, x))
        values = Activation("f", (0,), (3,), function, tuple(np.full(3, p) for p in parameters)).curve.value(x)
        step = 1 / 256 if function == "sigmoid" else (max(0.0, values.max()) - min(0.0, values.min())) / 255
        return float(family.points[4].radius.max() / step)

    assert 1.0 <= steps("leaky_relu", "nearest", 0.2) < 1.01 and 1.0 <= steps("leaky_relu", "any", 0.2) < 1.01
    assert 0.52 < steps("hard_swish", "nearest") < 0.7
    assert 0.56 <= steps("sigmoid", "double") < 0.57


@pytest.mark.parametrize(
    ("function", "parameters", "changes", "message"),
    [
        ("silu", (), {}, "its operators are not known"),
        ("clip", (-1.0, 6.0), {}, r"fuses a Clip to \[0, 6\], and no other"),
        ("clip", (0.0, 6.0), {}, "a Clip is fused where it is all that reads"),
        ("tanh", (), {"activation_bits": 16}, "known for asymmetric integers of 8 bits"),
        ("sigmoid", (), {"activations": "symmetric"}, "known for asymmetric integers of 8 bits"),
    ],
)
def test_what_tensorflow_lite_does_otherwise_is_refused(
    function: str, parameters: Any, changes: Any, message: str, rng: Rng
) -> None:
    quantiser = Quantiser(8, "tensor", "nearest", points="tflite", **changes)
    with pytest.raises(RadiiError, match=message):
        Radii.of(quantiser, small(function, *parameters), rng.normal(size=(9, 3)))


def test_a_relu6_has_its_point_behind_it(rng: Rng) -> None:
    layers = (
        Input("x", (), (1, 2, 2)),
        Conv("conv", (0,), (2, 2, 2), rng.normal(size=(2, 1, 1, 1)), np.zeros(2), (1, 2, 2)),
        Activation("relu6", (1,), (2, 2, 2), "clip", (np.zeros(8), np.full(8, 6.0))),
        Dense("fc", (2,), (2,), weight=rng.normal(size=(2, 8)), bias=np.zeros(2)),
    )
    network = Network(layers)
    for where in ("tflite", "onnxruntime"):
        assert rounded_places(network, where) == [2, 3]
    Radii.of(TFLITE, network, rng.normal(size=(9, 1, 2, 2)))
