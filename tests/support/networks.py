"""Random networks, radii, inputs and members that all tests share.

`NETWORKS` maps a name to a builder `rng -> Network`. Every builder uses non-zero biases, mixed signs,
another size on every axis, and some weights far below any radius (|w| < R is a case of its own).

`sample_members` is an oracle: it draws members of a quantised family and evaluates them by its own forward
pass, written from mathematics.md, section 1, and the ONNX definition of Conv. It shares no code with
`Network.evaluate` or `members.realise`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from qverify.activations.layer import Activation
from qverify.family.family import Family
from qverify.family.points import NO_ZERO, Point
from qverify.family.radii import Radii
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.network import Network

Array = np.ndarray
Rng = np.random.Generator


# --- layers ---------------------------------------------------------------------------------------------


def weights(rng: Rng, *shape: int) -> Array:
    """Mixed signs; about a fifth of them so small that every radius exceeds them, and one exactly zero."""
    values = rng.normal(size=shape)
    values = np.where(rng.random(shape) < 0.2, 0.002 * values, values)
    values.reshape(-1)[rng.integers(values.size)] = 0.0
    return values


def dense(rng: Rng, name: str, source: int, n_out: int, n_in: int, **more: Any) -> Dense:
    """A Dense layer with random weights of gain one."""
    weight = weights(rng, n_out, n_in) / np.sqrt(n_in)
    return Dense(name, (source,), (n_out,), weight=weight, bias=0.3 * rng.normal(size=n_out), **more)


def conv(rng: Rng, name: str, source: int, in_shape: tuple[int, ...], kernel: tuple[int, ...], **more: Any) -> Conv:
    """A Conv layer; kernel is (c_out, c_in / groups, kh, kw)."""
    weight = weights(rng, *kernel) / np.sqrt(np.prod(kernel[1:]))
    return conv_of(name, source, in_shape, weight, 0.3 * rng.normal(size=kernel[0]), **more)


def conv_of(name: str, source: int, in_shape: tuple[int, ...], weight: Any, bias: Any, **more: Any) -> Conv:
    """A Conv layer with these numbers; its output shape by the formula in the ONNX specification."""
    weight = np.asarray(weight, dtype=np.float64)
    top, left, bottom, right = more.get("pads", (0, 0, 0, 0))
    (sh, sw), (dh, dw) = more.get("strides", (1, 1)), more.get("dilations", (1, 1))
    channels, height, width = in_shape
    rows = (height + top + bottom - ((weight.shape[2] - 1) * dh + 1)) // sh + 1
    columns = (width + left + right - ((weight.shape[3] - 1) * dw + 1)) // sw + 1
    return Conv(
        name,
        (source,),
        (len(weight), rows, columns),
        weight=weight,
        bias=bias,
        in_shape=(channels, height, width),
        **more,
    )


def pool(name: str, source: int, in_shape: tuple[int, ...], size: tuple[int, int]) -> Conv:
    """Average pooling as a loader writes it: depthwise, constant, not quantised."""
    weight = np.full((in_shape[0], 1, *size), 1.0 / np.prod(size))
    more: dict[str, Any] = {"strides": size, "groups": in_shape[0], "has_bias": False, "quantised": False}
    return conv_of(name, source, in_shape, weight, np.zeros(in_shape[0]), **more)


def max_pool(name: str, source: int, in_shape: tuple[int, ...], kernel: tuple[int, int], **more: Any) -> MaxPool:
    """A MaxPool; its output shape by the formula in the ONNX specification."""
    top, left, bottom, right = more.get("pads", (0, 0, 0, 0))
    sh, sw = more.get("strides", (1, 1))
    channels, height, width = in_shape
    shape = (channels, (height + top + bottom - kernel[0]) // sh + 1, (width + left + right - kernel[1]) // sw + 1)
    return MaxPool(name, (source,), shape, in_shape=(channels, height, width), kernel=kernel, **more)


def relu(name: str, source: int, layer: Layer) -> Relu:
    return Relu(name, (source,), layer.shape)


def activation(name: str, source: int, layer: Layer, function: str, *parameters: Any) -> Activation:
    """An activation other than Relu; parameters are numbers or arrays (size,)."""
    arrays = tuple(np.broadcast_to(np.asarray(p, dtype=np.float64), (layer.size,)) for p in parameters)
    return Activation(name, (source,), layer.shape, function=function, parameters=arrays)


def scale(rng: Rng, name: str, source: int, size: int) -> Scale:
    return Scale(name, (source,), (size,), scale=rng.normal(size=size), shift=0.4 * rng.normal(size=size))


def mlp(rng: Rng, *sizes: int) -> Network:
    """Dense layers with ReLU between them: `mlp(rng, 4, 7, 3)` has one hidden layer."""
    layers: list[Layer] = [Input("x", (), (sizes[0],))]
    for k, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(dense(rng, f"fc{k}", len(layers) - 1, n_out, n_in))
        if k < len(sizes) - 2:
            layers.append(relu(f"relu{k}", len(layers) - 1, layers[-1]))
    return Network(tuple(layers), source="mlp")


# --- networks -------------------------------------------------------------------------------------------


def _signed_hidden(rng: Rng) -> Network:
    """Dense after Dense without ReLU, then a Scale with negative factors before a Dense."""
    first = dense(rng, "fc0", 0, 5, 4)
    second = dense(rng, "fc1", 1, 6, 5)
    layers = (Input("x", (), (4,)), first, second, scale(rng, "scale", 2, 6), dense(rng, "fc2", 3, 4, 6))
    return Network((*layers, relu("relu", 4, layers[4]), dense(rng, "fc3", 5, 3, 4)))


def _scaled_input(rng: Rng) -> Network:
    """Input normalisation, a Dense that is not quantised, a Dense without bias."""
    x = Input("x", (), (5,))
    fixed = dense(rng, "fixed", 1, 4, 5, quantised=False)
    hidden = Dense("fc", (3,), (6,), weight=weights(rng, 6, 4), bias=np.zeros(6), has_bias=False)
    layers = (x, scale(rng, "normalise", 0, 5), fixed, relu("relu0", 2, fixed), hidden, relu("relu1", 4, hidden))
    return Network((*layers, dense(rng, "out", 5, 3, 6)))


def _conv_attributes(rng: Rng) -> Network:
    """Strides, asymmetric pads, dilation and groups at once; then Flatten (no trace) and Dense."""
    more: dict[str, Any] = {"strides": (2, 1), "pads": (1, 0, 2, 1), "dilations": (1, 2), "groups": 2}
    first = conv(rng, "conv", 0, (2, 4, 5), (4, 1, 2, 2), **more)
    layers = (Input("x", (), (2, 4, 5)), first, relu("relu", 1, first))
    return Network((*layers, dense(rng, "out", 2, 3, first.size)))


def _conv_conv(rng: Rng) -> Network:
    """Two convolutions with a ReLU between, the second with two groups; a convolution feeds one directly."""
    first = conv(rng, "conv0", 0, (1, 4, 3), (2, 1, 2, 2), pads=(0, 1, 1, 0))
    second = conv(rng, "conv1", 2, first.out_shape, (4, 1, 2, 1), groups=2, strides=(1, 2))
    third = conv(rng, "conv2", 3, second.out_shape, (2, 4, 1, 2))
    layers = (Input("x", (), (1, 4, 3)), first, relu("relu0", 1, first), second, third, relu("relu1", 4, third))
    return Network((*layers, dense(rng, "out", 5, 3, third.size)))


def _conv_pool(rng: Rng) -> Network:
    """Average pooling between a convolution and the dense layers."""
    first = conv(rng, "conv", 0, (1, 5, 4), (3, 1, 2, 1))
    average = pool("pool", 2, first.out_shape, (2, 2))
    layers = (Input("x", (), (1, 5, 4)), first, relu("relu", 1, first), average)
    return Network((*layers, dense(rng, "out", 3, 4, average.size)))


def _conv_last(rng: Rng) -> Network:
    """The last layer is a convolution, so margins cannot be folded by rows."""
    first = dense(rng, "fc", 0, 6, 4)
    last = conv(rng, "conv", 2, (1, 2, 3), (2, 1, 2, 2))
    return Network((Input("x", (), (4,)), first, relu("relu", 1, first), last))


def _residual(rng: Rng) -> Network:
    """Two branches of one ReLU, one of them with a ReLU of its own, added."""
    stem = dense(rng, "stem", 0, 5, 4)
    left, right = dense(rng, "left", 2, 6, 5), dense(rng, "right", 2, 6, 5)
    layers = (Input("x", (), (4,)), stem, relu("relu0", 1, stem), left, right, relu("relu1", 4, right))
    add = Add("add", (3, 5), (6,))
    return Network((*layers, add, relu("relu2", 6, add), dense(rng, "out", 7, 3, 6)))


def _input_twice(rng: Rng) -> Network:
    """The input is read by three layers: two Dense and an Add."""
    first = dense(rng, "fc0", 0, 5, 4)
    second, skip = dense(rng, "fc1", 2, 4, 5), dense(rng, "skip", 0, 4, 4)
    layers = (Input("x", (), (4,)), first, relu("relu0", 1, first), second, skip)
    adds = (Add("add0", (3, 4), (4,)), Add("add1", (5, 0), (4,)))
    return Network((*layers, *adds, relu("relu1", 6, adds[1]), dense(rng, "out", 7, 3, 4)))


def _gated(rng: Rng) -> Network:
    """Products of a Relu's output and a Dense's, and of a Dense's output with itself."""
    first, gate = dense(rng, "fc0", 0, 5, 4), dense(rng, "gate", 0, 5, 4)
    layers = (Input("x", (), (4,)), first, relu("relu0", 1, first), gate)
    products = (Product("product0", (2, 3), (5,)), dense(rng, "fc1", 4, 4, 5), Product("square", (5, 5), (4,)))
    return Network((*layers, *products, dense(rng, "out", 6, 3, 4)))


def _conv_input_twice(rng: Rng) -> Network:
    """An image read by a convolution and by a dense layer; the convolution's output consumed twice too."""
    first = conv(rng, "conv", 0, (1, 3, 3), (2, 1, 2, 2))
    side = dense(rng, "side", 0, 8, 9)
    add = Add("add", (1, 2), (8,))
    layers = (Input("x", (), (1, 3, 3)), first, side, add, relu("relu0", 3, add), relu("relu1", 1, first))
    total = Add("total", (4, 5), (8,))
    return Network((*layers, total, dense(rng, "out", 6, 3, 8)))


def _add_last(rng: Rng) -> Network:
    """The last layer is an Add: margins are folded by BP only."""
    first = dense(rng, "fc0", 0, 5, 4)
    layers = (Input("x", (), (4,)), first, relu("relu", 1, first), dense(rng, "a", 2, 3, 5), dense(rng, "b", 0, 3, 4))
    return Network((*layers, Add("add", (3, 4), (3,))))


def _conv_max_pool(rng: Rng) -> Network:
    """A MaxPool with overlapping, padded windows between a Relu and the dense layers."""
    first = conv(rng, "conv", 0, (1, 4, 4), (2, 1, 2, 2), pads=(0, 0, 0, 1))
    largest = max_pool("pool", 2, first.out_shape, (2, 2), strides=(2, 1), pads=(0, 1, 1, 0))
    layers = (Input("x", (), (1, 4, 4)), first, relu("relu", 1, first), largest)
    return Network((*layers, dense(rng, "out", 3, 3, largest.size)))


def _max_pools(rng: Rng) -> Network:
    """MaxPools of the input, of a convolution before its Relu and behind another reader, and one over all positions."""
    first = max_pool("pool0", 0, (2, 3, 3), (1, 2))
    second = conv(rng, "conv0", 1, first.out_shape, (3, 2, 2, 1))
    third = max_pool("pool1", 2, second.out_shape, (2, 1), pads=(1, 0, 0, 0))
    total = Add("total", (2, 3), third.shape)
    layers = (Input("x", (), (2, 3, 3)), first, second, third, total, relu("relu", 4, third))
    last = conv(rng, "conv1", 5, third.shape, (4, 3, 1, 1))
    everywhere = max_pool("pool2", 6, last.out_shape, (2, 2))
    return Network((*layers, last, everywhere, dense(rng, "out", 7, 3, 4)))


def _leaky_clip(rng: Rng) -> Network:
    """Leaky Relus of either sign, an absolute value, and a Clip with ends of its own per element; one read twice."""
    first, second, third = dense(rng, "fc0", 0, 5, 4), dense(rng, "fc1", 2, 6, 5), dense(rng, "fc2", 4, 6, 6)
    leaky = activation("leaky", 1, first, "leaky_relu", np.array([0.1, -0.4, 1.6, 0.0, 0.3]))
    size = activation("size", 3, second, "abs")
    low = -rng.uniform(0.05, 0.6, 6)
    clip = activation("clip", 5, third, "clip", low, low + rng.uniform(0.1, 1.0, 6))
    total = Add("total", (4, 6), (6,))
    layers = (Input("x", (), (4,)), first, leaky, second, size, third, clip, total)
    return Network((*layers, dense(rng, "out", 7, 3, 6)))


def _conv_hard_sigmoid(rng: Rng) -> Network:
    """A HardSigmoid behind a convolution, and a PRelu with a slope a channel behind average pooling."""
    first = conv(rng, "conv", 0, (1, 4, 3), (2, 1, 2, 2), pads=(0, 1, 1, 0))
    hard = activation("hard", 1, first, "hard_sigmoid", 0.5, 0.4)
    average = pool("pool", 2, first.out_shape, (2, 1))
    slopes = np.repeat([0.2, -0.5], average.size // 2)
    layers = (Input("x", (), (1, 4, 3)), first, hard, average, activation("prelu", 3, average, "leaky_relu", slopes))
    return Network((*layers, dense(rng, "out", 4, 3, average.size)))


def gather(name: str, sources: Sequence[int], shape: tuple[int, ...], index: Any, fill: float = 0.0) -> Gather:
    """A Gather with one constant."""
    flat = np.ravel(index)
    return Gather(name, tuple(sources), shape, index=flat, fill=np.where(flat < 0, fill, 0.0))


def _joined(rng: Rng) -> Network:
    """Two branches, one with a Relu, and the input joined: numbers repeated and moved, a constant beside them; one
    branch has another reader."""
    left, right = dense(rng, "left", 0, 5, 3), dense(rng, "right", 0, 4, 3)
    layers = (Input("x", (), (3,)), left, relu("relu0", 1, left), right)
    joined = gather("joined", (2, 3, 0), (14,), [8, 0, 1, 1, -1, 6, 4, 5, 11, 2, 3, 7, 9, 10], fill=0.7)
    hidden = dense(rng, "fc", 4, 4, 14)
    total = Add("add", (5, 3), (4,))
    return Network((*layers, joined, hidden, total, relu("relu1", 6, total), dense(rng, "out", 7, 3, 4)))


def _conv_moved(rng: Rng) -> Network:
    """An image padded, with 0 and with its edge, and transposed; a cut of what a convolution makes of it, transposed,
    before the Relu, which another convolution reads."""
    image = np.pad(np.arange(12).reshape(2, 2, 3), ((0, 0), (1, 0), (0, 0)), constant_values=-1)
    image = np.pad(image, ((0, 0), (0, 0), (0, 1)), mode="edge").transpose(0, 2, 1)
    padded = gather("padded", (0,), image.shape, image)
    first = conv(rng, "conv0", 1, image.shape, (3, 2, 2, 2))
    cut = np.arange(first.size).reshape(first.out_shape)[:, 1:, ::-1].transpose(2, 0, 1)
    moved = gather("cut", (2,), cut.shape, cut)
    second = conv(rng, "conv1", 4, cut.shape, (2, cut.shape[0], 2, 1))
    layers = (Input("x", (), (2, 2, 3)), padded, first, moved, relu("relu", 3, moved), second)
    return Network((*layers, dense(rng, "out", 5, 3, second.size)))


def _gather_last(rng: Rng) -> Network:
    """The last layer joins two heads, and one output is there twice."""
    first = dense(rng, "fc", 0, 5, 4)
    layers = (Input("x", (), (4,)), first, relu("relu", 1, first), dense(rng, "a", 2, 2, 5), dense(rng, "b", 2, 2, 5))
    return Network((*layers, gather("heads", (3, 4), (5,), [2, 0, 3, 1, 0])))


NETWORKS: dict[str, Callable[[Rng], Network]] = {
    "dense": lambda rng: mlp(rng, 4, 7, 5, 3),
    "deep": lambda rng: mlp(rng, 3, 6, 5, 4, 6, 4),
    "linear": lambda rng: mlp(rng, 5, 3),
    "signed_hidden": _signed_hidden,
    "scaled_input": _scaled_input,
    "conv_attributes": _conv_attributes,
    "conv_conv": _conv_conv,
    "conv_pool": _conv_pool,
    "conv_last": _conv_last,
    "residual": _residual,
    "input_twice": _input_twice,
    "conv_input_twice": _conv_input_twice,
    "add_last": _add_last,
    "conv_max_pool": _conv_max_pool,
    "conv_max_pools": _max_pools,
    "gated": _gated,
    "leaky_clip": _leaky_clip,
    "conv_hard_sigmoid": _conv_hard_sigmoid,
    "joined": _joined,
    "conv_moved": _conv_moved,
    "gather_last": _gather_last,
}


LATER = ("deep", "linear", "conv_conv", "conv_last", "input_twice", "conv_input_twice", "conv_max_pool", "gather_last")
"""Those that a longer test leaves to the slow run, where others have what they have."""
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in LATER else name for name in NETWORKS]
"""All names, for `parametrize` of longer tests."""
RELU_NETWORKS = [name for name in NETWORKS if name not in ("leaky_clip", "conv_hard_sigmoid", "gated")]
"""Those that have no activation but Relu and no product of branches, which some questions know alone."""


def smooth(rng: Rng, function: str, *parameters: Any) -> Network:
    """Two hidden layers with the same function, which may be smooth, and one convolution."""
    first = conv(rng, "conv", 0, (1, 3, 3), (2, 1, 2, 2))
    second = dense(rng, "fc", 2, 5, first.size)
    layers = (Input("x", (), (1, 3, 3)), first, activation("act0", 1, first, function, *parameters), second)
    return Network((*layers, activation("act1", 3, second, function, *parameters), dense(rng, "out", 4, 3, 5)))


SMOOTH: dict[str, tuple[float, ...]] = {
    "sigmoid": (),
    "tanh": (),
    "softplus": (),
    "softplus_threshold": (20.0,),
    "elu": (1.3,),
    "selu": (1.67326, 1.0507),
    "celu": (0.7,),
    "exp": (),
    "softsign": (),
    "erf": (),
    "hard_swish": (),
    "silu": (),
    "gelu": (),
    "gelu_tanh": (),
    "sqrt": (0.3,),
    "rsqrt": (0.3,),
}
"""The functions that are not piecewise linear, with parameters for `smooth`."""


# --- radii and inputs -----------------------------------------------------------------------------------


def random_radii(network: Network, rng: Rng, size: float = 0.1) -> Radii:
    """Unequal per layer; per tensor, per channel or per element by chance; some entries and some tensors zero."""
    layers: dict[str, dict[str, Any]] = {}
    for layer in network.layers:
        if isinstance(layer, (Dense, Conv)) and layer.quantised:
            layers[layer.name] = {
                "weight": _random_radius(rng, layer.weight.shape, size),
                "bias": _random_radius(rng, layer.bias.shape, size),
            }
        elif isinstance(layer, (Relu, Activation)):
            layers[layer.name] = {"activation": _random_radius(rng, layer.shape, size)}
    return Radii(input=_random_radius(rng, network.input_shape, size), layers=layers)


def _random_radius(rng: Rng, shape: tuple[int, ...], size: float) -> Any:
    kind = rng.choice(["tensor", "channel", "element", "element", "zero"], p=[0.2, 0.25, 0.25, 0.2, 0.1])
    if kind == "zero":
        return 0.0
    if kind == "tensor":
        return size * rng.uniform(0.05, 1.0)
    chosen = shape if kind == "element" else shape[:1]
    return size * rng.uniform(0.05, 1.0, chosen) * (rng.random(chosen) < 0.8)


def random_points(network: Network, rng: Rng, grid: bool = False) -> dict[str, Point]:
    """A rounding point at the input and behind every layer, those of Relus in their place: ends that saturate amid
    the values, some known and some between two numbers; some keep 0, some what is near it, some nothing."""
    return {layer.name: random_point(layer.shape, rng, grid, not layer.inputs) for layer in network.layers}


def random_point(shape: tuple[int, ...], rng: Rng, grid: bool = False, entry: bool = False) -> Point:
    """One of `random_points`; per tensor, per channel or per element."""
    size = [(), shape[:1], shape][rng.integers(3)]
    step = np.float64(np.float32(rng.uniform(0.05, 0.3))) if grid else 0.0
    radius = rng.uniform(0.5, 1.2, size) * step if grid else 0.3 * rng.uniform(0.02, 1, size) * (rng.random(size) < 0.9)
    unit = step or 0.1
    counts = [
        np.sort(rng.integers(0, 9, (2, *size)) if rng.random() < 0.5 else rng.integers(0, 30, (2, *size)), axis=0)
    ]
    counts.append(np.sort(rng.integers(1, 12, (2, *size)), axis=0))
    if rng.random() < 0.5:  # known ends
        counts = [np.stack([one[1]] * 2) for one in counts]
    low, high = -unit * counts[0], unit * counts[1]
    dead = [0.0, NO_ZERO, radius * rng.random(size), np.where(rng.random(size) < 0.5, NO_ZERO, 0.0)][rng.integers(4)]
    return Point(radius=radius, low=(low[1], low[0]), high=(high[0], high[1]), dead=dead, step=step, entry=entry)


def inputs(network: Network, rng: Rng) -> Array:
    """Inputs (6, n_in): of mixed signs, all negative, all positive, exactly 0 (a symmetric box), and just off 0
    on either side (boxes that straddle 0 asymmetrically)."""
    n = network.input_size
    rows = [rng.normal(size=n), -rng.uniform(0.5, 2, n), rng.uniform(0.5, 2, n), np.zeros(n)]
    return np.stack([*rows, 0.02 * rng.normal(size=n), 0.01 * rng.random(n)])


def unit_inputs(network: Network, rng: Rng) -> Array:
    """Inputs (4, n_in) in [0, 1], the ends 0 and 1 included, for a family clipped to [0, 1]."""
    n = network.input_size
    return np.stack([rng.random(n), rng.integers(0, 2, n).astype(float), np.zeros(n), 0.02 * rng.random(n)])


def samples(network: Network, rng: np.random.Generator, count: int = 6) -> tuple[Array, np.ndarray]:
    """Inputs of mixed signs, and labels that the network gets right (the last one wrong)."""
    x = np.concatenate([inputs(network, rng) for _ in range((count + 5) // 6)])[:count]
    outputs = network.evaluate(x)
    labels = outputs.argmax(1)
    labels[-1] = outputs[-1].argmin()
    return x, labels


# --- members: an oracle that shares no code with qverify ---------------------------------------------------


def sample_member(family: Family, x: Array, rng: Rng, corner: bool) -> list[Array]:
    """All layer values (size,) of one random member; see `sample_members`."""
    return [value[0] for value in sample_members(family, x, rng, 1, corner)]


def sample_members(
    family: Family, x: Array, rng: Rng, count: int, corner: bool, activation: Mapping[int, Array] | None = None
) -> list[Array]:
    """Values (count, size) of every layer of `count` random members at the sample x (n_in,).

    `corner`: every radius is used in full, half of the members with signs that push each neuron as far
    as it goes; else anywhere inside. `activation` replaces the family's radii where a scheme clips.
    """
    radii = family.activation if activation is None else activation
    values = [_sample_input(family, x, rng, count, corner)]
    for index, layer in enumerate(family.network.layers[1:], start=1):
        sources = [values[i] for i in layer.inputs]
        if isinstance(layer, (Dense, Conv)):
            values.append(_sample_affine(family, index, layer, sources[0], rng, corner))
        elif isinstance(layer, Relu):
            offset = _positions(rng, sources[0].shape, corner) * radii[index]
            values.append(np.where(sources[0] > 0, sources[0], 0.0) + offset)
            values[-1][values[-1] < 0] = 0.0
        elif isinstance(layer, Activation):
            offset = _positions(rng, sources[0].shape, corner) * radii[index]
            low, high = reached(layer.function, *layer.parameters)
            values.append(
                np.minimum(np.maximum(curve(layer.function, sources[0], *layer.parameters) + offset, low), high)
            )
        elif isinstance(layer, Scale):
            values.append(sources[0] * layer.scale + layer.shift)
        elif isinstance(layer, Rounding):
            values.append(sample_rounded(family.points[index], radii[index], sources[0], rng, corner))
        elif isinstance(layer, Gather):
            values.append(picked(layer, sources))
        elif isinstance(layer, MaxPool):
            values.append(np.stack([sources[0][:, taps].max(axis=1) for taps in pool_taps(layer)], axis=1))
        else:
            values.append(sources[0] * sources[1] if isinstance(layer, Product) else sources[0] + sources[1])
    return values


def curve(function: str, x: Array, *p: Any) -> Array:
    """The function of an activation by its definition in ONNX, in long double."""
    x = np.asarray(x, dtype=np.longdouble)
    one = np.longdouble(1.0)
    if function in ("gelu", "erf"):
        from scipy.special import erf

        error = erf(np.asarray(x / np.sqrt(2 * one) if function == "gelu" else x, dtype=np.float64))
        return np.asarray(0.5 * x * (1 + error) if function == "gelu" else error, dtype=np.float64)
    with np.errstate(over="ignore", under="ignore"):
        logistic = one / (one + np.exp(-x))
        table: dict[str, Callable[[], Any]] = {
            "leaky_relu": lambda: np.where(x < 0, p[0] * x, x),
            "abs": lambda: np.abs(x),
            "clip": lambda: np.where(x < p[0], p[0], np.where(x > p[1], p[1], x)),
            "hard_sigmoid": lambda: np.maximum(0, np.minimum(1, p[0] * x + p[1])),
            "sigmoid": lambda: logistic,
            "tanh": lambda: np.tanh(x),
            "softplus": lambda: np.where(x > 0, x + np.log1p(np.exp(-np.abs(x))), np.log1p(np.exp(-np.abs(x)))),
            "softplus_threshold": lambda: np.where(x > p[0], x, np.where(x > 0, x, 0.0) + np.log1p(np.exp(-np.abs(x)))),
            "elu": lambda: np.where(x < 0, p[0] * np.expm1(np.minimum(x, 0)), x),
            "selu": lambda: p[1] * np.where(x < 0, p[0] * np.expm1(np.minimum(x, 0)), x),
            "celu": lambda: np.maximum(0, x) + np.minimum(0, p[0] * np.expm1(np.minimum(x, 0) / p[0])),
            "exp": lambda: np.exp(x),
            "softsign": lambda: x / (1 + np.abs(x)),
            "hard_swish": lambda: x * np.maximum(0, np.minimum(1, x / 6 + 0.5)),
            "silu": lambda: x * logistic,
            "sqrt": lambda: np.sqrt(np.where(x > p[0], x, p[0])),
            "rsqrt": lambda: one / np.sqrt(np.where(x > p[0], x, p[0])),
            "gelu_tanh": lambda: 0.5 * x * (1 + np.tanh(np.sqrt(2 / (one * np.pi)) * (x + 0.044715 * x**3))),
        }
        return np.asarray(table[function](), dtype=np.float64)


def reached(function: str, *p: Any) -> tuple[Any, Any]:
    """Between which numbers everything lies that a function gives, those of silu and the like to seven digits."""
    none = float("inf")
    if function == "leaky_relu":
        return np.where(p[0] > 0, -none, 0.0), none
    if function in ("clip", "elu", "celu", "selu"):
        return (p[0], p[1]) if function == "clip" else (-np.prod(p, axis=0), none)
    if function in ("sqrt", "rsqrt"):
        return (np.sqrt(p[0]), none) if function == "sqrt" else (0.0, 1.0 / np.sqrt(p[0]))
    least = {"tanh": -1.0, "softsign": -1.0, "erf": -1.0, "hard_swish": -0.375, "silu": -0.2784645, "gelu": -0.1699712}
    least |= {"gelu_tanh": -0.1700407}
    most = 1.0 if function in ("sigmoid", "hard_sigmoid", "tanh", "softsign", "erf") else none
    return least.get(function, 0.0), most


def sample_rounded(point: Point, radius: Array, v: Array, rng: Rng, corner: bool) -> Array:
    """What random quantisers of a point make of values v (M, size), by formula (4): an error, the grid, 0 and the sign
    kept, and a range with ends anywhere between the two numbers of each."""

    def between(ends: tuple[Array, Array]) -> Array:
        first, second = (np.broadcast_to(end, v.shape) for end in ends)
        share = rng.integers(0, 2, v.shape) if corner else rng.random(v.shape)
        return np.where(share == 1, second, first + share * (second - first))

    moved = v + _positions(rng, v.shape, corner) * radius
    step = np.broadcast_to(point.step, v.shape)
    if (step > 0).any():
        unit = np.where(step > 0, step, 1.0)
        fewest, most = np.ceil((v - radius) / unit), np.floor((v + radius) / unit)
        whole = np.clip(np.round(moved / unit), fewest, np.maximum(most, fewest))
        moved = np.where(step > 0, whole * unit, moved)
    signed = np.where(v > 0, np.maximum(moved, 0.0), np.minimum(moved, 0.0))
    moved = np.where(point.dead < 0, moved, np.where(abs(v) <= point.dead, 0.0, signed))
    low, high = between(point.low), between(point.high)
    return np.asarray(np.minimum(np.maximum(moved, np.minimum(low, high)), high))


def _positions(rng: Rng, shape: Sequence[int], corner: bool) -> Array:
    return rng.choice([-1.0, 1.0], size=shape) if corner else rng.uniform(-1, 1, size=shape)


def _sample_input(family: Family, x: Array, rng: Rng, count: int, corner: bool) -> Array:
    radius = family.input
    point = x + _positions(rng, (count, len(x)), corner) * radius
    zero = (np.abs(x) <= radius) & (rng.random(point.shape) < 0.1)
    point[zero] = 0.0
    if family.entry is not None:
        point = sample_rounded(family.entry, family.entry.radius, point, rng, corner)
    if family.clip is not None:
        point = np.minimum(np.maximum(point, family.clip[0]), family.clip[1])
    return point


def may_give(point: Point, v: Array, y: Array) -> Any:
    """Mask: y is what some quantiser of the point makes of v, by formula (4): within the radius, unless an end of the
    range that it may have is what is nearest; 0 where v is next to 0, and of the sign of v elsewhere."""
    above = (y >= v - point.radius) | (y >= point.high[0])
    below = (y <= v + point.radius) | (y <= point.low[1])
    inside = (y >= point.low[0]) & (y <= point.high[1])
    zero = (point.dead < 0) | (np.where(abs(v) <= point.dead, y == 0, y * v >= 0))
    return above & below & inside & (zero | (y == np.broadcast_to(point.low[1], y.shape)))


def _sample_affine(family: Family, index: int, layer: Any, x: Array, rng: Rng, corner: bool) -> Array:
    count = len(x)
    radius, bias_radius = family.weight.get(index, 0.0), family.bias.get(index, 0.0)
    signs = _positions(rng, (count, *layer.weight.shape), corner)
    bias_signs = _positions(rng, (count, *layer.bias.shape), corner)
    if corner and isinstance(layer, Dense):
        pushed = rng.random(count) < 0.5
        target = rng.choice([-1.0, 1.0], size=(count, layer.size))
        extreme = target[:, :, None] * np.where(x < 0, -1.0, 1.0)[:, None, :]
        signs = np.where(pushed[:, None, None], extreme, signs)
        bias_signs = np.where(pushed[:, None], target, bias_signs)
    elif corner:
        coherent = rng.choice([-1.0, 1.0], size=(count, len(layer.bias), 1, 1, 1))
        signs = np.where(rng.random((count, 1, 1, 1, 1)) < 0.5, coherent, signs)
    weight, bias = layer.weight + signs * radius, layer.bias + bias_signs * bias_radius
    if isinstance(layer, Dense):
        return np.asarray((weight * x[:, None, :]).sum(2) + bias)
    return convolve(layer, weight, bias, x)


def conv_taps(layer: Conv) -> list[list[tuple[int, tuple[int, int, int, int]]]]:
    """Per output (C order) the pairs (input index, kernel index) it sums, by the definition of ONNX Conv."""
    channels, height, width = layer.in_shape
    c_out, per_group, kernel_h, kernel_w = layer.weight.shape
    (top, left, bottom, right), (sh, sw), (dh, dw) = layer.pads, layer.strides, layer.dilations
    rows = (height + top + bottom - (dh * (kernel_h - 1) + 1)) // sh + 1
    columns = (width + left + right - (dw * (kernel_w - 1) + 1)) // sw + 1
    outputs = []
    for o, r, c in product(range(c_out), range(rows), range(columns)):
        first = (o // (c_out // layer.groups)) * (channels // layer.groups)
        taps = []
        for k, i, j in product(range(per_group), range(kernel_h), range(kernel_w)):
            y, x = r * sh - top + i * dh, c * sw - left + j * dw
            if 0 <= y < height and 0 <= x < width:
                taps.append((((first + k) * height + y) * width + x, (o, k, i, j)))
        outputs.append(taps)
    return outputs


def pool_taps(layer: MaxPool) -> list[list[int]]:
    """Per output (C order) the inputs under its window, by the definition of ONNX MaxPool."""
    (channels, height, width), (kernel_h, kernel_w) = layer.in_shape, layer.kernel
    (top, left, bottom, right), (sh, sw) = layer.pads, layer.strides
    rows, columns = (height + top + bottom - kernel_h) // sh + 1, (width + left + right - kernel_w) // sw + 1
    outputs = []
    for k, r, c in product(range(channels), range(rows), range(columns)):
        places = [(r * sh - top + i, c * sw - left + j) for i, j in product(range(kernel_h), range(kernel_w))]
        inside = [(y, x) for y, x in places if 0 <= y < height and 0 <= x < width]
        outputs.append([(k * height + y) * width + x for y, x in inside])
    return outputs


def picked(layer: Gather, sources: Sequence[Array]) -> Array:
    """The outputs (M, n_out) of a Gather by a list of all numbers of its producers, (M, n) each."""
    columns = [column for source in sources for column in source.T]
    outputs = [
        columns[i] if i >= 0 else np.full(len(sources[0]), c) for i, c in zip(layer.index, layer.fill, strict=True)
    ]
    return np.stack(outputs, axis=1)


def convolve(layer: Conv, weight: Array, bias: Array, x: Array) -> Array:
    """Convolution by explicit loops; weight (M, *kernel), bias (M, c_out), x (M, n_in) -> (M, n_out)."""
    taps = conv_taps(layer)
    channel = len(taps) // len(layer.bias)
    columns = []
    for position, pairs in enumerate(taps):
        value = bias[:, position // channel].copy()
        for source, kernel in pairs:
            value += weight[(slice(None), *kernel)] * x[:, source]
        columns.append(value)
    return np.stack(columns, axis=1)


def known_layers(network: Any) -> tuple[Any, ...]:
    """The layers of a network of which the test knows what each one is."""
    return tuple(network.layers)
