"""Activations of ONNX files against onnxruntime, operator by operator and opset by opset, and what torch exports."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from qverify.activations.layer import Activation
from qverify.errors import UnsupportedModel
from qverify.onnx.reader import load
from qverify.onnx.writer import to_onnx
from tests.support.networks import SMOOTH, known_layers, smooth
from tests.support.onnx_models import agree, kinds, model, node, run, weights
from tests.support.quantised_graphs import S, f, graph, qdq

# Name: (operator, opset, attributes, constants behind x, function, parameters of the first element)
CASES: dict[str, tuple[str, int, dict[str, Any], dict[str, Any], str, tuple[float, ...]]] = {
    "Clip of opset 6": ("Clip", 8, {"min": -0.5, "max": 0.75}, {}, "clip", (-0.5, 0.75)),
    "ReLU6 of opset 10": ("Clip", 10, {"min": 0.0, "max": 6.0}, {}, "clip", (0.0, 6.0)),
    "Clip of opset 11": ("Clip", 11, {}, {"low": -0.5, "high": 0.75}, "clip", (-0.5, 0.75)),
    "Clip of opset 13": ("Clip", 13, {}, {"low": np.array([0.25]), "high": 1.0}, "clip", (0.25, 1.0)),
    "Clip from above": ("Clip", 17, {}, {"-": 0, "high": 0.5}, "clip", (-float(np.finfo(np.float32).max), 0.5)),
    "Clip from below": ("Clip", 17, {}, {"low": 0.5}, "clip", (0.5, float(np.finfo(np.float32).max))),
    "Min": ("Min", 17, {}, {"c": 0.5}, "clip", (-float(np.finfo(np.float32).max), 0.5)),
    "Min of elements": ("Min", 13, {}, {"c": np.array([0.5, -1.0, 0.0, 2.0])}, "clip", (-3.4028235e38, 0.5)),
    "Max with 1": ("Max", 8, {}, {"c": 1.0}, "clip", (1.0, float(np.finfo(np.float32).max))),
    "LeakyRelu": ("LeakyRelu", 8, {}, {}, "leaky_relu", (0.01,)),
    "LeakyRelu of opset 16": ("LeakyRelu", 16, {"alpha": -1.5}, {}, "leaky_relu", (-1.5,)),
    "PRelu": ("PRelu", 9, {}, {"s": np.array([0.25, -0.5, 1.5, 0.0])}, "leaky_relu", (0.25,)),
    "PRelu of one": ("PRelu", 16, {}, {"s": np.array([0.25])}, "leaky_relu", (0.25,)),
    "Abs": ("Abs", 13, {}, {}, "abs", ()),
    "HardSigmoid": ("HardSigmoid", 8, {}, {}, "hard_sigmoid", (0.2, 0.5)),
    "HardSigmoid with numbers": ("HardSigmoid", 17, {"alpha": 0.5, "beta": -0.25}, {}, "hard_sigmoid", (0.5, -0.25)),
    "HardSwish": ("HardSwish", 14, {}, {}, "hard_swish", ()),
    "Sigmoid": ("Sigmoid", 8, {}, {}, "sigmoid", ()),
    "Tanh": ("Tanh", 13, {}, {}, "tanh", ()),
    "Softplus": ("Softplus", 8, {}, {}, "softplus", ()),
    "Elu": ("Elu", 8, {}, {}, "elu", (1.0,)),
    "Elu with alpha": ("Elu", 17, {"alpha": 2.5}, {}, "elu", (2.5,)),
    "Selu": ("Selu", 8, {}, {}, "selu", (1.6732631921768188, 1.0507010221481323)),
    "Selu with numbers": ("Selu", 17, {"alpha": 1.5, "gamma": 0.5}, {}, "selu", (1.5, 0.5)),
    "Celu": ("Celu", 12, {"alpha": 1.5}, {}, "celu", (1.5,)),
    "Exp": ("Exp", 13, {}, {}, "exp", ()),
    "Softsign": ("Softsign", 8, {}, {}, "softsign", ()),
    "Erf": ("Erf", 13, {}, {}, "erf", ()),
    "Gelu": ("Gelu", 20, {}, {}, "gelu", ()),
    "Gelu by tanh": ("Gelu", 20, {"approximate": "tanh"}, {}, "gelu_tanh", ()),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_are_those_of_onnxruntime(name: str, rng: np.random.Generator) -> None:
    """Behind a Mul small enough that no exponential overflows on inputs up to 255."""
    operator, opset, attributes, constants, function, numbers = CASES[name]
    inputs = " ".join(["m", *constants])
    given = {key: value for key, value in constants.items() if key != "-"}
    nodes = [node("Mul", "x c", "m"), node(operator, inputs, "y", **attributes)]
    built = model(nodes, {"c": 0.3 * weights(rng, 4), **given}, ["N", 4], opset)
    network = load(built)
    assert kinds(network) == "Scale Activation"
    layer = known_layers(network)[2]
    assert layer.function == function and layer.name == "y_node"
    assert [p[0] for p in layer.parameters] == pytest.approx(list(numbers), rel=1e-7)
    x = 8.0 * rng.normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_allclose(network.evaluate(x), run(built, x), rtol=2e-5, atol=2e-6)
    agree(network, built, rng)


def test_prelu_with_a_slope_a_channel(rng: np.random.Generator) -> None:
    built = model([node("PRelu", "x s", "y")], {"s": np.array([[[0.5]], [[-0.25]]])}, ["N", 2, 2, 3])
    network = load(built)
    assert known_layers(network)[1].parameters[0].tolist() == [0.5] * 6 + [-0.25] * 6
    agree(network, built, rng)


def test_a_max_and_a_min_are_one_clip(rng: np.random.Generator) -> None:
    low, high = np.array([-1.0, -0.5, 0.0, 0.25]), np.array([0.0, 0.5, 0.5, 1.0])
    built = model([node("Max", "x a", "m"), node("Min", "m b", "y")], {"a": low, "b": high}, ["N", 4])
    network = load(built)
    assert kinds(network) == "Activation"
    assert [p.tolist() for p in known_layers(network)[1].parameters] == [low.tolist(), high.tolist()]
    agree(network, built, rng)
    empty = load(model([node("Clip", "x a b", "m"), node("Min", "m c", "y")], {"a": 0.5, "b": 1.0, "c": 0.0}, ["N", 4]))
    assert (empty.evaluate(rng.normal(size=(5, 4))) == 0).all()


def patterns(read: bool) -> dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]]:
    """What exporters write; `read`: the inner tensor is read a second time, so it has to stay."""
    root, tail = float(np.float32(np.sqrt(2.0))), [node("Add", "z i", "y")] if read else []
    end = "z" if read else "y"
    return {
        "silu": ([node("Sigmoid", "x", "i"), node("Mul", "x i", end), *tail], {}),
        "hard_swish": ([node("HardSigmoid", "x", "i", alpha=1 / 6), node("Mul", "i x", end), *tail], {}),
        "gelu": (
            [
                node("Div", "x root", "d"), node("Erf", "d", "i"), node("Add", "i one", "p"), node("Mul", "x p", "q"),
                node("Mul", "q half", end), *tail,
            ],
            {"root": root, "one": 1.0, "half": 0.5},
        ),
        "gelu of another order": (
            [
                node("Mul", "x root", "d"), node("Erf", "d", "i"), node("Add", "one i", "p"),
                node("Mul", "half p", "q"), node("Mul", "q x", end), *tail,
            ],
            {"root": 1.0 / root, "one": 1.0, "half": 0.5},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", patterns(False))
def test_products_that_are_activations(name: str, rng: np.random.Generator) -> None:
    nodes, constants = patterns(False)[name]
    built = model(nodes, constants, ["N", 4])
    network = load(built)
    assert kinds(network) == "Activation" and known_layers(network)[1].function == name.split()[0]
    agree(network, built, rng)
    nodes, constants = patterns(True)[name]
    built = model(nodes, constants, ["N", 4])
    network = load(built)
    assert "Product" in kinds(network)
    agree(network, built, rng)


def test_other_products_are_products(rng: np.random.Generator) -> None:
    for nodes in (
        [node("Mul", "x c", "m"), node("Sigmoid", "m", "i"), node("Mul", "x i", "y")],
        [node("Tanh", "x", "i"), node("Mul", "x i", "y")],
        [node("HardSigmoid", "x", "i"), node("Mul", "x i", "y")],
    ):
        built = model(nodes, {"c": 0.5}, ["N", 4])
        network = load(built)
        assert kinds(network).endswith("Activation Product")
        agree(network, built, rng)


def test_a_clip_before_quantising_is_part_of_the_rounding_point() -> None:
    clip = graph(node("Clip", "x low high", "c"), *qdq("q", "c", "y"), low=f(0.0), high=f(6.0), **S)
    assert kinds(load(clip)) == "Rounding"
    assert kinds(load(graph(node("Tanh", "x", "c"), *qdq("q", "c", "y"), **S))) == "Activation Rounding"


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "gelu_tanh"])
def test_what_is_written_is_read_back(name: str, rng: np.random.Generator) -> None:
    network = smooth(rng, name, *SMOOTH[name])
    again = load(to_onnx(network))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in network.layers]
    x = rng.normal(size=(50, 9))
    np.testing.assert_allclose(again.evaluate(x), network.evaluate(x), rtol=1e-5, atol=1e-5)


def _torch_softplus(threshold: float, *more: onnx.NodeProto, compared: str = "x", soft: str = "x") -> onnx.ModelProto:
    nodes = [node("Softplus", soft, "s"), node("Greater", f"{compared} t", "c"), node("Where", "c x s", "z")]
    return model([*more, *nodes, node("Neg", "z", "y")], {"t": np.array(threshold)}, ["N", 4])


@pytest.mark.parametrize("threshold", [20.0, 25.0])
def test_the_softplus_of_pytorch_is_one_layer(threshold: float, rng: np.random.Generator) -> None:
    built = _torch_softplus(threshold)
    network = load(built)
    first: Any = network.layers[1]
    assert (first.function, first.name) == ("softplus_threshold", "z_node") and not network.notes
    assert (first.parameters[0] == threshold).all() and len(network.layers) == 3
    agree(network, built, rng)
    wide = np.array([[19.0, 21.0, -3.0, 200.0]])
    assert np.abs(network.evaluate(wide) - run(built, wide)).max() < 1e-5
    again = load(to_onnx(network)).layers[1]
    assert isinstance(again, Activation) and again.function == "softplus_threshold"


def test_other_choices_are_none() -> None:
    for built in (
        _torch_softplus(19.0),
        _torch_softplus(20.0, node("Neg", "x", "n"), compared="n"),
        _torch_softplus(20.0, node("Neg", "x", "n"), soft="n"),
    ):
        with pytest.raises(UnsupportedModel, match="Where"):
            load(built)


def test_a_softplus_that_others_read_stays(rng: np.random.Generator) -> None:
    nodes = [node("Softplus", "x", "s"), node("Greater", "x t", "c"), node("Where", "c x s", "z")]
    built = model([*nodes, node("Add", "z s", "y")], {"t": np.array(20.0)}, ["N", 4])
    network = load(built)
    assert [la.function for la in network.layers if isinstance(la, Activation)] == ["softplus", "softplus_threshold"]
    agree(network, built, rng)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMOOTH)
def test_what_is_written_computes_the_same(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """In float64 to its rounding, but for error functions, which onnxruntime has in float32."""
    network = smooth(rng, name, *SMOOTH[name])
    session = onnxruntime.InferenceSession(to_onnx(network, dtype).SerializeToString())
    x = (1.0 if name == "exp" else 3.0) * rng.normal(size=(50, 9)).astype(np.float32)
    found = session.run(None, {"input": x.reshape(50, 1, 3, 3).astype(dtype)})[0]
    wanted, single = network.evaluate(x), dtype == "float32" or name in ("erf", "gelu")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=(3e-6 if single else 1e-13) * (1.0 + abs(wanted).max()))


def test_what_torch_exports(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for opset, activations in ((13, "GELU SiLU Hardswish Mish"), (17, "GELU SiLU ReLU6 ELU Softplus Hardtanh PReLU")):
        for name in activations.split():
            module = nn.Sequential(nn.Linear(4, 5), getattr(nn, name)(), nn.Linear(5, 3)).eval()
            stream = io.BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(module, torch.zeros(1, 4), stream, opset_version=opset, dynamo=False)
            built = onnx.load_model_from_string(stream.getvalue())
            network = load(built)
            middle = "Activation Activation Product" if name == "Mish" else "Activation"
            assert kinds(network) == f"Dense {middle} Dense", (name, kinds(network))
            x = rng.normal(size=(20, 4))
            with torch.no_grad():
                wanted = module(torch.tensor(x, dtype=torch.float32)).numpy()
            np.testing.assert_allclose(network.evaluate(x), wanted, rtol=1e-5, atol=1e-5)


def test_constants_of_float32_in_models_of_float64() -> None:
    """onnxruntime has some: what it gives differs by no more than these do."""
    built = model([node("HardSwish", "x", "a"), node("Div", "a c", "y")], {"c": 2.08}, ["N", 3], 18, np.float64)
    assert kinds(load(built)) == "Activation Scale"
