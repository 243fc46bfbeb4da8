"""Integer files made by hand: a float network with the rounding points, steps and integers of a quantiser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.gather import Gather
from qverify.layers import Conv, Dense, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.network import Network
from tests.support.networks import convolve, curve, picked, pool_taps

Array = np.ndarray[Any, Any]


def quantised(network: Network, x: Array, bits: int = 8, fused: bool = True, channel: bool = True) -> Network:
    """The file of a toolchain: symmetric weights with a step a channel (or a tensor), int32 biases, and ranges of the
    samples `x` (N, n_in) at the input and behind every affine layer and every sum.

    `fused`: a Relu becomes the lower end 0 of the rounding point before it; else it stays, with the point behind it.
    Steps are float32 numbers.
    """
    values = network.evaluate_all(x)
    layers: list[Layer] = []
    place: dict[int, int] = {}
    steps: dict[int, float] = {}
    for i, layer in enumerate(network.layers):
        sources = tuple(place[s] for s in layer.inputs)
        users = [network.layers[u] for u in network.consumers[i]]
        relu_next = len(users) == 1 and isinstance(users[0], Relu)
        if isinstance(layer, (Dense, Conv)):
            layers.append(_integers(layer, sources, steps.get(layer.inputs[0], 0.0), bits, channel))
        elif isinstance(layer, Relu) and fused and len(network.consumers[layer.inputs[0]]) == 1:
            place[i], steps[i] = place[layer.inputs[0]], steps[layer.inputs[0]]
            continue
        else:
            layers.append(_moved(layer, sources))
        place[i], steps[i] = len(layers) - 1, 0.0
        if isinstance(layer, Relu) or not relu_next or fused:
            behind = values[network.consumers[i][0]] if relu_next else values[i]
            point = rounding(f"{layer.name}.q", len(layers) - 1, layer.shape, behind, bits)
            layers.append(point)
            place[i], steps[i] = len(layers) - 1, float(point.step[0])
    return Network(tuple(layers), source="file")


def rounding(name: str, source: int, shape: tuple[int, ...], values: Array, bits: int) -> Rounding:
    """A rounding point with the range of some values, made to hold 0, and one step."""
    low, high = min(0.0, float(values.min())), max(1e-3, float(values.max()))
    step = float(np.float32((high - low) / (2**bits - 1)))
    zero = int(np.rint(-low / step))
    return Rounding.on_grid(name, source, shape, step, (-zero, 2**bits - 1 - zero), kernel=True)


def _moved(layer: Layer, sources: tuple[int, ...]) -> Layer:
    return layer if isinstance(layer, Input) else replace(layer, inputs=sources)


def _integers(layer: Dense | Conv, sources: tuple[int, ...], step: float, bits: int, channel: bool) -> Layer:
    if not layer.quantised:
        return _moved(layer, sources)
    rows = np.abs(layer.weight.reshape(len(layer.weight), -1))
    largest = rows.max(1) if channel else np.full(len(rows), rows.max())
    grid = np.float32(np.maximum(largest, 1e-6) / (2 ** (bits - 1) - 1)).astype(np.float64)
    shaped = grid.reshape(-1, *[1] * (layer.weight.ndim - 1))
    weight = np.rint(layer.weight / shaped) * shaped
    bias = layer.bias if not step else np.rint(layer.bias / (grid * step)) * (grid * step)
    return replace(layer, inputs=sources, weight=weight, bias=bias, grid=shaped)


def sample_runtimes(file: Network, radii: dict[int, Array], x: Array, rng: np.random.Generator) -> list[Array]:
    """The values (N, size) of every layer of N runtimes at inputs x (N, n_in): an oracle, which shares no code with
    `Network.evaluate`. Every rounding point takes, at random, a multiple of its step that is at most `radii[i]` away.
    """
    values: list[Array] = []
    for i, layer in enumerate(file.layers):
        if isinstance(layer, Input):
            values.append(x)
            continue
        v = values[layer.inputs[0]]
        if isinstance(layer, Dense):
            values.append((layer.weight * v[:, None, :]).sum(2) + layer.bias)
        elif isinstance(layer, Conv):
            weight = np.broadcast_to(layer.weight, (len(x), *layer.weight.shape))
            values.append(convolve(layer, weight, np.broadcast_to(layer.bias, (len(x), len(layer.bias))), v))
        elif isinstance(layer, Rounding):
            least, most = np.ceil((v - radii[i]) / layer.step), np.floor((v + radii[i]) / layer.step)
            share = rng.choice([0.0, 1.0], v.shape) if rng.random() < 0.5 else rng.random(v.shape)
            count = np.rint(least + share * np.maximum(most - least, 0.0))
            values.append(np.minimum(np.maximum(count * layer.step, layer.low), layer.high))
        elif isinstance(layer, Relu):
            values.append(np.where(v > 0, v, 0.0))
        elif isinstance(layer, Scale):
            values.append(v * layer.scale + layer.shift)
        elif isinstance(layer, Activation):
            values.append(curve(layer.function, v, *layer.parameters).astype(np.float64))
        elif isinstance(layer, Product):
            values.append(v * values[layer.inputs[1]])
        elif isinstance(layer, Gather):
            values.append(picked(layer, [values[j] for j in layer.inputs]))
        elif isinstance(layer, MaxPool):
            values.append(np.stack([v[:, taps].max(axis=1) for taps in pool_taps(layer)], axis=1))
        else:
            values.append(v + values[layer.inputs[1]])
    return values


def onnxruntime_file(source: str, x: Array, path: Path, qdq: bool = False) -> None:
    """Quantise a model to 8 bits by onnxruntime, calibrated on samples x (N, ...): operators on integers, or QDQ."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    entry = onnx.load(source).graph.input[0]
    shape = [1, *(axis.dim_value for axis in entry.type.tensor_type.shape.dim[1:])]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(x)

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.left, None)
            return None if sample is None else {entry.name: sample.reshape(shape).astype(np.float32)}

    quantize_static(
        source,
        str(path),
        Reader(),
        quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
    )
