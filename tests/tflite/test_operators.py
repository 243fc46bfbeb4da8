"""Operators, one or a few in a file of its own, against LiteRT's reference kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qverify.layers import Add, Conv, Dense, Relu, Rounding, Scale
from qverify.network import Network
from qverify.tflite import load, runtime
from tests.support.tflite_models import NONE, RANGES, RELU, RELU6, SAME, VALID, WINDOW, Graph, LiteRT, stored

Rng = np.random.Generator


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare in this process: a process of its own for every file would take most of the time."""
    monkeypatch.setattr(runtime, "answers", runtime._run)


KINDS = ("INT8", "UINT8", "INT16")


def weights(graph: Graph, rng: Rng, shape: tuple[int, ...], axis: int | None, kind: str = "INT8") -> tuple[int, Any]:
    """Random weights and their scales, one an index of an axis or one in all."""
    low, high = RANGES[kind]
    count = 1 if axis is None else shape[axis]
    scale = rng.uniform(0.5, 1.5, count).astype(np.float32) * np.float32(0.6 / high)
    zero = 120 if kind == "UINT8" else 0
    values = rng.integers(-high if kind == "INT8" else low, high + 1, shape)
    return graph.constant(kind, values, scale, zero, axis or 0), scale


def bias(graph: Graph, rng: Rng, unit: Any, size: int) -> int:
    """A random bias of about 1, in steps of input times weights."""
    unit = np.asarray(unit, np.float64)
    values = np.rint(rng.normal(size=size) / unit)
    return graph.constant("INT64" if graph.kind == "INT16" else "INT32", values, unit.astype(np.float32))


def zero_of(kind: str, rng: Rng) -> int:
    return {"INT8": int(rng.integers(-60, 60)), "UINT8": int(rng.integers(70, 180)), "INT16": 0}[kind]


def step_of(kind: str, reach: float) -> float:
    """The step of numbers up to about `reach`."""
    return reach / (32000 if kind == "INT16" else 110)


def start(kind: str, shape: tuple[int, ...], rng: Rng) -> tuple[Graph, float]:
    """A graph whose input holds numbers of about 1, and the step of that."""
    if kind == "FLOAT32":
        return Graph(kind, shape), 1.0
    step = float(np.float32(step_of(kind, 2.0)))
    return Graph(kind, shape, step, zero_of(kind, rng)), step


def agree(graph: Graph, folder: Path, rng: Rng, exactly: float = 0.9) -> Network:
    """The network of a file, which must give what LiteRT gives: within a step, and mostly the same."""
    content = graph.content()
    network, runtime = load(stored(content, folder)), LiteRT(content)
    samples = rng.normal(size=(25, *network.input_shape))
    samples[0] = 0.0
    index = runtime.logits()
    step = runtime.step(index)
    ours, theirs = network.evaluate(samples), runtime.run(samples, index)
    assert len(np.unique(theirs)) > 20
    if not step:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * abs(theirs).max())
        return network
    difference = abs(ours - theirs) / step
    wide = graph.kind == "INT16"  # kernels keep 15 bits of the multiplier: a step of the 2**15 may come from that
    assert difference.max() <= (2.001 if wide else 1.001)
    assert (difference < 0.01).mean() >= (0.7 if wide else exactly)
    return network


def kinds(network: Network) -> list[str]:
    return [type(layer).__name__ for layer in network.layers[1:]]


# --- convolution ---


def convolution(
    kind: str,
    rng: Rng,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    size: tuple[int, int] = (7, 6),
    depthwise: bool = False,
    weight_kind: str | None = None,
    **options: Any,
) -> Graph:
    """A file with one convolution from `channels[0]` to `channels[1]`, by channel unless it is UINT8."""
    weight_kind = weight_kind or ("UINT8" if kind == "UINT8" else "INT8")
    graph, step = start(kind, (1, *size, channels[0]), rng)
    options = {**WINDOW, "dilationHFactor": 1, "dilationWFactor": 1, **options}
    shape = (1, *kernel, channels[1]) if depthwise else (channels[1], *kernel, channels[0])
    along = None if kind == "UINT8" else 3 if depthwise else 0
    inputs, reach = [graph.given], 4.0
    if kind == "FLOAT32":
        inputs.append(graph.constant(kind, rng.normal(size=shape)))
        inputs.append(graph.constant(kind, rng.normal(size=channels[1])))
    else:
        weight, scale = weights(graph, rng, shape, along, weight_kind)
        inputs += [weight, bias(graph, rng, step * scale, channels[1])]
    sizes = []
    for n, k, s, d in zip(
        size,
        kernel,
        (options["strideH"], options["strideW"]),
        (options["dilationHFactor"], options["dilationWFactor"]),
        strict=True,
    ):
        sizes.append(-(-n // s) if options["padding"] == SAME else (n - d * (k - 1) - 1) // s + 1)
    out = graph.tensor(kind, (1, *sizes, channels[1]), step_of(kind, reach), zero_of(kind, rng) if step != 1.0 else 0)
    if depthwise:
        options["depthMultiplier"] = channels[1] // channels[0]
    graph.add("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", inputs, out, **options)
    return graph


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (3, 2)])
def test_conv_2d(tmp_path: Path, rng: Rng, kind: str, padding: int, strides: tuple[int, int]) -> None:
    window: Any = {"padding": padding, "strideH": strides[0], "strideW": strides[1]}
    network = agree(convolution(kind, rng, (3, 4), (3, 2), **window), tmp_path, rng)
    (conv,) = (layer for layer in network.layers if isinstance(layer, Conv))
    assert conv.weight.shape == (4, 3, 3, 2)
    assert network.input_shape == (3, 7, 6)
    if kind != "FLOAT32":
        assert conv.grid is not None and conv.grid.shape == ((1, 1, 1, 1) if kind == "UINT8" else (4, 1, 1, 1))
        assert kinds(network) == ["Rounding", "Conv", "Rounding"]


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_conv_2d(tmp_path: Path, rng: Rng, kind: str, multiplier: int) -> None:
    network = agree(
        convolution(kind, rng, (3, 3 * multiplier), (3, 3), depthwise=True, strideH=2, strideW=2), tmp_path, rng
    )
    (conv,) = (layer for layer in network.layers if isinstance(layer, Conv))
    assert conv.groups == 3 and conv.weight.shape == (3 * multiplier, 1, 3, 3)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_dilations(tmp_path: Path, rng: Rng, depthwise: bool, padding: int) -> None:
    window: Any = {"padding": padding, "dilationHFactor": 2, "dilationWFactor": 2}
    agree(convolution("INT8", rng, (2, 4), (3, 2), depthwise=depthwise, **window), tmp_path, rng)


def test_conv_in_groups(tmp_path: Path, rng: Rng) -> None:
    graph, step = start("INT8", (1, 5, 5, 4), rng)
    weight, scale = weights(graph, rng, (6, 3, 3, 2), 0)
    inputs = [graph.given, weight, bias(graph, rng, step * scale, 6)]
    graph.add("CONV_2D", inputs, graph.tensor("INT8", (1, 5, 5, 6), 0.05, 3), **WINDOW)
    network = agree(graph, tmp_path, rng)
    assert next(layer for layer in network.layers if isinstance(layer, Conv)).groups == 2


@pytest.mark.parametrize("kind", ["INT8", "FLOAT32"])
@pytest.mark.parametrize("absent", [[], [-1]])
def test_a_bias_that_is_not_there(tmp_path: Path, rng: Rng, kind: str, absent: list[int]) -> None:
    graph, _ = start(kind, (1, 12), rng)
    weight = weights(graph, rng, (9, 12), None)[0] if kind == "INT8" else graph.constant(kind, rng.normal(size=(9, 12)))
    graph.add("FULLY_CONNECTED", [graph.given, weight, *absent], graph.tensor(kind, (1, 9), 0.06, 3))
    (layer,) = (layer for layer in agree(graph, tmp_path, rng).layers if isinstance(layer, Dense))
    assert not layer.has_bias and not layer.bias.any()


@pytest.mark.parametrize("activation", [NONE, RELU, RELU6])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_activations(tmp_path: Path, rng: Rng, kind: str, activation: int) -> None:
    """With a step of the output by which 6 is no whole number of steps and lies inside the range."""
    graph, step = start(kind, (1, 4, 4, 2), rng)
    weight_kind = "UINT8" if kind == "UINT8" else "INT8"
    weight, scale = weights(graph, rng, (5, 3, 3, 2), None, weight_kind)
    made = bias(graph, rng, step * scale / 8, 5)
    graph.graph.tensors[made].quantization.scale = np.asarray(step * scale, np.float32)
    low = RANGES[kind][0]
    out = graph.tensor(kind, (1, 4, 4, 5), step_of(kind, 11.3), 0 if kind == "INT16" else low + 70)
    graph.add("CONV_2D", [graph.given, weight, made], out, **{**WINDOW, "fusedActivationFunction": activation})
    last = agree(graph, tmp_path, rng).layers[-1]
    assert isinstance(last, Rounding)
    high = {NONE: None, RELU: None, RELU6: 6.0}[activation]
    assert (last.low == 0).all() == (activation != NONE)
    if high is not None:
        assert 0 < abs(last.high - high).max() <= last.step.max() / 2


def test_weights_of_four_bits(tmp_path: Path, rng: Rng) -> None:
    network = agree(convolution("INT8", rng, (3, 5), (3, 3), weight_kind="INT4"), tmp_path, rng)
    (conv,) = (layer for layer in network.layers if isinstance(layer, Conv))
    assert len(np.unique(np.rint(conv.weight[0] / conv.grid[0]))) <= 16  # type: ignore[index]


# --- dense ---


def dense(graph: Graph, rng: Rng, x: int, step: float, sizes: tuple[int, int], axis: int | None = None) -> int:
    """Append a FULLY_CONNECTED; its output."""
    kind = graph.kind
    weight, scale = weights(graph, rng, sizes[::-1], axis, "UINT8" if kind == "UINT8" else "INT8")
    inputs = [x, weight, bias(graph, rng, step * scale, sizes[1])]
    out = graph.tensor(kind, (1, sizes[1]), step_of(kind, 6.0), zero_of(kind, rng))
    return graph.add("FULLY_CONNECTED", inputs, out, fusedActivationFunction=NONE)


@pytest.mark.parametrize("kind", KINDS)
def test_fully_connected(tmp_path: Path, rng: Rng, kind: str) -> None:
    graph, step = start(kind, (1, 12), rng)
    dense(graph, rng, graph.given, step, (12, 9))
    network = agree(graph, tmp_path, rng)
    assert kinds(network) == ["Rounding", "Dense", "Rounding"]
    assert [layer.name for layer in network.layers] == ["t0", "t0/rounded", "t3", "t3/rounded"]


def test_fully_connected_by_outputs(tmp_path: Path, rng: Rng) -> None:
    graph, step = start("INT8", (1, 12), rng)
    dense(graph, rng, graph.given, step, (12, 9), axis=0)
    network = agree(graph, tmp_path, rng)
    (layer,) = (layer for layer in network.layers if isinstance(layer, Dense))
    assert layer.grid is not None and layer.grid.shape == (9, 1)


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
def test_reshape_of_an_image_before_fully_connected(tmp_path: Path, rng: Rng, kind: str) -> None:
    """The file flattens (height, width, channels), the network (channels, height, width): columns must follow."""
    graph, step = start(kind, (1, 2, 2, 5), rng)
    zero, scale = (graph.graph.tensors[0].quantization.zeroPoint[0], step) if kind != "FLOAT32" else (0, 1.0)
    flat = graph.tensor(kind, (1, 20), scale, zero)
    graph.add("RESHAPE", [graph.given, graph.constant("INT32", [-1, 20])], flat)
    if kind == "FLOAT32":
        out = graph.tensor(kind, (1, 6))
        inputs = [flat, graph.constant(kind, rng.normal(size=(6, 20))), graph.constant(kind, rng.normal(size=6))]
        graph.add("FULLY_CONNECTED", inputs, out, fusedActivationFunction=RELU)
    else:
        dense(graph, rng, flat, step, (20, 9))
    network = agree(graph, tmp_path, rng)
    assert kinds(network) == (["Dense", "Relu"] if kind == "FLOAT32" else ["Rounding", "Dense", "Rounding"])
    assert network.input_shape == (5, 2, 2)
    assert any("channels first" in note for note in network.notes)


# --- sums, averages, padding ---


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("activation", [NONE, RELU])
def test_add_of_two_scales(tmp_path: Path, rng: Rng, kind: str, activation: int) -> None:
    graph = convolution(kind, rng, (3, 3), (3, 3))
    branch = graph.graph.operators[-1].outputs[0]
    out = graph.tensor(kind, (1, 7, 6, 3), step_of(kind, 5.0), zero_of(kind, rng) if kind != "FLOAT32" else 0)
    graph.add("ADD", [graph.given, branch], out, fusedActivationFunction=activation)
    network = agree(graph, tmp_path, rng)
    assert any(isinstance(layer, Add) for layer in network.layers)
    assert any(isinstance(layer, Relu) for layer in network.layers) == (kind == "FLOAT32" and activation == RELU)


@pytest.mark.parametrize("kind", ["INT8", "UINT8", "FLOAT32"])
@pytest.mark.parametrize("shape", [(1, 3, 4, 2), (2,), (1, 1, 1, 1)])
def test_add_of_a_constant(tmp_path: Path, rng: Rng, kind: str, shape: tuple[int, ...]) -> None:
    graph, _ = start(kind, (1, 3, 4, 2), rng)
    if kind == "FLOAT32":
        other = graph.constant(kind, rng.normal(size=shape))
    else:
        other = graph.constant(kind, rng.integers(*RANGES[kind], shape), 0.011, zero_of(kind, rng))
    graph.add("ADD", [graph.given, other], graph.tensor(kind, (1, 3, 4, 2), 0.03, 20), fusedActivationFunction=NONE)
    assert any(isinstance(layer, Scale) for layer in agree(graph, tmp_path, rng).layers)


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "strides"), [((5, 4), (2, 3)), ((4, 4), (2, 2)), ((3, 3), (1, 1))])
def test_average_pool_2d(
    tmp_path: Path, rng: Rng, kind: str, padding: int, size: tuple[int, int], strides: tuple[int, int]
) -> None:
    """Windows at the border of SAME count fewer elements."""
    graph, step = start(kind, (1, *size, 3), rng)
    zero = 0 if kind == "FLOAT32" else graph.graph.tensors[0].quantization.zeroPoint[0]
    sizes = [-(-n // s) if padding == SAME else (n - 3) // s + 1 for n, s in zip(size, strides, strict=True)]
    out = graph.tensor(kind, (1, *sizes, 3), step, zero)
    window = {**WINDOW, "padding": padding, "strideH": strides[0], "strideW": strides[1]}
    graph.add("AVERAGE_POOL_2D", [graph.given], out, filterHeight=3, filterWidth=3, **window)
    agree(graph, tmp_path, rng, exactly=0.7)  # sums of integers are often halfway


@pytest.mark.parametrize("activation", [NONE, RELU, RELU6])
@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("padding", [SAME, VALID])
@pytest.mark.parametrize(("size", "strides"), [((5, 4), (2, 3)), ((4, 4), (2, 2)), ((3, 3), (1, 1))])
def test_max_pool_2d(
    tmp_path: Path, rng: Rng, kind: str, padding: int, size: tuple[int, int], strides: tuple[int, int], activation: int
) -> None:
    """Padding is left out, and nothing is rounded again: every number is LiteRT's."""
    if kind == "FLOAT32" and activation == RELU6:
        pytest.skip("RELU6 on floats is refused")
    graph, step = start(kind, (1, *size, 3), rng)
    zero = 0 if kind == "FLOAT32" else graph.graph.tensors[0].quantization.zeroPoint[0]
    sizes = [-(-n // s) if padding == SAME else (n - 3) // s + 1 for n, s in zip(size, strides, strict=True)]
    out = graph.tensor(kind, (1, *sizes, 3), step, zero)
    window = {**WINDOW, "padding": padding, "strideH": strides[0], "strideW": strides[1]}
    window["fusedActivationFunction"] = activation
    graph.add("MAX_POOL_2D", [graph.given], out, filterHeight=3, filterWidth=3, **window)
    network = agree(graph, tmp_path, rng, exactly=1.0)
    first = [] if kind == "FLOAT32" else ["Rounding"]
    then = [] if activation == NONE else ["Relu" if kind == "FLOAT32" else "Rounding"]
    assert kinds(network) == [*first, "MaxPool", *then]


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("axes", [(1, 2), (2,), (-3,)])
def test_mean(tmp_path: Path, rng: Rng, kind: str, keep: bool, axes: tuple[int, ...]) -> None:
    graph, _ = start(kind, (1, 3, 5, 4), rng)
    shape = [1, 3, 5, 4]
    for axis in axes:
        shape[axis] = 1
    kept = tuple(n for axis, n in enumerate(shape) if keep or axis not in {a % 4 for a in axes})
    out = graph.tensor(kind, kept, step_of(kind, 1.3), zero_of(kind, rng) if kind != "FLOAT32" else 0)
    graph.add("MEAN", [graph.given, graph.constant("INT32", axes)], out, keepDims=keep)
    content = graph.content()
    network, runtime = load(stored(content, tmp_path)), LiteRT(content)
    samples = rng.normal(size=(25, 4, 3, 5))
    theirs = runtime.run(samples, runtime.logits())
    if not keep and len(axes) == 1:  # the axis that is left lies before the channels in the file
        theirs = theirs.reshape(25, -1, 4).transpose(0, 2, 1).reshape(25, -1)
    difference = abs(network.evaluate(samples) - theirs)
    assert difference.max() <= (1.001 * runtime.step(runtime.logits()) or 1e-5)


PADS = [[0, 0], [1, 2], [0, 3], [0, 0]]


@pytest.mark.parametrize("kind", [*KINDS, "FLOAT32"])
@pytest.mark.parametrize("padding", [SAME, VALID])
def test_pad_before_a_convolution_is_part_of_it(tmp_path: Path, rng: Rng, kind: str, padding: int) -> None:
    graph = convolution(kind, rng, (2, 3), (3, 3), size=(8, 8), padding=padding, strideH=2, strideW=2)
    padded(graph, (1, 5, 5, 2))
    assert [name for name in kinds(agree(graph, tmp_path, rng)) if name != "Rounding"] == ["Conv"]


def padded(graph: Graph, shape: tuple[int, ...]) -> None:
    """Put a PAD by `PADS` between the input, which gets this shape, and the first operator."""
    given = graph.graph.tensors[graph.given]
    quantised, first = given.quantization, graph.graph.operators[0]
    wide = graph.tensor(graph.kind, tuple(given.shape))
    graph.graph.tensors[wide].quantization, given.shape = quantised, list(shape)
    graph.add("PAD", [graph.given, graph.constant("INT32", PADS)], wide)
    graph.graph.operators.insert(0, graph.graph.operators.pop())
    first.inputs = [wide, *first.inputs[1:]]


@pytest.mark.parametrize("kind", ["INT8", "FLOAT32"])
def test_pad_before_something_else_is_a_layer(tmp_path: Path, rng: Rng, kind: str) -> None:
    graph, step = start(kind, (1, 8, 8, 2), rng)
    zero = 0 if kind == "FLOAT32" else graph.graph.tensors[0].quantization.zeroPoint[0]
    window = {**WINDOW, "padding": VALID, "strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 2}
    graph.add("AVERAGE_POOL_2D", [graph.given], graph.tensor(kind, (1, 4, 4, 2), step, zero), **window)
    padded(graph, (1, 5, 5, 2))
    network = agree(graph, tmp_path, rng, exactly=0.7)
    assert [name for name in kinds(network) if name != "Rounding"] == ["Conv", "Conv"]
    assert not network.weighted


# --- activations, ends ---


@pytest.mark.parametrize("kind", ["RELU", "RELU6"])
def test_activations_of_their_own(tmp_path: Path, rng: Rng, kind: str) -> None:
    graph = Graph("INT8", (1, 40), 0.07, -10)
    graph.add(kind, [graph.given], graph.tensor("INT8", (1, 40), 0.041, -128 if kind == "RELU" else -30))
    content = graph.content()
    network, runtime = load(stored(content, tmp_path)), LiteRT(content)
    samples = rng.normal(size=(25, 40)) * 5
    ours, theirs = network.evaluate(samples), runtime.run(samples, 1)
    assert abs(ours - theirs).max() <= 1.001 * runtime.step(1) and (abs(ours - theirs) < 1e-6).mean() > 0.9
    assert (ours.min(), theirs.min()) == (0, 0) and ours.max() == pytest.approx(theirs.max())


def test_relu_of_floats(tmp_path: Path, rng: Rng) -> None:
    graph = Graph("FLOAT32", (1, 40))
    graph.add("RELU", [graph.given], graph.tensor("FLOAT32", (1, 40)))
    assert kinds(agree(graph, tmp_path, rng)) == ["Relu"]


@pytest.mark.parametrize("kind", ["INT8", "UINT8"])
def test_floats_that_are_quantised_inside(tmp_path: Path, rng: Rng, kind: str) -> None:
    """QUANTIZE, a layer, a SOFTMAX and DEQUANTIZE: the SOFTMAX is dropped."""
    graph = Graph("FLOAT32", (1, 12))
    graph.kind = kind
    x = graph.tensor(kind, (1, 12), 0.02, 5 if kind == "INT8" else 130)
    graph.add("QUANTIZE", [graph.given], x)
    logits = dense(graph, rng, x, 0.02, (12, 9))
    classes = graph.tensor(kind, (1, 9), 1 / 256, -128 if kind == "INT8" else 0)
    graph.add("SOFTMAX", [logits], classes, beta=1.0)
    graph.add("DEQUANTIZE", [classes], graph.tensor("FLOAT32", (1, 9)))
    content = graph.content()
    network, runtime = load(stored(content, tmp_path)), LiteRT(content)
    assert kinds(network) == ["Rounding", "Dense", "Rounding"]
    assert any("SOFTMAX dropped" in note for note in network.notes)
    samples = rng.normal(size=(25, 12))
    difference = abs(network.evaluate(samples) - runtime.run(samples, logits)) / runtime.step(logits)
    assert difference.max() <= 1.001 and (difference < 0.01).mean() > 0.9


def test_requantising(tmp_path: Path, rng: Rng) -> None:
    graph, _ = start("INT8", (1, 40), rng)
    graph.add("QUANTIZE", [graph.given], graph.tensor("INT8", (1, 40), 0.031, 11))
    assert kinds(agree(graph, tmp_path, rng)) == ["Rounding", "Rounding"]


def test_weights_of_sixteen_bits_that_are_floats(tmp_path: Path, rng: Rng) -> None:
    graph = Graph("FLOAT32", (1, 12))
    weight = graph.tensor("FLOAT32", (5, 12))
    graph.add("DEQUANTIZE", [graph.constant("FLOAT16", rng.normal(size=(5, 12)))], weight)
    graph.add("FULLY_CONNECTED", [graph.given, weight, -1], graph.tensor("FLOAT32", (1, 5)))
    assert kinds(agree(graph, tmp_path, rng)) == ["Dense"]


def test_floats_with_integer_weights(tmp_path: Path, rng: Rng) -> None:
    """Kernels round the activations as they go: what is read is the network before that, and a note says so."""
    graph = Graph("FLOAT32", (1, 12))
    weight, scale = weights(graph, rng, (7, 12), None)
    graph.add("FULLY_CONNECTED", [graph.given, weight, -1], graph.tensor("FLOAT32", (1, 7)))
    network = load(stored(graph.content(), tmp_path))
    assert any("round the activations as they go" in note for note in network.notes)
    (layer,) = (layer for layer in network.layers if isinstance(layer, Dense))
    stored_weights = np.asarray(graph.model.buffers[1].data).view(np.int8).reshape(7, 12).astype(float)
    np.testing.assert_array_equal(layer.weight, stored_weights * float(scale[0]))
    assert layer.grid is not None
