"""Networks written as ONNX: read back in float32, replayed by onnxruntime in float64."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from qverify.arrays import Array
from qverify.errors import ModelError, UsageError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.layers import Add, Dense, Input, Layer, Relu, Rounding, Scale
from qverify.network import Network
from qverify.onnx.reader import load, save, to_onnx
from tests.support.networks import (
    NETWORKS,
    conv,
    convolve,
    dense,
    inputs,
    known_layers,
    mlp,
    pool,
    random_points,
    relu,
    scale,
)
from tests.support.onnx_models import kinds, run


def _conv_1d(rng: np.random.Generator) -> Any:
    """A convolution and a pooling over one axis, whose layers have shapes (channels, length)."""
    first = replace(conv(rng, "conv", 0, (2, 1, 9), (3, 2, 1, 3), strides=(1, 2), pads=(0, 1, 0, 2)), shape=(3, 5))
    average = replace(pool("pool", 2, (3, 1, 5), (1, 2)), shape=(3, 2))
    last = conv(rng, "last", 3, (3, 1, 2), (2, 3, 1, 1))
    layers = (Input("x", (), (2, 9)), first, Relu("relu", (1,), (3, 5)), average, replace(last, shape=(2, 2)))
    return Network((*layers, dense(rng, "out", 4, 3, 4)))


def _padded_pool(rng: np.random.Generator) -> Network:
    """Poolings that AveragePool can say, with pads, and that it cannot: dilated, or of other weights."""
    padded = replace(pool("padded", 0, (2, 5, 6), (3, 2)), pads=(1, 0, 2, 1), shape=(2, 2, 3))
    dilated = replace(pool("dilated", 1, (2, 2, 3), (1, 2)), dilations=(1, 2), strides=(1, 1), shape=(2, 2, 1))
    uneven = replace(pool("uneven", 2, (2, 2, 1), (2, 1)), weight=rng.normal(size=(2, 1, 2, 1)))
    return Network((Input("x", (), (2, 5, 6)), padded, dilated, uneven))


def _reshaped(rng: np.random.Generator) -> Any:
    """Element-wise layers whose shape is not that of their producer; an image made by a Dense layer."""
    first = dense(rng, "fc", 0, 12, 5)
    picture = Relu("picture", (1,), (3, 2, 2))
    factor = Scale("scale", (2,), (2, 6), scale=rng.normal(size=12), shift=rng.normal(size=12))
    last = conv(rng, "conv", 4, (3, 2, 2), (2, 3, 1, 2))
    layers = (Input("x", (), (5,)), first, picture, factor, Add("add", (2, 3), (4, 3)), last)
    return Network((*layers, replace(relu("relu", 5, last), shape=(4,)), scale(rng, "y", 6, 4)))


def _awkward_names(rng: np.random.Generator) -> Any:
    """Names that are also those of the model's ends, of constants and of helper nodes, and no name at all."""
    names = ["output", "input.weight", "", "input/flat", "output.bias", "input"]
    layers: list[Layer] = [Input("x", (), (2, 2))]
    for index, name in enumerate(names):
        layers.append(dense(rng, name, index, 4 + index, layers[-1].size))
    return Network(tuple(layers))


ALL = NETWORKS | {"1-d": _conv_1d, "padded pool": _padded_pool, "reshaped": _reshaped, "awkward": _awkward_names}


def _with_offsets(network: Network, rng: np.random.Generator) -> Network:
    """As a member of a quantised family: every activation off by something, some of it below zero."""
    changes = {
        i: replace(known_layers(network)[i], offset=0.5 * rng.normal(size=known_layers(network)[i].size))
        for i in (*network.relus, *network.activations)
    }
    return network.with_layers(changes)


def _same(got: Layer, want: Layer) -> None:
    """Asserts that a layer read back is the one written, weights rounded to float32."""
    assert type(got) is type(want) and got.inputs == want.inputs and got.shape == want.shape
    for one in fields(got):
        left, right = getattr(got, one.name), getattr(want, one.name)
        if isinstance(left, tuple) and left and isinstance(left[0], np.ndarray):
            left, right = np.stack(left), np.stack(right)
        if isinstance(left, np.ndarray):
            np.testing.assert_allclose(left, right, rtol=6e-8, atol=0, err_msg=one.name)
        elif one.name == "parameters":
            for mine, theirs in zip(left, right, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=6e-8, atol=0, err_msg=one.name)
        elif one.name not in ("name", "quantised"):
            assert left == right, one.name


@pytest.mark.parametrize("name", ALL)
def test_float32_is_read_back(name: str, rng: np.random.Generator, tmp_path: Path) -> None:
    network = ALL[name](rng)
    save(network, tmp_path / "net.onnx")
    again = load(tmp_path / "net.onnx")
    assert again.input_shape == network.input_shape and again.notes == ()
    for got, want in zip(again.layers, network.layers, strict=True):
        _same(got, want)
    x = inputs(network, rng)
    want = network.evaluate(x)
    np.testing.assert_allclose(again.evaluate(x), want, rtol=0, atol=1e-6 * np.abs(want).max())
    if name != "awkward":
        assert [layer.name for layer in again.layers] == ["input", *(layer.name for layer in network.layers[1:])]


def test_a_second_round_changes_nothing(rng: np.random.Generator) -> None:
    """float32 weights survive, and so do the names."""
    for name in ("residual", "conv_attributes", "conv_pool"):
        once = load(to_onnx(NETWORKS[name](rng)))
        assert to_onnx(load(to_onnx(once))).SerializeToString() == to_onnx(once).SerializeToString()


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_float64_is_replayed_by_onnxruntime(name: str, offsets: bool, rng: np.random.Generator) -> None:
    """Many samples at once and one at a time, to the rounding of float64."""
    network = ALL[name](rng)
    network = _with_offsets(network, rng) if offsets else network
    built = to_onnx(network, "float64")
    onnx.checker.check_model(built, full_check=True)
    x = inputs(network, rng)
    want = network.evaluate(x)
    for got in (run(built, x.reshape(-1, *network.input_shape)), _one_by_one(built, network, x)):
        assert got.shape == want.shape == (len(x), network.output_size)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def _one_by_one(built: onnx.ModelProto, network: Network, x: Array) -> Array:
    return np.concatenate([run(built, row.reshape(1, *network.input_shape)) for row in x])


def test_float64_with_the_optimisations_of_onnxruntime(rng: np.random.Generator) -> None:
    network = _with_offsets(NETWORKS["conv_conv"](rng), rng)
    session = onnxruntime.InferenceSession(to_onnx(network, "float64").SerializeToString())
    x = inputs(network, rng)
    (got,) = session.run(None, {"input": x.reshape(-1, *network.input_shape)})
    np.testing.assert_allclose(got, network.evaluate(x), rtol=0, atol=1e-12)


def test_float64_convolution_by_loops(rng: np.random.Generator) -> None:
    """Oracle: loops over taps, with strides, asymmetric pads, dilation and groups all at once."""
    more = {"strides": (2, 1), "pads": (1, 0, 2, 3), "dilations": (1, 2), "groups": 2}
    layer = conv(rng, "conv", 0, (4, 5, 4), (6, 2, 2, 3), **more)
    x = rng.normal(size=(3, 80))
    want = convolve(layer, np.stack([layer.weight] * 3), np.stack([layer.bias] * 3), x)
    built = to_onnx(Network((Input("x", (), (4, 5, 4)), layer)), "float64")
    np.testing.assert_allclose(run(built, x.reshape(3, 4, 5, 4)), want, rtol=0, atol=1e-12)
    assert "Conv" not in [node.op_type for node in built.graph.node]


def test_float64_rounds_nothing(rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 3)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in to_onnx(network, "float64").graph.initializer}
    np.testing.assert_array_equal(stored["fc0.weight"], known_layers(network)[1].weight)
    np.testing.assert_array_equal(stored["fc0.bias"], known_layers(network)[1].bias)


def test_relu_with_offset_by_hand() -> None:
    """max(max(z, 0) + offset, 0), not max(z + offset, 0)."""
    network = Network((Input("x", (), (3,)), Relu("r", (0,), (3,), offset=np.array([0.5, 0.5, -0.25]))))
    x = np.array([[-2.0, 1.0, 0.125], [0.0, -0.25, 1.0]])
    for dtype in ("float32", "float64"):
        built = to_onnx(network, dtype)
        assert [node.op_type for node in built.graph.node] == ["Relu", "Add", "Relu"]
        assert built.graph.node[-1].name == "r"
        np.testing.assert_array_equal(run(built, x), [[0.5, 1.5, 0.0], [0.5, 0.5, 0.75]])
    again = load(to_onnx(network))
    assert kinds(again) == "Relu Scale Relu"
    np.testing.assert_array_equal(again.evaluate(x), network.evaluate(x))


def test_pooling_stays_unquantised_where_onnx_can_say_so(rng: np.random.Generator) -> None:
    network = ALL["padded pool"](rng)
    built = to_onnx(network)
    assert [node.op_type for node in built.graph.node][:3] == ["AveragePool", "Conv", "Conv"]
    assert [layer.quantised for layer in known_layers(load(built))[1:]] == [False, True, True]


NO_POOLING = [
    {"quantised": True},
    {"has_bias": True},
    {"bias": np.array([0.5, -1.0])},
    {"weight": np.full((2, 1, 2, 3), 0.5)},
    {"pads": (2, 0, 0, 0), "strides": (4, 3)},
]


@pytest.mark.parametrize("change", NO_POOLING)
def test_what_is_not_quite_a_pooling_is_no_pooling(change: dict[str, Any], rng: np.random.Generator) -> None:
    layer = replace(pool("pool", 0, (2, 4, 3), (2, 3)), **change)
    built = to_onnx(Network((Input("x", (), (2, 4, 3)), layer)))
    assert built.graph.node[0].op_type == "Conv"
    again = known_layers(load(built))[1]
    np.testing.assert_array_equal(again.bias, layer.bias)
    np.testing.assert_allclose(again.weight, layer.weight, rtol=6e-8)


def test_a_bias_is_written_only_where_there_is_one(rng: np.random.Generator) -> None:
    """Else reading it back would give the layer bias radii; but no number is ever lost."""
    weight = rng.normal(size=(3, 4))
    for bias, has_bias, nodes in ((np.zeros(3), False, 2), (np.zeros(3), True, 3), (np.ones(3), False, 3)):
        layer = Dense("fc", (0,), (3,), weight=weight, bias=bias, has_bias=has_bias)
        built = to_onnx(Network((Input("x", (), (4,)), layer)))
        assert len(built.graph.node[0].input) == nodes
        assert known_layers(load(built))[1].has_bias == (nodes == 3)


def test_a_scalar_input(rng: np.random.Generator) -> None:
    """A network for one number without any axis gets one: (N, 1)."""
    layer = Scale("s", (0,), (), scale=np.array([2.0]), shift=np.array([-1.0]))
    network = Network((Input("x", (), ()), layer))
    assert load(to_onnx(network)).evaluate([[3.0]]).tolist() == [[5.0]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_interface_of_the_model(dtype: str, rng: np.random.Generator) -> None:
    built = to_onnx(NETWORKS["conv_conv"](rng), dtype)
    shapes = [
        [axis.dim_param or axis.dim_value for axis in end.type.tensor_type.shape.dim]
        for end in (*built.graph.input, *built.graph.output)
    ]
    assert shapes == [["N", 1, 4, 3], ["N", 3]]
    assert [built.graph.input[0].name, built.graph.output[0].name] == ["input", "output"]
    assert {"conv0", "relu0", "conv1", "conv2", "relu1", "out"} <= {node.name for node in built.graph.node}
    assert built.opset_import[0].version == 17 and built.ir_version == 8


def test_the_bytes_depend_on_the_network_only(tmp_path: Path, rng: np.random.Generator) -> None:
    network = NETWORKS["conv_attributes"](rng)
    for dtype in ("float32", "float64"):
        for name in ("one.onnx", "two.onnx"):
            save(network, tmp_path / name, dtype)
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_refusals(tmp_path: Path, rng: np.random.Generator) -> None:
    network = mlp(rng, 4, 3)
    with pytest.raises(UsageError, match="dtype 'float16' is unknown; choose 'float32' or 'float64'"):
        to_onnx(network, "float16")
    with pytest.raises(ModelError, match=r"none.*cannot be written .*No such file.*choose another place"):
        save(network, tmp_path / "none" / "net.onnx")
    layer = network.layers[1]
    assert isinstance(layer, Dense)
    huge = network.with_layers({1: replace(layer, weight=1e39 * layer.weight)})
    with pytest.raises(ModelError, match=r"fc0\.weight holds numbers too large for float32; export in float64"):
        to_onnx(huge)
    assert np.isfinite(run(to_onnx(huge, "float64"), np.ones((1, 4)))).all()


def test_rounding_points_by_hand() -> None:
    """Ties to even, ends, 0 kept next to 0 and the sign elsewhere; what need not keep 0; no grid; in every mixture."""
    x = np.array([[0.375, -0.25, 0.125, 0.3, -0.3, 5.0, 0.1, 0.0], [-0.375, 0.2, -0.2, -9.0, 0.05, -5.0, -0.1, 0.3]])
    layer = Rounding(
        "p",
        (0,),
        (8,),
        step=np.array([0.25, 0.25, 0.0, 0.0, 0.25, 0.25, 0.0, 0.5]),
        low=np.array([-1.0, 0.0, -1.0, -1.0, -0.5, -2.0, -1.0, -0.5]),
        high=np.array([1.0, 1.0, 1.0, 0.25, 1.0, 2.0, 1.0, 1.0]),
        dead=np.array([0.0, -1.0, 0.15, -1.0, 0.1, 0.0, -1.0, -1.0]),
        offset=np.array([0.0, 0.25, -0.2, 0.1, 0.35, 0.0, -0.25, 0.5]),
    )
    network = Network((Input("x", (), (8,)), layer))
    wanted = [[0.5, 0.0, 0.0, 0.25, 0.0, 2.0, -0.15, 0.5], [-0.5, 0.5, -0.4, -1.0, 0.0, -2.0, -0.35, 1.0]]
    np.testing.assert_allclose(network.evaluate(x), wanted, atol=1e-12)
    for dtype, close in (("float32", 1e-6), ("float64", 0.0)):
        built = to_onnx(network, dtype)
        onnx.checker.check_model(built, full_check=True)
        assert built.graph.node[-1].name == "p"
        np.testing.assert_allclose(run(built, x), network.evaluate(x), atol=close, rtol=0)


@pytest.mark.parametrize("grid", [False, True], ids=["any", "grid"])
@pytest.mark.parametrize("name", NETWORKS)
def test_members_with_rounding_points_are_replayed(name: str, grid: bool, rng: np.random.Generator) -> None:
    """Points at the input and behind every layer, and an error at each."""
    plain = NETWORKS[name](rng)
    family = Family.of(plain, Radii(points=random_points(plain, rng, grid)))
    changes: dict[int, Any] = {i: family.network.layers[i] for i in family.points}
    moved = {i: replace(p, offset=family.freedom(i) * rng.uniform(-1, 1, p.size)) for i, p in changes.items()}
    network, x = family.network.with_layers(moved), inputs(plain, rng)
    built = to_onnx(network, "float64")
    got = run(built, x.reshape(-1, *network.input_shape))
    np.testing.assert_allclose(got, network.evaluate(x), rtol=0, atol=1e-12)
