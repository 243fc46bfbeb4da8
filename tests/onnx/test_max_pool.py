"""MaxPool and GlobalMaxPool as the loader reads them, on floats and on integers, against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import qverify
from qverify.errors import ModelError, RadiiError
from qverify.family.family import Family
from qverify.family.radii import Radii
from qverify.family.steps import Quantiser
from qverify.layers import Input, MaxPool, Rounding
from qverify.network import Network
from qverify.onnx.reader import load
from qverify.onnx.writer import save, to_onnx
from qverify.replication.coverage import coverage
from qverify.report import replay
from tests.support.networks import NETWORKS, max_pool, pool_taps
from tests.support.onnx_models import agree, kinds, model, node
from tests.support.toolchain import Form, outputs, quantised
from tests.support.toolchain import model as graph

POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "1-d": ((2, 7), {"kernel_shape": [3], "strides": [2], "pads": [1, 2]}),
    "2-d": ((2, 5, 4), {"kernel_shape": [2, 3]}),
    "gaps": ((1, 7, 5), {"kernel_shape": [1, 2], "strides": [2, 3]}),
    "pads": ((2, 5, 4), {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [2, 0, 1, 1]}),
    "SAME_UPPER": ((1, 5, 6), {"kernel_shape": [2, 4], "auto_pad": "SAME_UPPER", "strides": [2, 1]}),
    "SAME_LOWER": ((1, 5, 6), {"kernel_shape": [2, 4], "auto_pad": "SAME_LOWER"}),
    "VALID": ((1, 5, 6), {"kernel_shape": [3, 3], "auto_pad": "VALID", "strides": [2, 2]}),
    "ceil": ((2, 6, 5), {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}),
    "ceil, pads": ((1, 6, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 0, 1], "ceil_mode": 1}),
    "all attributes": ((1, 3, 3), {"kernel_shape": [2, 2], "dilations": [1, 1], "storage_order": 0}),
}


@pytest.mark.parametrize("opset", [8, 11, 17, 22])
@pytest.mark.parametrize("name", POOLS)
def test_max_pool(name: str, opset: int, rng: np.random.Generator) -> None:
    shape, attributes = POOLS[name]
    if opset < 10 and ("ceil_mode" in attributes or "dilations" in attributes):
        pytest.skip("the opset has no such attribute")
    built = model([node("MaxPool", "x", "y", **attributes)], {}, ["N", *shape], opset)
    network = load(built)
    assert kinds(network) == "MaxPool" and bool(network.oddities) == (opset < 12)
    agree(network, built, rng)
    layer: Any = network.layers[1]
    x = rng.normal(size=(3, network.input_size))
    wanted = np.stack([x[:, taps].max(axis=1) for taps in pool_taps(layer)], axis=1)
    assert (network.evaluate(x) == wanted).all()


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 4), (2, 2, 3, 2)])
def test_global_max_pool(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    built = model([node("GlobalMaxPool", "x", "y")], {}, ["N", *shape], 17)
    network = load(built)
    assert kinds(network) == "MaxPool" and network.output_size == shape[0]
    x = rng.normal(size=(5, *shape))
    assert (network.evaluate(x) == x.reshape(5, shape[0], -1).max(axis=2)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", POOLS)
def test_written_and_read_again(name: str, dtype: Any, rng: np.random.Generator) -> None:
    """Pads that no window reaches are left out, which onnxruntime would refuse."""
    shape, attributes = POOLS[name]
    network = load(model([node("MaxPool", "x", "y", **attributes)], {}, ["N", *shape], 17))
    again = load(to_onnx(network, dtype))
    x = rng.normal(size=(4, network.input_size))
    assert (network.evaluate(x) == again.evaluate(x)).all()
    unused = max_pool("pool", 0, (1, 2, 2), (1, 1), strides=(5, 5), pads=(0, 0, 3, 2))
    wide = Network((Input("x", (), (1, 2, 2)), unused))
    assert (load(to_onnx(wide, dtype)).evaluate(x[:, :4]) == wide.evaluate(x[:, :4])).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_witness_with_a_max_pool_can_be_replayed(dtype: Any, tmp_path: Path, rng: np.random.Generator) -> None:
    """The report runs nothing but operators that the writer knows."""
    network = NETWORKS["conv_max_pool"](rng)
    save(network, tmp_path / "member.onnx", dtype)
    x = rng.normal(size=network.input_shape)
    theirs = replay.outputs(tmp_path / "member.onnx", x)
    np.testing.assert_allclose(theirs, network.evaluate(x[None])[0], atol=1e-5 if dtype == "float32" else 1e-12)


def test_windows_that_hold_nothing_are_refused() -> None:
    for more in ({"pads": (2, 0, 0, 0)}, {"pads": (0, 0, 2, 0), "strides": (1, 1)}, {"pads": (-1, 0, 0, 0)}):
        with pytest.raises(ModelError):
            max_pool("pool", 0, (1, 2, 2), (2, 2), **more)
    with pytest.raises(ModelError, match="the kernel does not fit"):
        MaxPool("pool", (0,), (1, 1, 1), in_shape=(1, 2, 2), kernel=(3, 1))


# --- files of onnxruntime's quantiser ---


def network_of(rng: np.random.Generator, late: bool = False) -> tuple[onnx.ModelProto, np.ndarray]:
    """Conv, Relu, MaxPool, Conv, Relu, MaxPool over what is left, Gemm; `late`: the first Relu behind its MaxPool."""
    window: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [0, 1, 0, 0]}
    first = [
        helper.make_node("Relu", ["p" if late else "z"], ["r"], name="r"),
        helper.make_node("MaxPool", ["z" if late else "r"], ["p"], name="p", **window),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "W", "c"], ["z"], name="z", kernel_shape=[2, 2]),
        *(reversed(first) if late else first),
        helper.make_node("Conv", ["r" if late else "p", "V", "d"], ["u"], name="u", kernel_shape=[2, 2]),
        helper.make_node("Relu", ["u"], ["s"], name="s"),
        helper.make_node("GlobalMaxPool", ["s"], ["q"], name="q"),
        helper.make_node("Flatten", ["q"], ["f"], name="f"),
        helper.make_node("Gemm", ["f", "U", "b"], ["y"], name="y", transB=1),
    ]
    sizes = {"W": (3, 1, 2, 2), "c": (3,), "V": (5, 3, 2, 2), "d": (5,), "U": (4, 5), "b": (4,)}
    constants = {name: 0.5 * rng.normal(size=size) for name, size in sizes.items()}
    return graph(nodes, constants, (1, 6, 5), 4), rng.normal(size=(60, 1, 6, 5)).astype(np.float32)


FORMS = [
    Form(),
    Form(channel=False, weight="QUInt8"),
    Form(activation="QInt8", centred=True),
    Form(activation="QInt8"),
    Form(format="QOperator"),
    Form(format="QOperator", channel=False, activation="QInt8"),
    Form(weight="QInt16", activation="QUInt16"),
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_quantised_files(form: Form, rng: np.random.Generator) -> None:
    """Node by node and by kernels onnxruntime gives what is read, to a step: a MaxPool rounds nothing."""
    source, x = network_of(rng)
    file = quantised(source, x[:30], form)
    network = load(file)
    behind = [network.layers[i] for i, la in enumerate(network.layers) if isinstance(la, MaxPool)]
    assert len(behind) == 2
    first = next(i for i, la in enumerate(network.layers) if isinstance(la, MaxPool))
    assert isinstance(network.layers[network.grid_of(first)], Rounding)
    assert not any(isinstance(network.layers[u], Rounding) for u in network.consumers[first])
    last: Any = network.layers[network.roundings[-1]]
    for optimised in (True, False):
        steps = abs(network.evaluate(x) - outputs(file, x, optimised)) / last.step.max()
        assert steps.max() <= (1.01 if form.bits == 8 else 16.0)
        assert form.bits == 16 or (steps < 0.01).mean() > 0.95


@pytest.mark.parametrize("form", [Form(), Form(channel=False), Form(format="QOperator")], ids=str)
def test_files_lie_in_the_family_of_onnxruntimes_points(form: Form, rng: np.random.Generator) -> None:
    """Tensor by tensor: the layers behind a MaxPool read the grid in front of it."""
    source, x = network_of(rng)
    network = qverify.load(source)
    scheme: Any = "channel" if form.channel else "tensor"
    quantiser = Quantiser(8, scheme, "any", points="onnxruntime")
    family = Family.of(network, Radii.of(quantiser, network, x[:30].astype(np.float64)))
    parts = coverage(network, load(quantised(source, x[:30], form)), family, "float32")
    assert all(part.covered for part in parts), [part.detail for part in parts]


@pytest.mark.parametrize("points", ["onnxruntime", "tflite"])
def test_a_relu_behind_a_max_pool_is_refused_where_toolchains_differ(points: Any, rng: np.random.Generator) -> None:
    source, x = network_of(rng, late=True)
    network = qverify.load(source)
    with pytest.raises(RadiiError, match="put the Relu before the MaxPool"):
        Radii.of(Quantiser(8, "tensor", points=points), network, x.astype(np.float64))
    Radii.of(Quantiser(8, "tensor"), network, x.astype(np.float64))


def test_old_max_pools_are_quantised_in_another_way(rng: np.random.Generator) -> None:
    built = model([node("MaxPool", "x", "y", kernel_shape=[2, 2])], {}, ["N", 1, 3, 3], 11)
    with pytest.raises(RadiiError, match="MaxPool of opset 11"):
        Radii.of(Quantiser(8, "tensor"), load(built), rng.random((3, 9)))


@pytest.mark.parametrize("kind", [onnx.TensorProto.UINT8, onnx.TensorProto.INT8])
def test_integers_go_through(kind: int, rng: np.random.Generator) -> None:
    """QuantizeLinear, MaxPool of integers, DequantizeLinear; and the integers themselves as the output."""
    dtype: Any = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"s": np.array(0.02, np.float32), "z": np.array(3, dtype)}
    pool = helper.make_node("MaxPool", ["i"], ["m"], kernel_shape=[2, 2], pads=[1, 0, 0, 0])
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["i"]), pool]
    whole = [*nodes, helper.make_node("DequantizeLinear", ["m", "s", "z"], ["y"])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, 3, 4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2, 3, 3])
    built = helper.make_model(
        helper.make_graph(whole, "g", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    network = load(built)
    assert [type(layer).__name__ for layer in network.layers[1:]] == ["Rounding", "MaxPool"]
    session = onnxruntime.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    samples = rng.normal(size=(6, 2, 3, 4)).astype(np.float32)
    theirs = np.concatenate([session.run(None, {"x": one[None]})[0].reshape(1, -1) for one in samples])
    np.testing.assert_allclose(network.evaluate(samples), theirs, atol=1e-6)
