"""A quantised file as integers: which accumulators every requantised tensor is made of, and by which multiplier.

An `IntegerNetwork` is a list of tensors of integers. Tensor 0 is the input, which the host quantises once; every other
one belongs to a `Stage`: exact integer sums of earlier tensors, then times a real multiplier, rounded and clipped. How
that is done is the choice of a runtime (rules.py); everything before is exact in every runtime.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qverify.activations.layer import Activation
from qverify.choices import RUNTIME_RULES
from qverify.errors import UnsupportedModel
from qverify.gather import Gather
from qverify.layers import Add, Conv, Dense, Input, Layer, MaxPool, Product, Relu, Rounding, Scale
from qverify.runtimes.functions import Factor, slacks
from qverify.text.brief import Brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qverify.activations.curve import Curve
    from qverify.arrays import Array
    from qverify.network import Network

_INT32 = 2**31 - 1
_BITS_8 = 256
_BITS_24 = 2**24
"""Integers below it are kept in float32 between stages."""
_CLOSE = 1e-9
"""How far, relatively, a number of the file's may be from the integer that it is a multiple by."""
_NOT_INTEGER = "layer {!r} is a {}, which is not computed in integers"
_PRODUCT = 2.0**-22
"""By how much, relatively, the step of a bias may differ from the product of the steps of input and weights: QDQ files
keep it as a float32 number of its own."""


class Kind(Enum):
    """What the accumulators of a stage are: a weighted sum, one of two tensors, a sum under a window, the largest
    number under it, which every runtime gives as it is, a function of a tensor, a product of two, or a tensor."""

    WEIGHTS = "weights"
    ADD = "add"
    POOL = "pool"
    LARGEST = "largest"
    FUNCTION = "function"
    PRODUCT = "product"
    COPY = "copy"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Stage(Brief):
    """One tensor (size,) of integers in [low, high], counted in steps from the zero point, as all integers here.

    `sources`: the tensors that it reads. `steps[k]`: the real value of one unit of accumulators that source k makes,
    float64 () or (channels,); `step`: that of the tensor itself, None at the end of a network that gives the
    accumulators of its last layer, which nothing rounds or clips. `read`, `reach`: the largest absolute values of what
    it reads and of its accumulators. `layer` has whole numbers as weights and biases, 1 and 0 under a window; None for
    sums, maxima and copies of tensors. `places` (size, k): the entries under each window of a maximum. `window`: the
    entries under a window, by which its sums are divided, else 1. `mixed`: its weights have several steps.
    `curve`: the function of one, whose accumulators are what it gives in steps, of a tensor in steps of `entry`.
    `slack`: of functions and products, by rule, how far beyond half a step a result may lie.
    """

    name: str
    kind: Kind
    sources: tuple[int, ...]
    size: int
    steps: tuple[Array, ...]
    step: float | None
    low: int
    high: int
    read: int
    reach: int
    layer: Dense | Conv | None = None
    places: np.ndarray[Any, np.dtype[np.int64]] | None = None
    window: int = 1
    mixed: bool = False
    curve: Curve | Factor | None = None
    entry: float = 1.0
    slack: Mapping[str, float] = field(default_factory=dict)

    def spread(self, values: Array) -> Array:
        """A number a channel as one (size,) per entry; a number as (1,)."""
        values = np.atleast_1d(np.asarray(values, dtype=np.float64))
        return np.repeat(values, self.size // len(values)) if len(values) > 1 else values


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class IntegerNetwork(Brief):
    """The stages of a quantised file. `stages[t - 1]` makes tensor t; the last one is the output.

    `host`: how the host makes tensor 0 of a sample. `reaches[t]`: the largest absolute value in tensor t.
    """

    source: str
    host: Rounding
    stages: tuple[Stage, ...]
    reaches: tuple[int, ...]

    @staticmethod
    def of(network: Network) -> IntegerNetwork:
        """The integers of a network that was read from a quantised file.

        Raises UnsupportedModel where something is not computed in integers, or the integers cannot be recovered.
        """
        return _Derivation(network).run()

    def integers(self, x: Array) -> Array:
        """Samples (N, n_in) -> the integers that the host makes of them, rounded to nearest, ties to even."""
        low, high = self.host.low / self.host.step, self.host.high / self.host.step
        return np.clip(np.rint(x / self.host.step), np.rint(low), np.rint(high)) + 0.0

    @property
    def output_step(self) -> float:
        """The real value of one unit of the outputs."""
        last = self.stages[-1]
        return float(last.steps[0].flat[0]) if last.step is None else last.step


def _computes(layer: Layer) -> bool:
    """Whether a layer is a function of a tensor, or a product, that is rounded behind."""
    return isinstance(layer, (Activation, Product)) or (isinstance(layer, Scale) and not layer.shift.any())


class _Derivation:
    """The way from layers to stages."""

    def __init__(self, network: Network):
        self.network = network
        self.stages: list[Stage] = []
        self.reaches: list[int] = []
        self.tensor: dict[int, int] = {}  # of layers whose outputs are integers
        self.step: list[float] = []

    def run(self) -> IntegerNetwork:
        """The integer network. Raises UnsupportedModel."""
        layers, host = self.network.layers, None
        if self.network.dynamic:
            raise self._refused(
                "it is quantised dynamically, so its steps are floats of each sample and no integers are the same on "
                "all runtimes; verify it, or quantise the model statically"
            )
        if self.network.parts is not None:
            raise self._refused("it has several inputs; supported is one: verify it, or join its inputs in the model")
        for index, layer in enumerate(layers):
            source = layers[layer.inputs[0]] if layer.inputs else None
            if isinstance(layer, Rounding) and isinstance(source, Input):
                if host is not None:
                    raise self._refused(f"its input is quantised twice, by {host.name!r} and {layer.name!r}")
                host = layer
                step, (low, high) = self._grid(layer)
                self._add_tensor(index, step, max(-low, high))
            elif isinstance(layer, Rounding):
                self._add_stage(index, self._requantised(layer))
            elif isinstance(layer, Relu) and layer.inputs[0] in self.tensor:
                self._add_stage(index, self._copy(layer, layer.inputs[0]))
            elif isinstance(layer, (MaxPool, Gather)) and all(i in self.tensor for i in layer.inputs):
                self._add_stage(index, self._picked(layer))
            elif index == len(layers) - 1:
                self._add_stage(index, self._last(layer))
            elif not isinstance(layer, (Input, Dense, Conv, Add, Relu)) and not _computes(layer):
                raise self._refused(_NOT_INTEGER.format(layer.name, type(layer).__name__))
        assert host is not None  # a tensor was made of it, or `_sources` refused
        return IntegerNetwork(
            source=self.network.source, host=host, stages=tuple(self.stages), reaches=tuple(self.reaches)
        )

    def _refused(self, problem: str) -> UnsupportedModel:
        return UnsupportedModel(self.network.source, [problem], ["files whose every tensor is quantised"])

    def _add_tensor(self, index: int, step: float, reach: int) -> None:
        if reach >= _BITS_24 and index < len(self.network.layers) - 1:
            raise self._refused(f"layer {self.network.layers[index].name!r} gives integers of more than 24 bits")
        self.tensor[index] = len(self.reaches)
        self.reaches.append(reach)
        self.step.append(step)

    def _add_stage(self, index: int, stage: Stage) -> None:
        self.stages.append(stage)
        self._add_tensor(index, 1.0 if stage.step is None else stage.step, max(-stage.low, stage.high))

    def _grid(self, layer: Rounding) -> tuple[float, tuple[int, int]]:
        """Step and ends, in steps, of a rounding point of a file."""
        ends = []
        step = float(layer.step[0])
        if step <= 0 or (layer.step != step).any() or layer.dead.any() or layer.offset is not None:
            raise self._refused(f"rounding point {layer.name!r} has no grid with one step for the whole tensor")
        for end in (layer.low, layer.high):
            if (end != end[0]).any():
                raise self._refused(f"rounding point {layer.name!r} clips entries of one tensor at several ends")
            ends.append(round(float(end[0]) / step))
        return step, (ends[0], ends[1])

    def _requantised(self, rounding: Rounding) -> Stage:
        """The stage that ends in a rounding point."""
        step, (low, high) = self._grid(rounding)
        index = rounding.inputs[0]
        while isinstance(self.network.layers[index], Relu) and index not in self.tensor:
            index, low = self.network.layers[index].inputs[0], max(low, 0)
        if index not in self.tensor and _computes(self.network.layers[index]):
            return replace(self._computed(rounding, index, step), low=low, high=high)
        stage = self._copy(rounding, index) if index in self.tensor else self._accumulated(self.network.layers[index])
        return replace(stage, step=step, low=low, high=high, size=rounding.size)

    def _computed(self, rounding: Rounding, index: int, step: float) -> Stage:
        """A function of a tensor, or a product, and the rounding point behind it."""
        layer: Any = self.network.layers[index]
        sources = self._sources(layer)
        units, reaches = [self.step[tensor] for tensor in sources], [self.reaches[tensor] for tensor in sources]
        if max(reaches) >= _BITS_8:
            raise self._refused(f"layer {layer.name!r} computes with integers of more than 8 bits")
        kind, entry = Kind.PRODUCT, prod(units)
        reach, curve = float(prod(reaches)) * entry / step, None
        if not isinstance(layer, Product):
            kind, curve = Kind.FUNCTION, Factor(layer.scale) if isinstance(layer, Scale) else layer.curve
            ends = curve.span(*(np.full(layer.size, end * units[0]) for end in (-reaches[0], reaches[0])))
            reach = float(np.max(np.abs(ends))) / step
        slack = slacks(self.network, self.network.index(rounding.name), RUNTIME_RULES, reach)
        if not all(np.isfinite(one) for one in (reach, *slack.values())):
            raise self._refused(f"what layer {layer.name!r} gives has no bound")
        return Stage(
            name=rounding.name,
            kind=kind,
            sources=sources,
            size=rounding.size,
            steps=(np.array(step if curve else entry),),
            step=step,
            low=0,
            high=0,
            read=max(reaches),
            reach=int(np.ceil(reach)) if curve else prod(reaches),
            curve=curve,
            entry=units[0],
            slack=slack,
        )

    def _copy(self, layer: Layer, index: int) -> Stage:
        """The tensor of layer `index` again, without its negative part: a Relu, or what a rounding point rescales."""
        tensor = self.tensor[index]
        step, reach = self.step[tensor], self.reaches[tensor]
        return Stage(
            name=layer.name,
            kind=Kind.COPY,
            sources=(tensor,),
            size=layer.size,
            steps=(np.array(step),),
            step=step,
            low=0,
            high=reach,
            read=reach,
            reach=reach,
        )

    def _picked(self, layer: MaxPool | Gather) -> Stage:
        """The largest integers under the windows of a tensor, or some of its integers."""
        if isinstance(layer, Gather) and (len(layer.inputs) > 1 or layer.constant.any()):
            raise self._refused(
                f"layer {layer.name!r} joins tensors or constants, whose integers may be of other steps"
            )
        tensor = self.tensor[layer.inputs[0]]
        low = self.stages[tensor - 1].low if tensor else -self.reaches[tensor]
        copied = replace(self._copy(layer, layer.inputs[0]), kind=Kind.LARGEST, low=low)
        places = layer.index[:, None] if isinstance(layer, Gather) else layer.windows
        return replace(copied, places=places)

    def _last(self, layer: Layer) -> Stage:
        """The accumulators of a last layer, if its outputs can be compared by them."""
        stage = self._accumulated(layer)
        if stage.kind is not Kind.WEIGHTS or stage.mixed:
            raise self._refused(f"the outputs of its last layer {layer.name!r} are neither requantised nor of one step")
        return stage

    def _sources(self, layer: Layer) -> tuple[int, ...]:
        """The tensors that a layer reads. Raises UnsupportedModel if some are no integers."""
        for index in layer.inputs:
            if index not in self.tensor:
                read = self.network.layers[index]
                what = "the input" if isinstance(read, Input) else repr(read.name)
                raise self._refused(f"layer {layer.name!r} reads {what}, which is not quantised")
        return tuple(self.tensor[index] for index in layer.inputs)

    def _accumulated(self, layer: Layer) -> Stage:
        """The accumulators of a layer, with nothing behind them."""
        sources = self._sources(layer)
        if isinstance(layer, Add):
            reach = sum(self.reaches[tensor] for tensor in sources)
            return self._stage(layer, Kind.ADD, reach, tuple(np.array(self.step[tensor]) for tensor in sources))
        if isinstance(layer, Conv) and not layer.quantised:
            return self._window(layer, self.step[sources[0]], self.reaches[sources[0]])
        if not isinstance(layer, (Dense, Conv)):
            raise self._refused(_NOT_INTEGER.format(layer.name, type(layer).__name__))
        return self._weighted(layer, self.step[sources[0]], self.reaches[sources[0]])

    def _stage(self, of: Layer, kind: Kind, reach: int, steps: tuple[Array, ...], **more: Any) -> Stage:
        """A stage that gives its accumulators."""
        sources = self._sources(of)
        return Stage(
            name=of.name,
            kind=kind,
            sources=sources,
            size=of.size,
            steps=steps,
            step=None,
            low=-reach,
            high=reach,
            read=max(self.reaches[tensor] for tensor in sources),
            reach=reach,
            **more,
        )

    def _window(self, layer: Conv, step: float, read: int) -> Stage:
        """Average pooling: the sums under its window."""
        count = layer.fan_in
        even = (abs(layer.weight * count - 1.0) < _CLOSE).all() and layer.weight.shape[1] == 1
        if not even or layer.groups != layer.weight.shape[0] or layer.bias.any() or any(layer.pads):
            raise self._refused(f"layer {layer.name!r} has exact weights that are no plain average over a window")
        whole = replace(layer, weight=np.ones_like(layer.weight))
        return self._stage(layer, Kind.POOL, count * read, (np.array(step),), layer=whole, window=count)

    def _weighted(self, layer: Dense | Conv, step: float, read: int) -> Stage:
        """A layer with integer weights. Raises UnsupportedModel if they, or its biases, are none."""
        if layer.grid is None:
            raise self._refused(f"layer {layer.name!r} has weights that are not quantised")
        grid = np.broadcast_to(layer.grid, layer.weight.shape).reshape(len(layer.weight), -1)
        if (grid != grid[:, :1]).any():
            raise self._refused(f"layer {layer.name!r} has weights of several steps in one sum")
        unit = step * grid[:, 0]
        weight = np.rint(layer.weight / np.broadcast_to(layer.grid, layer.weight.shape))
        bias = np.rint(layer.bias / unit)
        off = abs(layer.bias / unit - bias)
        near = np.maximum(_CLOSE * np.maximum(1.0, abs(bias)), np.minimum(0.25, _PRODUCT * abs(bias)))
        if (off > near).any():
            raise self._refused(
                f"layer {layer.name!r} has biases that are no whole multiples of the steps of its input and weights"
            )
        reach = int((abs(weight).reshape(len(weight), -1).sum(axis=1) * read + abs(bias)).max())
        if reach > _INT32:
            raise self._refused(f"the accumulators of layer {layer.name!r} may overflow 32 bits")
        mixed = bool((grid != grid[0, 0]).any())
        whole = replace(layer, weight=weight, bias=bias, grid=None)
        return self._stage(layer, Kind.WEIGHTS, reach, (unit if mixed else unit[:1],), layer=whole, mixed=mixed)
